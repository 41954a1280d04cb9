"""The table of measured variables: names, units, dimensions, meanings, and how each follows from sums over tokens.

Labelling, derived means, the documentation of files, table heads, figures and the app read it. A new quantity is a
kernel that sums it (:mod:`layerangles.sums`) and a row of :data:`MEASURED`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

import numpy as np
import xarray as xr

from layerangles.errors import InputError

Dims = tuple[str, ...]

PAIR: Dims = ("student_layer", "layer_a", "layer_b")
"""A student layer, and the two teacher layers between which it sees an angle."""

DIMENSIONS = {
    "student": "names",
    "step": "training steps; only where checkpoints were measured",
    "tower": "`encoder`, `decoder`",
    "student_layer": "layers of the student; 0 is the embedding output",
    "student_layer_b": "the same, where two of them are compared",
    "layer_a": "teacher layers; 0 is the embedding output",
    "layer_b": "the same",
    "null": "N0 to N6, those that were measured",
    "bin": "lower ends of 200 equal bins of the cosine over [−1, 1] (1000 in the paper's convention)",
    "rank": "1 to 5, from the largest share",
    "moment": "what clustered sums consist of: `n_examples`, `total`, `count`, `total_squared`, `total_times_count`, "
    "`count_squared`",
}
"""The dimensions of a result's dataset, as Markdown."""


class Sum(NamedTuple):
    """A sum over tokens; those of disjoint parts of the data add up to that of the whole.

    Attributes:
        name: the stored variable.
        attribute: of the kernel's sums (``AngleSums``, ``RelationSums``) that hold it; one of type ``ClusteredMean``
            gets the dimension ``moment``.
        dims: where they are not those of the variable that follows from it.
    """

    name: str
    attribute: str
    dims: Dims | None = None


class Condition(NamedTuple):
    """When a variable is measured, as an argument and as options of the command line."""

    argument: str
    option: str


ALWAYS = Condition("", "")
NULLS = Condition("with nulls", "with `--null`")
RELATIONS = Condition("with ``alternatives``", "with `--alternatives sums`")
SAMPLE = Condition('with ``alternatives="all"``', "with `--alternatives all`")
FITTED = Condition("with ``fit``", "with `--fit`")
GRADIENT = Condition("in gradient space", "in gradient space")


@dataclass(frozen=True)
class Variable:
    """A measured variable.

    Attributes:
        name: in the dataset.
        label: in words; ``{null}`` in it stands for the null's name.
        unit: written behind a number.
        dims: after ``student``, ``step`` and ``tower``.
        meaning: one phrase, with the range where it is not obvious.
        condition: when it is measured.
        total: the sum that it follows from; None for what is stored as it was measured.
        count: the number of tokens in it: the variable is then ``total / count``.
        interval: the stem of ``…_low`` and ``…_high``, the ends of its interval; it is then the clustered mean of
            ``total``.
        symbol: in formulas.
        prefixes: its relatives: ``layer_`` over all pairs of a student layer, ``student_`` over all student layers.
    """

    name: str
    label: str
    unit: str
    dims: Dims
    meaning: str
    condition: Condition = ALWAYS
    total: Sum | None = None
    count: Sum | None = None
    interval: str = ""
    symbol: str = ""
    prefixes: tuple[str, ...] = ()

    @property
    def is_clustered(self) -> bool:
        """Whether it is a mean over tokens with an interval that is clustered by example."""
        return bool(self.interval)

    @property
    def is_ratio(self) -> bool:
        """Whether it is a total over a number of tokens."""
        return self.total is not None and self.count is not None

    @property
    def ends(self) -> tuple[str, ...]:
        """The names of the ends of its interval, if it has one."""
        return (f"{self.interval}_low", f"{self.interval}_high") if self.interval else ()

    @property
    def sums(self) -> tuple[Sum, ...]:
        """The sums that are stored for it, with their dimensions."""
        found = [one for one in (self.total, self.count) if one is not None]
        return tuple(one._replace(dims=self.dims if one.dims is None else one.dims) for one in found)

    def relative(self, prefix: str) -> "Variable":
        """The same quantity over all pairs of a student layer (``layer_``), or over all its layers (``student_``)."""
        gone = ("layer_a", "layer_b") if prefix == "layer_" else PAIR
        total, count = (one and one._replace(dims=self.dims) for one in (self.total, self.count))
        if self.is_clustered and total is not None:  # each has a sum of its own, or its interval would not be clustered
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
_TOKENS = Sum("sum_angle", "angle")  # of a clustered sum, its number of tokens
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


