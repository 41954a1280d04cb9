"""How a student's layers are put into the space in which they look at the teacher's."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from layerangles.geometry.maps import MatchingMap
from layerangles.geometry.preprocessing import Preprocessing
from layerangles.layers import LayerPair, Tower
from layerangles.models.checkpoints import ModelCheckpoint, StudentCheckpoint, check_matching
from layerangles.models.states import n_layers, width
from layerangles.settings import Space
from layerangles.sums.angle_sums import View


@dataclass(frozen=True)
class StudentTower:
    """One tower of a student.

    Attributes:
        student: the student.
        tower: which of its towers.
        layers: its layers that can be put into teacher space, ascending; 0 is the embedding output.
        maps: the map of each of these; None is the identity.
        matched: the pairs ``(student_layer, teacher_layer)`` that training matched.
        r2: the held-out R² of each map that was fitted to the data, by layer.
    """

    student: StudentCheckpoint
    tower: Tower
    layers: Sequence[int]
    maps: Sequence[MatchingMap | None]
    matched: Sequence[LayerPair]
    r2: Sequence[float] = ()

    @classmethod
    def of(cls, student: StudentCheckpoint, teacher: ModelCheckpoint, tower: Tower) -> "StudentTower":
        """The student_tower of a student with the maps it was trained with; the identity where no map was needed.

        Raises:
            InputError: pairs or maps that do not fit the two models.
        """
        stored = student.load_maps().by_layer
        matching = student.matching.towers.get(tower) if student.matching else None
        matched = check_matching(student, teacher, tower)
        same_width = width(student.config) == width(teacher.config)
        identity = same_width and (matching is None or matching.map == "identity")
        all_layers = range(n_layers(student.config, tower) + 1)
        layers = [layer for layer in all_layers if identity or (tower, layer) in stored]
        return cls(student, tower, layers, [stored.get((tower, layer)) for layer in layers], matched)

    def fitted(self, maps: Sequence[MatchingMap | None], r2: Sequence[float]) -> "StudentTower":
        """The same student seen through maps fitted to its data, one for each of all its layers."""
        return replace(self, layers=list(range(len(maps))), maps=maps, r2=r2)

    @property
    def n_layers(self) -> int:
        """All layers of the student's tower, the embedding output included."""
        return n_layers(self.student.config, self.tower) + 1

    def vertex(self, states: Float[Tensor, "layer token student_dim"]) -> Float[Tensor, "chosen token teacher_dim"]:
        """The layers of :attr:`layers` in teacher space."""
        chosen = states[list(self.layers)]
        if all(m is None for m in self.maps):
            return chosen
        return torch.stack([s if m is None else m.apply(s) for m, s in zip(self.maps, chosen, strict=True)])

    def views(
        self,
        space: Space,
        teacher: Float[Tensor, "teacher_layer token dim"],
        vertex: Float[Tensor, "chosen token dim"],
        untrained: Float[Tensor, "chosen token dim"] | None,
        preprocessing: Preprocessing,
    ) -> list[View]:
        """What is compared in a space: in ``"teacher"`` space all layers share one view.

        In ``"pull"`` space every layer has its own: a difference R becomes ``Wᵀ R``, the direction in which the
        matching loss ``‖W S − T‖²`` moves the student's state. Nothing changes where W is the identity.
        """
        teacher, vertex = preprocessing.apply(teacher), preprocessing.apply(vertex)
        untrained = None if untrained is None else preprocessing.apply(untrained)
        if space == "teacher" or all(m is None for m in self.maps):
            return [View(slice(0, len(vertex)), teacher, vertex, untrained)]
        views = []
        for row, of_layer in enumerate(self.maps):
            rows = slice(row, row + 1)
            in_space = (teacher, vertex[rows], None if untrained is None else untrained[rows])
            if of_layer is not None:
                weight = of_layer.weight.to(teacher)
                in_space = (
                    in_space[0] @ weight,
                    in_space[1] @ weight,
                    None if in_space[2] is None else in_space[2] @ weight,
                )
            views.append(View(rows, *in_space))
        return views
