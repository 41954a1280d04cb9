"""The table of measured variables: name, unit, dimensions, meaning, and the sums over tokens that each follows from.

Labelling, derived means, the documentation of files, table heads, figures and the app read it. A new quantity takes a
kernel that sums it (:mod:`layerangles.sums`) and a row in :data:`MEASURED`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

Dims = tuple[str, ...]

PAIR: Dims = ("student_layer", "layer_a", "layer_b")
"""The dimensions of an angle: the student layer it is seen from, and two teacher layers."""

DIMENSIONS = {
    "student": "names",
    "step": "training steps; only where checkpoints were measured",
    "tower": "`encoder`, `decoder`",
    "student_layer": "layers of the student; 0 is the embedding output",
    "student_layer_b": "the other student layer, where two are compared",
    "layer_a": "teacher layers; 0 is the embedding output",
    "layer_b": "the other teacher layer",
    "null": "the nulls that were measured",
    "bin": "lower ends of 200 equal bins of the cosine over [−1, 1] (1000 in the paper's convention)",
    "rank": "1 to 5, from the largest share",
    "moment": "moments of sums that are clustered by example: `n_examples`, `total`, `count`, `total_squared`, "
    "`total_times_count`, `count_squared`",
}
"""The dimensions of a result's dataset, as Markdown."""


class Sum(NamedTuple):
    """A sum over tokens; the sums of disjoint parts of the data add up to the sum of the whole.

    Attributes:
        name: name in the dataset.
        attribute: the attribute of ``AngleSums`` or ``RelationSums`` that holds it; a ``ClusteredMean`` gets a further
            dimension ``moment``.
        dims: dimensions; None for those of the variable that follows from it.
    """

    name: str
    attribute: str
    dims: Dims | None = None


# When a variable is measured, for the documentation of files.
_NULLS = "with `--null`"
_RELATIONS = "with `--alternatives sums`"
_SAMPLE = "with `--alternatives all`"
_FITTED = "with `--fit`"
_GRADIENT = "in gradient space"


@dataclass(frozen=True)
class Variable:
    """Everything known about one measured variable.

    Attributes:
        name: name in the dataset.
        label: short name for people; ``{null}`` stands for the null's name.
        unit: unit, written after a number.
        dims: dimensions besides ``student``, ``step`` and ``tower``.
        meaning: its definition in one phrase, with the range where that is not obvious.
        condition: when it is measured; empty for always.
        total: the sum it follows from; None if it is stored as measured.
        count: the number of tokens in ``total``; the variable is then ``total / count``.
        interval: stem of the names of its interval's ends, ``…_low`` and ``…_high``; the variable is then a mean whose
            interval is clustered by example.
        symbol: symbol in formulas.
        prefixes: prefixes of its relatives: ``layer_`` for the same quantity over all pairs of a student layer,
            ``student_`` for that over all layers and pairs of a student.
    """

    name: str
    label: str
    unit: str
    dims: Dims
    meaning: str
    condition: str = ""
    total: Sum | None = None
    count: Sum | None = None
    interval: str = ""
    symbol: str = ""
    prefixes: tuple[str, ...] = ()

    @property
    def is_clustered(self) -> bool:
        """Whether it is a mean with an interval that is clustered by example."""
        return bool(self.interval)

    @property
    def ends(self) -> tuple[str, ...]:
        """Names of the ends of its interval; empty if it has none."""
        return (f"{self.interval}_low", f"{self.interval}_high") if self.interval else ()

    @property
    def sums(self) -> tuple[Sum, ...]:
        """The sums it follows from, with their dimensions."""
        found = [one for one in (self.total, self.count) if one is not None]
        return tuple(one._replace(dims=self.dims if one.dims is None else one.dims) for one in found)

    def relative(self, prefix: str) -> "Variable":
        """The same quantity over all pairs of a student layer (``layer_``), or over a whole student (``student_``)."""
        gone = ("layer_a", "layer_b") if prefix == "layer_" else PAIR
        total, count = (one and one._replace(dims=self.dims) for one in (self.total, self.count))
        if self.is_clustered and total is not None:  # moments of clusters cannot be added over pairs
            total = Sum(f"sum_{prefix}{total.name.removeprefix('sum_')}", prefix + total.attribute)
        return replace(
            self,
            name=prefix + self.name,
            dims=tuple(dim for dim in self.dims if dim not in gone),
            meaning=f"{self.meaning}; over all {_OVER[prefix]}",
            total=total,
            count=count,
            interval=self.interval and prefix + self.interval,
            prefixes=(),
        )


_OVER = {"layer_": "pairs of teacher layers of one student layer", "student_": "layers and pairs of one student"}
_BOTH = ("layer_", "student_")
_TOKENS = Sum("sum_angle", "angle")  # as a count, a clustered sum stands for its number of tokens
_DISTANCE_TOKENS = Sum("sum_tokens", "n_tokens", ())
_LAYERS = {
    "teacher_teacher": ("layer_a", "layer_b"),
    "teacher_student": ("student_layer", "layer_a"),
    "student_student": ("student_layer", "student_layer_b"),
}


_WHICH = {
    "teacher_teacher": "teacher layers",
    "teacher_student": "student and teacher layers",
    "student_student": "student layers",
}


def _between(prefix: str, label: str, meaning: str, condition: str, *, summed: bool) -> list[Variable]:
    """Variables of a measure between two teacher layers, student and teacher layers, and two student layers."""
    return [
        Variable(
            f"{prefix}_{pair}",
            label,
            "",
            dims,
            f"{meaning} between {_WHICH[pair]}",
            condition,
            total=Sum(f"sum_{prefix}_{pair}", pair) if summed else None,
            count=_DISTANCE_TOKENS if summed else None,
        )
        for pair, dims in _LAYERS.items()
    ]