def _between(prefix: str, label: str, meaning: str, condition: Condition, *, summed: bool) -> list[Variable]:
    """A measure between two teacher layers, a student layer and a teacher layer, and two student layers."""
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
        NULLS,
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
        NULLS,
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
        RELATIONS,
        total=Sum("sum_common_mode", "common_mode"),
        interval="common_mode",
        symbol="ρ",
        prefixes=("student_",),
    ),
    *_between("distance", "mean distance", "mean L2 distance, in the unit of the states,", RELATIONS, summed=True),
    Variable(
        "structured_cosine",
        "structured cosine",
        "",
        ("student_layer", "student_layer_b"),
        "mean cosine of the differences between two matched layers in student and teacher, −1 to 1",
        RELATIONS,
        total=Sum("sum_structured", "structured"),
        count=Sum("sum_structured_tokens", "structured_count"),
    ),
    Variable(
        "top_dimension",
        "dimension",
        "",
        ("layer_a", "rank"),
        "dimensions that weigh most in the dot product of two tokens of the teacher",
        RELATIONS,
    ),
    Variable("top_dimension_share", "share", "", ("layer_a", "rank"), "their shares of that dot product", RELATIONS),
    *_between(
        "cka", "debiased CKA", "debiased linear CKA, about 0 if independent and 1 if alike,", SAMPLE, summed=False
    ),
    Variable(
        "recoverability_gap",
        "recoverability gap",
        "",
        ("student_layer", "layer_a"),
        "share of a teacher block's update that no linear map of the student layer recovers; 0 is recovered",
        SAMPLE,
    ),
    Variable(
        "map_r2", "held-out R²", "", ("student_layer",), "R² of the fitted map on held-out examples, at most 1", FITTED
    ),
    Variable(
        "whole_angle_deg",
        "mean angle",
        "°",
        ("layer_a", "layer_b"),
        "angle between the gradients of all of the student's parameters",
        GRADIENT,
    ),
    Variable("whole_cosine", "cosine", "", ("layer_a", "layer_b"), "its cosine", GRADIENT),
)
"""Every quantity once; :data:`VARIABLES` has its relatives, too."""


def _with_relatives() -> Iterator[Variable]:
    for measured in MEASURED:
        yield measured
        yield from map(measured.relative, measured.prefixes)


VARIABLES: dict[str, Variable] = {variable.name: variable for variable in _with_relatives()}
"""All variables by name, but for the ends of intervals (:attr:`Variable.ends`) and sums (:attr:`Variable.sums`)."""

SUMS: dict[str, Sum] = {one.name: one for variable in VARIABLES.values() for one in variable.sums}
"""All sums by name, with their dimensions: their values on parts of the data add up to that on the whole."""

DIMS: dict[str, Dims] = {
    **{name: variable.dims for variable in VARIABLES.values() for name in (variable.name, *variable.ends)},
    **{one.name: one.dims or () for one in SUMS.values()},
}
"""The dimensions of everything stored, after ``student``, ``step`` and ``tower``; without the ``moment`` of sums."""

DERIVED = frozenset(
    name
    for variable in VARIABLES.values()
    if variable.sums and variable.name not in SUMS
    for name in (variable.name, *variable.ends)
)
"""The variables that follow from the sums, ends of intervals included."""


def heading(name: str, null: str = "") -> str:
    """The label of a variable with its symbol and unit, for the head of a table or the title of an axis.

    >>> heading("student_angle_deg"), heading("excess_deg", "N1"), heading("common_mode_ratio")
    ('mean angle °', 'excess over N1 °', 'common-mode ratio ρ')
    """
    variable = VARIABLES[name]
    return " ".join(filter(None, (variable.label.format(null=null), variable.symbol, variable.unit)))


