"""The comparisons that a study makes: cells of strategies, draws of random maps, and seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from kd_train.study.study_file import Study, Variant
from layerangles.lazy import lazy_module

if TYPE_CHECKING:
    from layerangles import equivalence
else:
    equivalence = lazy_module("layerangles.equivalence")

# Students of one cell share their initialisation and the weights of their loss. A strategy's own learning rate, maps
# and hidden loss are part of the comparison.
_STUDENT = ("layers", "decoder_layers", "width", "init", "copied_layers", "embeddings", "freeze_embeddings")
_WEIGHTS = ("ce_weight", "kl_weight", "hidden_weight")
_UNUSED_BY_NONE = "hidden_weight"


class Arm(NamedTuple):
    """The students of one entry of a study's ``strategies`` within one comparison.

    Attributes:
        label: their name; their directories are ``<label>-seed<k>``.
        cell: the name of the comparison.
        strategy: their strategy's name there; draws of one random map are one strategy.
        draw: the mapping seed of a random map, 0 for others.
        role: matched, none, or control.
    """

    label: str
    cell: str
    strategy: str
    draw: int
    role: equivalence.Role


def arms_of(study: Study) -> list[Arm]:
    """The arms of all comparisons of a study.

    Students with the same initialisation and the same loss weights, or with the same ``cell`` in the study file, form a
    cell. Students without matching belong to every cell that differs from theirs only in the weight of the hidden loss.
    """
    keys = [_key(study, variant) for variant in study.strategies]
    by_variant = list(zip(study.strategies, keys, strict=True))
    cells: list[dict[str, Any]] = []
    for variant, key in by_variant:
        if variant.matches and key not in cells:
            cells.append(key)
    arms = []
    for cell, name in zip(cells, _names(study, cells), strict=True):
        members = [
            variant
            for variant, key in by_variant
            if (key == cell if variant.matches else _without_hidden(key) == _without_hidden(cell))
        ]
        arms += [_arm(variant, name, members, keeps_names=len(cells) == 1) for variant in members]
    return arms


class Comparison(NamedTuple):
    """A cell as the study file plans it.

    Attributes:
        cell: its name.
        none: whether it has students without matching.
        strategies: the matched strategies, with their numbers of draws.
        controls: the control strategies.
        n_seeds: the number of seeds of every strategy.
    """

    cell: str
    none: bool
    strategies: dict[str, int]
    controls: tuple[str, ...]
    n_seeds: int

    @property
    def compared(self) -> str:
        """The matched strategies and their draws, for people."""
        return ", ".join(f"{name} ({n} draws)" if n > 1 else name for name, n in self.strategies.items())


def comparisons(study: Study) -> list[Comparison]:
    """The cells of a study: strategies and draws, crossed with seeds."""
    arms = arms_of(study)
    found = []
    for cell in dict.fromkeys(arm.cell for arm in arms):
        members = [arm for arm in arms if arm.cell == cell]
        matched = Counter(arm.strategy for arm in members if arm.role == "matched")
        controls = tuple(dict.fromkeys(arm.strategy for arm in members if arm.role == "control"))
        found.append(
            Comparison(cell, any(arm.role == "none" for arm in members), dict(matched), controls, len(study.seeds))
        )
    return found


def margin_of(study: Study) -> equivalence.Margin | None:
    """The margin that the study file states, if any."""
    spec = study.verdict
    if spec.margin is not None:
        return equivalence.Margin(spec.margin)
    return None if spec.margin_of_gain is None else equivalence.Margin(spec.margin_of_gain, of_gain=True)


def _key(study: Study, variant: Variant) -> dict[str, Any]:
    if variant.cell is not None:
        return {"cell": variant.cell}
    student, loss = variant.student or study.student, variant.loss or study.loss
    return {name: getattr(student, name) for name in _STUDENT} | {name: getattr(loss, name) for name in _WEIGHTS}


def _without_hidden(key: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in key.items() if name != _UNUSED_BY_NONE}


def _names(study: Study, keys: list[dict[str, Any]]) -> list[str]:
    """The study's name, followed in brackets by the settings in which its cells differ."""
    if len(keys) == 1:
        return [study.name]
    differing = [name for name in dict.fromkeys(n for key in keys for n in key) if len({k.get(name) for k in keys}) > 1]
    texts = []
    for key in keys:
        told = [name for name in differing if key.get(name) not in (None, False)]
        named = [
            name.replace("_", " ") if key[name] is True else f"{name.replace('_', ' ')} {key[name]}" for name in told
        ]
        texts.append(key.get("cell") or f"{study.name} ({', '.join(named)})")
    return texts


def _arm(variant: Variant, cell: str, members: list[Variant], *, keeps_names: bool) -> Arm:
    """The variant as a member of its cell.

    In a study of several cells, variants of one strategy need different names, although their cells already tell them
    apart. Within a cell the strategy is therefore named by its kind, unless two members would get the same name.
    """
    draw = variant.mapping_seed or 0
    namesakes = [other for other in members if (_plain(other), other.mapping_seed or 0) == (_plain(variant), draw)]
    strategy = _plain(variant)
    if variant.name and (keeps_names or len(namesakes) > 1 or variant.pairs is not None):
        strategy = variant.name
    role: equivalence.Role = "none" if not variant.matches else "control" if variant.is_control else "matched"
    return Arm(variant.label, cell, strategy, draw, role)


def _plain(variant: Variant) -> str:
    """The label without the variant's own name and draw."""
    return variant.model_copy(update={"name": None, "mapping_seed": None}).label
