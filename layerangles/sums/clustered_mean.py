"""A mean over tokens with an interval clustered by example, and the merging of objects made of such sums."""

import copy
from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from layerangles.sums.clustered_interval import MOMENTS, clustered_interval

Sums = TypeVar("Sums")


@dataclass
class ClusteredMean:
    """A mean over tokens whose interval treats the tokens of one example as one cluster.

    The fields are sums over examples; see :func:`layerangles.sums.clustered_interval.clustered_interval`.
    """

    n_examples: Float[Tensor, "*cell"]
    total: Float[Tensor, "*cell"]
    count: Float[Tensor, "*cell"]
    total_squared: Float[Tensor, "*cell"]
    total_times_count: Float[Tensor, "*cell"]
    count_squared: Float[Tensor, "*cell"]

    @classmethod
    def zeros(cls, *shape: int, device: torch.device | str = "cpu") -> "ClusteredMean":
        """Sums over no tokens."""
        return cls(*(torch.zeros(shape, dtype=torch.float64, device=device) for _ in fields(cls)))

    def add(self, total: Float[Tensor, "*cell example"], count: Float[Tensor, "*cell example"]) -> None:
        """Add whole examples, each with the total and the number of its tokens."""
        self.n_examples += (count > 0).sum(dim=-1)
        self.total += total.sum(dim=-1)
        self.count += count.sum(dim=-1)
        self.total_squared += total.square().sum(dim=-1)
        self.total_times_count += (total * count).sum(dim=-1)
        self.count_squared += count.square().sum(dim=-1)

    def merge(self, other: "ClusteredMean") -> "ClusteredMean":
        """Sums over both parts of the data."""
        return type(self)(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def mean(self) -> Float[Tensor, "*cell"]:
        """The mean over tokens; NaN where there are none."""
        return self.total / self.count

    def interval(self, confidence: float = 0.95) -> tuple[Float[Tensor, "*cell"], Float[Tensor, "*cell"]]:
        """The two-sided interval of the mean by Student's t with ``n_examples − 1`` degrees of freedom.

        NaN where fewer than two examples have a token that counts.
        """
        moments = [getattr(self, name).cpu().numpy() for name in MOMENTS]
        _, low, high = clustered_interval(moments, confidence)
        return torch.as_tensor(low).to(self.total), torch.as_tensor(high).to(self.total)


def state_of(sums: object) -> dict[str, Tensor]:
    """The tensors of an object of sums: its public attributes, and the fields of its clustered means."""
    state: dict[str, Tensor] = {}
    for name, value in vars(sums).items():
        if isinstance(value, ClusteredMean):
            state |= {f"{name}.{field.name}": getattr(value, field.name) for field in fields(value)}
        elif isinstance(value, Tensor) and not name.startswith("_"):
            state[name] = value
    return state


def merged(one: Sums, other: Sums) -> Sums:
    """Add two objects of sums, attribute by attribute, into a new one."""
    both = copy.copy(one)
    for name, value in vars(one).items():
        setattr(both, name, copy.deepcopy(value) if isinstance(value, ClusteredMean | Tensor) else value)
    for name, tensor in state_of(other).items():
        state_of(both)[name].add_(tensor)
    return both
