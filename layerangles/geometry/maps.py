"""Matching maps: the linear maps from a student's layers to teacher space, and their file."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from layerangles.errors import InputError


@dataclass(frozen=True)
class MatchingMap:
    """A linear map ``S ↦ W S + b`` from student space to teacher space, for one layer of the student."""

    weight: Float[Tensor, "teacher_dim student_dim"]
    bias: Float[Tensor, " teacher_dim"] | None = None

    def apply(self, states: Float[Tensor, "*shape student_dim"]) -> Float[Tensor, "*shape teacher_dim"]:
        """``W S + b`` for every state."""
        bias = None if self.bias is None else self.bias.to(states)
        return torch.nn.functional.linear(states, self.weight.to(states), bias)


@dataclass(frozen=True)
class MatchingMaps:
    """The stored maps of a student by tower and student layer; empty for identity maps."""

    by_layer: dict[tuple[str, int], MatchingMap] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write ``"<tower>.<student_layer>.weight"`` (and ``".bias"``) to a safetensors file."""
        tensors = {}
        for (tower, layer), stored in sorted(self.by_layer.items()):
            tensors[f"{tower}.{layer}.weight"] = stored.weight.detach().cpu().contiguous()
            if stored.bias is not None:
                tensors[f"{tower}.{layer}.bias"] = stored.bias.detach().cpu().contiguous()
        save_file(tensors, path, metadata={"format": "pt"})

    @classmethod
    def load(cls, path: Path) -> "MatchingMaps":
        """Read what :meth:`save` wrote.

        Raises:
            InputError: the file is damaged, or a tensor in it has a name of another form.
        """
        try:
            tensors = load_file(path)
        except SafetensorError as error:
            raise InputError(f"{path} is damaged or cut short ({error}). Copy it again, or train anew.") from error
        by_layer = {}
        for name, tensor in tensors.items():
            tower, layer, kind = ([*name.split("."), "", ""])[:3]
            if name.count(".") != 2 or not layer.isdecimal() or kind not in ("weight", "bias"):
                raise InputError(
                    f'{path} holds a tensor named "{name}"; names have the form "<tower>.<student_layer>.weight" '
                    'or ".bias", such as "encoder.1.weight".'
                )
            if kind == "weight":
                by_layer[tower, int(layer)] = MatchingMap(tensor, tensors.get(f"{tower}.{layer}.bias"))
        return cls(by_layer)