# ---- what can be shown of a pair of teacher layers -----------------------------------------------------------------

Aggregation = Literal["mean", "median", "cosine", "acute"]
AGGREGATIONS: tuple[Aggregation, ...] = get_args(Aggregation)


class Quantity(NamedTuple):
    """An aggregate over the tokens of a pair of teacher layers.

    Attributes:
        title: for a colour bar.
        unit: written behind a number.
        caption: before "tokens of 200 texts".
        values: of a result's dataset.
        choice: where the app offers it, if that is not the title.
    """

    title: str
    unit: str
    caption: str
    values: Callable[[xr.Dataset], xr.DataArray]
    choice: str = ""


def _median(data: xr.Dataset) -> xr.DataArray:
    if "histogram" not in data:
        raise InputError("in gradient space there are no tokens, and so no median over them.")
    values: xr.DataArray = xr.apply_ufunc(_median_angle, data["histogram"], input_core_dims=[["bin"]])
    return values


def _angle_of_cosine(data: xr.Dataset) -> xr.DataArray:
    values: xr.DataArray = xr.apply_ufunc(lambda c: np.rad2deg(np.arccos(np.clip(c, -1, 1))), data["cosine"])
    return values


QUANTITIES: dict[str, Quantity] = {
    "mean": Quantity(VARIABLES["angle_deg"].label, "°", "mean over", lambda data: data["angle_deg"]),
    "median": Quantity("median angle", "°", "median over", _median),
    "cosine": Quantity("angle of the mean cosine", "°", "angle of the mean cosine over", _angle_of_cosine),
    "acute": Quantity(
        "acute tokens", " %", "share of acute", lambda data: 100 * data["acute_fraction"], "share of acute tokens"
    ),
}


def pair_values(data: xr.Dataset, aggregation: Aggregation, null: str | None = None) -> xr.DataArray:
    """One number for every student layer and pair of teacher layers.

    Args:
        data: a student's part of an :class:`layerangles.AngleResult`.
        aggregation: over the tokens. ``"mean"`` of the angles, degrees; their ``"median"``, from the histogram and so
            to a hundredth of a cosine; the angle of the mean ``"cosine"``; the share of ``"acute"`` angles, percent.
        null: subtract this null's mean angle (the excess); with ``"mean"`` alone.

    Returns:
        ``[…, student_layer, layer_a, layer_b]``; NaN where there is no angle.

    Raises:
        InputError: a null with another aggregation, whose null is not kept, or one that was not measured; no such
            aggregation; or a median where no histogram is kept.
    """
    if aggregation not in AGGREGATIONS:
        raise InputError(f"the aggregation is {aggregation!r}; allowed are {', '.join(map(repr, AGGREGATIONS))}.")
    if null is None:
        return QUANTITIES[aggregation].values(data)
    if aggregation != "mean":
        raise InputError(f"the excess over {null} is known of mean angles alone, not of {aggregation!r}.")
    measured = [str(name) for name in data["null"].values] if "null" in data.dims else []
    if null not in measured:
        raise InputError(f"the null {null!r} was not measured; measured were {', '.join(measured) or 'none'}.")
    excess: xr.DataArray = data["excess_deg"].sel(null=null)
    return excess


def _median_angle(counts: np.ndarray) -> np.ndarray:
    """The median of angles from counts per cosine bin over [−1, 1] (last axis), linear within a bin; NaN for none."""
    n_bins = counts.shape[-1]
    cumulative = np.cumsum(counts, axis=-1, dtype=np.float64)
    total = cumulative[..., -1]
    half = total / 2
    index = np.argmax(cumulative >= half[..., None], axis=-1)
    within = np.take_along_axis(counts, index[..., None], axis=-1)[..., 0].astype(np.float64)
    below = np.take_along_axis(cumulative, index[..., None], axis=-1)[..., 0] - within
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = -1 + 2 / n_bins * (index + (half - below) / within)
        angle: np.ndarray = np.rad2deg(np.arccos(np.clip(cosine, -1, 1)))
    return np.where(total > 0, angle, np.nan)
