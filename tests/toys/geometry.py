"""States for tests of pure functions of tensors."""

import numpy as np
import torch
from torch import Tensor


def point_states(*points: list[float]) -> Tensor:
    """One layer per point, at one token."""
    return torch.tensor(points)[:, None]


def random_states(rng: np.random.Generator, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal numbers."""
    return torch.from_numpy(rng.normal(size=shape)).to(dtype)
