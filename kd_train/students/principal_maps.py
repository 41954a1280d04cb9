"""Maps along the principal directions of the teacher's states (``map: pca``)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from kd_train.matching.strategies import forward_targets
from kd_train.students.learned_maps import name_of
from kd_train.students.student_plan import StudentPlan
from kd_train.tasks.base import MicroBatch
from layerangles.layers import LayerPair, Tower
from layerangles.models.states import forward_with_states, n_layers


class PrincipalMaps(NamedTuple):
    """Maps of one student whose weights are to be set, with its plan.

    They come from :func:`kd_train.students.learned_maps.build_maps`.
    """

    maps: nn.ModuleDict
    plan: StudentPlan
    pairs: Mapping[Tower, Sequence[LayerPair]]

    def teacher_layers(self, teacher_depths: Mapping[Tower, int]) -> dict[tuple[Tower, int], tuple[int, ...]]:
        """The teacher layers, by tower and student layer, whose directions a map keeps.

        They are those that the student layer is matched to, or forward's where it is not. A shared map keeps the
        directions of all of them.
        """
        found: dict[tuple[Tower, int], tuple[int, ...]] = {}
        for tower, depth in self.plan.layers.items():
            forward = (0, *forward_targets(depth, teacher_depths[tower]))
            pairs = self.pairs.get(tower, ())
            by_layer = [tuple(t for s, t in pairs if s == layer) or (forward[layer],) for layer in range(depth + 1)]
            if self.plan.share_map:
                by_layer = [tuple(sorted({layer for of in by_layer for layer in of}))] * (depth + 1)
            found |= {(tower, layer): of for layer, of in enumerate(by_layer)}
        return found


def set_principal_maps(
    students: Sequence[PrincipalMaps],
    teacher: PreTrainedModel,
    micro_batches: Iterable[MicroBatch],
    device: torch.device,
) -> None:
    """Set the maps of some students to the principal directions of the teacher's states on some texts."""
    layers: dict[Tower, set[int]] = {}
    kept = []
    for student in students:
        depths = {tower: n_layers(teacher.config, tower) for tower in student.plan.layers}
        kept.append(student.teacher_layers(depths))
        for (tower, _), of in kept[-1].items():
            layers.setdefault(tower, set()).update(of)
    moments = second_moments(teacher, micro_batches, layers, device)
    for student, by_layer in zip(students, kept, strict=True):
        for (tower, layer), of in by_layer.items():
            weight = student.maps[name_of(tower, layer)].get_parameter("weight")
            weight.data.copy_(principal_directions([moments[tower, t] for t in of], student.plan.width))


def principal_directions(
    moments: Sequence[Float[Tensor, "teacher_dim teacher_dim"]], width: int
) -> Float[Tensor, "teacher_dim student_dim"]:
    """The ``width`` orthonormal directions that keep most of a teacher's states, as the columns of a map.

    Principal components about the origin, not about the mean: a map without bias then loses least.

    Args:
        moments: sums of ``T Tᵀ`` over tokens, in float64; of several layers where several are matched.
        width: of the student, at most that of the teacher.
    """
    _, directions = torch.linalg.eigh(torch.stack(list(moments)).sum(dim=0))
    leading: Tensor = directions[:, -width:].flip(dims=(1,)).float()
    # An eigenvector is determined up to its sign: the largest entry is made positive.
    signs = leading.gather(0, leading.abs().argmax(dim=0, keepdim=True)).sign()
    return leading * signs


def second_moments(
    teacher: PreTrainedModel,
    micro_batches: Iterable[MicroBatch],
    layers: Mapping[Tower, Iterable[int]],
    device: torch.device,
) -> dict[tuple[Tower, int], Float[Tensor, "teacher_dim teacher_dim"]]:
    """Sums of ``T Tᵀ`` over the valid tokens of micro-batches, by tower and teacher layer, in float64 on the CPU."""
    sums: dict[tuple[Tower, int], Tensor] = {}
    nn.Module.to(teacher, device).train(False)
    for micro_batch in micro_batches:
        with torch.no_grad():
            _, states = forward_with_states(
                teacher, {name: value.to(device) for name, value in micro_batch.inputs.items()}
            )
        for tower, wanted in layers.items():
            for layer in wanted:
                tokens = states[tower][layer][micro_batch.valid[tower].to(device)].cpu().double()
                sums[tower, layer] = sums.get((tower, layer), torch.zeros(())) + tokens.T @ tokens
    return sums
