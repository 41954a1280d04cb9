"""The matching maps ``W: student space → teacher space`` while they are trained."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from kd_train.randomness import seeded
from kd_train.students.student_plan import StudentPlan
from kd_train.tasks.base import MicroBatch
from layerangles.geometry.maps import MatchingMap, MatchingMaps
from layerangles.layers import Tower
from layerangles.models.states import forward_with_states


def build_maps(
    plan: StudentPlan, teacher_width: int, matched: Mapping[Tower, Iterable[int]], *, seed: int
) -> nn.ModuleDict:
    """Linear maps without bias as modules, named ``<tower>_<student layer>``; none for identity maps.

    Learned maps exist for the matched layers only, since no other would ever be trained. Fixed ones exist for every
    layer, so that angles can be seen from unmatched layers too. All are drawn from ``seed``, tower and layer alone. The
    weights of ``pca`` maps are set afterwards (:func:`set_principal`).

    Args:
        plan: the student's.
        teacher_width: the teacher's.
        matched: by tower, the student layers that are ever matched.
        seed: of the run.
    """
    maps = nn.ModuleDict()
    if plan.map == "identity":
        return maps
    for tower, depth in plan.layers.items():
        of_tower = set(matched.get(tower, ()))
        layers = [layer for layer in range(depth + 1) if plan.map != "learned" or layer in of_tower]
        for layer in layers:
            first = maps[name_of(tower, layers[0])] if layer != layers[0] else None
            maps[name_of(tower, layer)] = (
                first if plan.share_map and first is not None else _linear(plan, teacher_width, tower, layer, seed)
            )
    return maps


def _linear(plan: StudentPlan, teacher_width: int, tower: Tower, layer: int, seed: int) -> nn.Linear:
    with seeded(seed, "map", tower, layer):
        linear = nn.Linear(plan.width, teacher_width, bias=False)
        if plan.map == "orthogonal":
            nn.init.orthogonal_(linear.weight)
    linear.weight.requires_grad_(plan.map == "learned")
    return linear


def name_of(tower: str, layer: int) -> str:
    """The name of a layer's map among the modules."""
    return f"{tower}_{layer}"


def set_principal(maps: nn.ModuleDict, principal: Mapping[str, Float[Tensor, "teacher_dim student_dim"]]) -> None:
    """Give ``pca`` maps their weights, by the maps' names."""
    for name, weight in principal.items():
        maps[name].get_parameter("weight").data.copy_(weight)


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


def stored_maps(modules: nn.ModuleDict) -> MatchingMaps:
    """The maps in the form in which a student directory holds them."""
    stored = {}
    for name, module in modules.items():
        tower, layer = name.rsplit("_", 1)
        stored[tower, int(layer)] = MatchingMap(module.get_parameter("weight").detach().clone())
    return MatchingMaps(stored)


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
