"""The matching maps ``W: student space → teacher space`` as trainable modules."""

from collections.abc import Iterable, Mapping

from torch import nn

from kd_train.randomness import seeded
from kd_train.students.student_plan import StudentPlan
from layerangles.geometry.maps import MatchingMap, MatchingMaps
from layerangles.layers import Tower


def build_maps(
    plan: StudentPlan, teacher_width: int, matched: Mapping[Tower, Iterable[int]], *, seed: int
) -> nn.ModuleDict:
    """Linear maps without bias, named ``<tower>_<student layer>``; none for identity maps.

    Learned maps exist for the matched layers only, since no others would be trained. Fixed ones exist for every layer,
    so that angles can be measured from unmatched layers too. All are drawn from ``seed``, tower and layer alone. The
    weights of ``pca`` maps are set afterwards (:func:`kd_train.students.principal_maps.set_principal_maps`).

    Args:
        plan: the student's plan.
        teacher_width: the width of teacher space.
        matched: by tower, the student layers that are matched at any time.
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


def stored_maps(modules: nn.ModuleDict) -> MatchingMaps:
    """A copy of the maps as they are stored in a student directory."""
    stored = {}
    for name, module in modules.items():
        tower, layer = name.rsplit("_", 1)
        stored[tower, int(layer)] = MatchingMap(module.get_parameter("weight").detach().clone())
    return MatchingMaps(stored)
