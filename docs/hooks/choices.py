"""The page of choices: strategies, losses, targets, tasks and nulls, from the values that define them."""

import re
from collections.abc import Iterable, Iterator, Sequence

from reference import escaped, table

_INTRODUCTION = """The alternatives of a study and of a measurement. L_S and L_T are the depths of student and teacher;
layer 0 is the embedding output, 1..L are the blocks; S is the student's state in the teacher's space, T its target.
[The paper's page](paper.md#3-strategies-losses-maps-controls) adds sources and an example of each."""


def choices_page() -> str:
    """Tables of everything that a study or a measurement chooses from."""
    parts = ["# Choices", _INTRODUCTION]
    for heading, introduction, heads, rows in _sections():
        parts += [f"## {heading} {{#{heading.lower().replace(' ', '-')}}}", introduction, table(heads, rows)]
    return "\n\n".join(parts) + "\n"


def _sections() -> Iterator[tuple[str, str, tuple[str, ...], Sequence[tuple[str, ...]]]]:
    from kd_train.matching.controls import TARGETS
    from kd_train.matching.losses import DIVERGENCES, HIDDEN_LOSSES
    from kd_train.matching.strategies import STRATEGIES
    from kd_train.tasks.kinds import TASKS
    from layerangles.geometry.nulls import NULLS

    yield (
        "Strategies",
        "The keys of [`strategies`](study-file.md#strategies): which teacher layer a student layer is matched to. With "
        "`embedding_pair` the embedding outputs are matched as well, unless a strategy names its layers itself.",
        ("kind", "matches", "parameters", "during training"),
        [
            (f"`{name}`", escaped(kind.meaning), _code(kind.parameters), kind.change or "fixed")
            for name, kind in STRATEGIES.items()
        ],
    )
    yield (
        "Hidden losses",
        "The values of `loss.hidden`: how the states of a pair are compared, token by token; means are over the valid "
        "tokens of a batch and over pairs unless the last column says otherwise.",
        ("hidden", "per token", "besides"),
        [(f"`{name}`", escaped(loss.formula), escaped(loss.meaning)) for name, loss in HIDDEN_LOSSES.items()],
    )
    yield (
        "Divergences",
        "The values of `loss.divergence`: how predictions are compared, at a temperature.",
        ("divergence", "definition"),
        [(f"`{name}`", escaped(divergence.meaning)) for name, divergence in DIVERGENCES.items()],
    )
    yield (
        "Targets",
        "The values of `targets`. All but the first are controls: if they help as much as the teacher's own states, "
        "matching is regularization.",
        ("targets", "the student's states are matched to"),
        [(f"`{name}`", escaped(source.meaning)) for name, source in TARGETS.items()],
    )
    yield (
        "Tasks",
        "The values of `task.kind`. Data come from files, from a package (`embedded/<name>`), or from the hub by name.",
        ("kind", "meaning", "metrics"),
        [
            (f"[`{name}`](study-file.md#task-{_anchor(name)})", escaped(_first_sentence(spec)), _code(spec.all_metrics))
            for name, spec in TASKS.items()
        ],
    )
    yield (
        "Nulls",
        "The values of `--null`: the angle if the student, or the order of layers, had nothing to do with the teacher.",
        ("null", "meaning"),
        [(f"`{name}`", escaped(null.meaning)) for name, null in NULLS.items()],
    )


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "–"


def _anchor(name: str) -> str:
    return re.sub(r"\W+", "-", name)


def _first_sentence(kind: type) -> str:
    return " ".join((kind.__doc__ or "").split("\n\n")[0].split())
