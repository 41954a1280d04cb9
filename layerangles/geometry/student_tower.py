"""One tower of a student: its layers, and the maps that put them into the teacher's space."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from layerangles.geometry.maps import MatchingMap
from layerangles.geometry.preprocessing import Preprocessing
from layerangles.geometry.shared_space import SharedSpace
from layerangles.layers import LayerPair, Space, Tower


@dataclass(frozen=True)
class StudentTower:
    """One tower of a student at one training step.

    Attributes:
        student: the student's name.
        tower: the tower's name.
        n_layers: number of its layers, the embedding output included.
        layers: those that can be put into teacher space, ascending; 0 is the embedding output.
        maps: the map of each of these; None is the identity.
        matched: the pairs ``(student_layer, teacher_layer)`` that training matched.
        step: the training step of the student's weights; 0 where it is not known.
        weights_sha256: the hash of the student's weights.
        r2: the held-out R² of each map, where maps were fitted to the data.
    """

    student: str
    tower: Tower
    n_layers: int
    layers: Sequence[int]
    maps: Sequence[MatchingMap | None]
    matched: Sequence[LayerPair] = ()
    step: int = 0
    weights_sha256: str = ""
    r2: Sequence[float] = ()

    def fitted(self, maps: Sequence[MatchingMap | None], r2: Sequence[float]) -> "StudentTower":
        """The same tower with maps fitted to its data, one for each of all its layers."""
        return replace(self, layers=range(len(maps)), maps=maps, r2=r2)

    @property
    def matched_rows(self) -> dict[int, int]:
        """The teacher layer of each matched layer, by its row among :attr:`layers`."""
        rows = {layer: row for row, layer in enumerate(self.layers)}
        return {rows[student_layer]: teacher for student_layer, teacher in self.matched if student_layer in rows}

    def vertex(self, states: Float[Tensor, "layer token student_dim"]) -> Float[Tensor, "chosen token teacher_dim"]:
        """The states of :attr:`layers` in teacher space."""
        chosen = states[list(self.layers)]
        if all(m is None for m in self.maps):
            return chosen
        return torch.stack([s if m is None else m.apply(s) for m, s in zip(self.maps, chosen, strict=True)])

    def spaces(
        self,
        space: Space,
        teacher: Float[Tensor, "teacher_layer token dim"],
        vertex: Float[Tensor, "chosen token dim"],
        untrained: Float[Tensor, "chosen token dim"] | None,
        preprocessing: Preprocessing,
    ) -> list[SharedSpace]:
        """The states of student and teacher in the spaces in which angles are taken; all layers share teacher space.

        In ``"pull"`` space every layer has a space of its own: a difference R becomes ``Wᵀ R``, the direction in which
        the matching loss ``‖W S − T‖²`` moves the student's state. Nothing changes where W is the identity.
        """
        teacher, vertex = preprocessing.apply(teacher), preprocessing.apply(vertex)
        untrained = None if untrained is None else preprocessing.apply(untrained)
        if space == "teacher" or all(m is None for m in self.maps):
            return [SharedSpace(slice(0, len(vertex)), teacher, vertex, untrained)]
        spaces = []
        for row, matching_map in enumerate(self.maps):
            rows = slice(row, row + 1)
            states = [teacher, vertex[rows], None if untrained is None else untrained[rows]]
            if matching_map is not None:
                weight = matching_map.weight.to(teacher)
                states = [None if some is None else some @ weight for some in states]
            spaces.append(SharedSpace(rows, *states))  # type: ignore[arg-type]  # the first two are no None
        return spaces