MEASURED = (
    Variable(
        "angle_deg",
        "mean angle",
        "°",
        PAIR,
        "mean angle over tokens, 0 to 180, with its interval, clustered by example",
        total=Sum("sum_angle", "angle"),
        interval="ci",
        prefixes=_BOTH,
    ),
    Variable(
        "cosine",
        "mean cosine",
        "",
        PAIR,
        "mean cosine, −1 to 1",
        total=Sum("sum_cosine", "cosine_total"),
        count=_TOKENS,
    ),
    Variable(
        "acute_fraction",
        "share acute",
        "",
        PAIR,
        "share of the tokens whose angle is below 90°",
        total=Sum("sum_acute", "n_acute"),
        count=_TOKENS,
        prefixes=("layer_",),
    ),
    Variable("n_tokens", "tokens", "", PAIR, "tokens in the mean", count=_TOKENS),
    Variable(
        "n_degenerate",
        "degenerate",
        "",
        PAIR,
        "tokens left out because the student's state *is* the teacher's there, so that no direction is defined",
        total=Sum("n_degenerate", "n_degenerate"),
    ),
    Variable(
        "histogram", "tokens", "", (*PAIR, "bin"), "tokens per bin of the cosine", total=Sum("histogram", "histogram")
    ),
    Variable("matched", "matched", "", ("student_layer", "layer_a"), "1 where training matched the two layers, else 0"),
    Variable("weights_sha256", "weights", "", (), "hash of the student's weights"),
    Variable(
        "null_angle_deg",
        "{null}",
        "°",
        ("null", *PAIR),
        "the null's mean angle over its tokens",
        _NULLS,
        total=Sum("sum_null", "null_total"),
        count=Sum("sum_null_tokens", "null_count"),
        prefixes=("layer_",),
    ),
    Variable(
        "excess_deg",
        "excess over {null}",
        "°",
        ("null", *PAIR),
        "the observed angle minus the null's at the same tokens, with its interval",
        _NULLS,
        total=Sum("sum_excess", "excess"),
        interval="excess",
        prefixes=_BOTH,
    ),
    Variable(
        "common_mode_ratio",
        "common-mode ratio",
        "",
        ("student_layer",),
        "squared distance of the student to the centroid of the teacher's layers, over their mean squared distance to "
        "it; 0 and more",
        _RELATIONS,
        total=Sum("sum_common_mode", "common_mode"),
        interval="common_mode",
        symbol="ρ",
        prefixes=("student_",),
    ),
    *_between("distance", "mean distance", "mean L2 distance, in the unit of the states,", _RELATIONS, summed=True),
    Variable(
        "structured_cosine",
        "structured cosine",
        "",
        ("student_layer", "student_layer_b"),
        "mean cosine of the differences between two matched layers in student and teacher, −1 to 1",
        _RELATIONS,
        total=Sum("sum_structured", "structured"),
        count=Sum("sum_structured_tokens", "structured_count"),
    ),
    Variable(
        "top_dimension",
        "dimension",
        "",
        ("layer_a", "rank"),
        "dimensions that weigh most in the dot product of two tokens of the teacher",
        _RELATIONS,
    ),
    Variable("top_dimension_share", "share", "", ("layer_a", "rank"), "their shares of that dot product", _RELATIONS),
    *_between(
        "cka", "debiased CKA", "debiased linear CKA, about 0 if independent and 1 if alike,", _SAMPLE, summed=False
    ),
    Variable(
        "recoverability_gap",
        "recoverability gap",
        "",
        ("student_layer", "layer_a"),
        "share of a teacher block's update that no linear map of the student layer recovers; 0 is recovered",
        _SAMPLE,
    ),
    Variable(
        "map_r2", "held-out R²", "", ("student_layer",), "R² of the fitted map on held-out examples, at most 1", _FITTED
    ),
    Variable(
        "whole_angle_deg",
        "mean angle",
        "°",
        ("layer_a", "layer_b"),
        "angle between the gradients of all of the student's parameters",
        _GRADIENT,
    ),
    Variable("whole_cosine", "cosine", "", ("layer_a", "layer_b"), "its cosine", _GRADIENT),
)
"""The table, without relatives; :data:`VARIABLES` has them, too."""


def _with_relatives() -> Iterator[Variable]:
    for measured in MEASURED:
        yield measured
        yield from map(measured.relative, measured.prefixes)


VARIABLES: dict[str, Variable] = {variable.name: variable for variable in _with_relatives()}
"""All variables by name, without the ends of intervals and without sums."""

SUMS: dict[str, Sum] = {one.name: one for variable in VARIABLES.values() for one in variable.sums}
"""All sums by name, with their dimensions."""

DIMS: dict[str, Dims] = {
    **{name: variable.dims for variable in VARIABLES.values() for name in (variable.name, *variable.ends)},
    **{one.name: one.dims or () for one in SUMS.values()},
}
"""Dimensions of variables, ends of intervals and sums; without ``student``, ``step``, ``tower`` and ``moment``."""

DERIVED = frozenset(
    name
    for variable in VARIABLES.values()
    if variable.sums and variable.name not in SUMS
    for name in (variable.name, *variable.ends)
)
"""Names of the variables that follow from sums, ends of intervals included."""


def heading(name: str, null: str = "") -> str:
    """A variable's label with its symbol and unit, for table heads and axis titles.

    >>> heading("student_angle_deg"), heading("excess_deg", "N1"), heading("common_mode_ratio")
    ('mean angle °', 'excess over N1 °', 'common-mode ratio ρ')
    """
    variable = VARIABLES[name]
    return " ".join(filter(None, (variable.label.format(null=null), variable.symbol, variable.unit)))
