"""Common random numbers: every draw is a function of (seed, purpose, step), and of nothing else.

So all students of a seed see the same data order, the same dropout masks and the same initial weights, whatever their
strategy and their company in training, and a resumed run draws the numbers of the uninterrupted one.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from layerangles.lazy import lazy_module

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_module("torch")


def derive_seed(*parts: int | str) -> int:
    """A seed of 63 bits from named parts, the same on every machine.

    Example:
        >>> derive_seed(0, "dropout", 7) == derive_seed(0, "dropout", 7) != derive_seed(0, "dropout", 8)
        True
    """
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@contextmanager
def seeded(*parts: int | str) -> Iterator[None]:
    """Seed torch's generators within the block, and restore them after it."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derive_seed(*parts))
        yield
