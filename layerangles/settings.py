"""The settings of a measurement: defaults, allowed values, and those in which comparable results agree."""
# ruff: noqa: RUF009  -- the calls in the dataclass make its fields

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypedDict, TypeVar, get_args

from layerangles.errors import InputError
from layerangles.layers import FinalNorm, Space

if TYPE_CHECKING:
    from layerangles.geometry.nulls import NullName

Alternatives = Literal["none", "sums", "all"]
FitKind = Literal["identity", "ridge", "orthogonal"]
Convention = Literal["layerangles", "paper"]
Precision = Literal["float32", "bfloat16"]
Function = TypeVar("Function", bound=Callable[..., Any])


class Setting(NamedTuple):
    """Everything known about one setting besides its type and default.

    Attributes:
        help: one line for the command line.
        choices: the allowed values besides the default; empty where they cannot be listed.
        check: raises an :class:`InputError` unless a value is allowed; for settings without choices.
        attribute: the attribute of a result that records it; by default of the same name if results must agree in it.
        recorded: the attribute's value for a value of the setting.
        must_agree: whether results are comparable only if they share it.
    """

    help: str
    choices: tuple[str, ...] = ()
    check: Callable[[str, Any], object] | None = None
    attribute: str = ""
    recorded: Callable[[Any], Any] = lambda value: value
    must_agree: bool = False


def _setting(default: object, help: str, **known: Any) -> Any:
    """A field with a default, and what :class:`Setting` says of it."""
    return field(default=default, metadata={"setting": Setting(help, **known)})


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise InputError(f"{name} is {value}; allowed are 1 and more.")


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise InputError(f"{name} is {value}; allowed is a number between 0 and 1, such as 0.95.")


def _check_width(name: str, value: float | None) -> None:
    if value is not None and not value > 0:
        raise InputError(f"{name} is {value}; allowed is a width in degrees above 0, such as 0.1.")


def _checked_nulls(_: str, value: Sequence[str]) -> tuple[NullName, ...]:
    # Imported here: the command line reads this file at its start, before it may wait for numpy.
    from layerangles.geometry.nulls import check_nulls

    return check_nulls(value)


def _check_preprocessing(_: str, value: str) -> None:
    from layerangles.geometry.preprocessing import parse_preprocessing

    parse_preprocessing(value)


def _check_shard(name: str, value: tuple[int, int]) -> None:
    if not 0 <= value[0] < value[1]:
        raise InputError(f"the {name} is {value[0]}/{value[1]}; allowed are 0/n to n-1/n.")


@dataclass(frozen=True, kw_only=True)
class MeasurementSettings:
    """How angles are measured: the keyword arguments of :func:`layerangles.measure_angles`, checked.

    Attributes:
        space: where the angle is taken. ``"teacher"`` is the paper's: between ``R_i = T_i − W S``. ``"pull"``: between
            ``Wᵀ R_i``, the directions in which the matching loss moves the student's state. ``"gradient"``: between
            the gradients of the matching losses with respect to the student's parameters, summed over
            ``gradient_batches``.
        nulls: the null baselines measured on the same tokens, see :mod:`layerangles.geometry.nulls`; not in gradient
            space, and not in the paper's convention.
        preprocessing: applied to all states first: ``"raw"``, ``"centred"``, ``"z"``, ``"unit"`` or ``"drop-K"``, see
            :mod:`layerangles.geometry.preprocessing`. All but ``"raw"`` and ``"unit"`` take one more pass over the
            teacher.
        alternatives: other measures that may explain the result (teacher space only). ``"sums"``: common-mode ratio,
            distances, structured cosine, each dimension's share of the dot product. ``"all"``: also debiased CKA and
            the recoverability gap, from a sample of 2048 tokens, which takes seconds per student.
        fit: fit maps to the data, in one more pass, instead of using the student's own: ``"identity"``, ``"ridge"`` or
            ``"orthogonal"``; for models that were never matched, of any width. The result has each map's held-out R²
            as ``map_r2``.
        convention: ``"paper"`` counts as the paper's code does, see :mod:`layerangles.measurement.paper_convention`.
        steps: also measure the checkpoints along training; the result then has a ``step`` axis.
        until: end the pass as soon as the widest interval of a mean angle is narrower than this, in degrees. The texts
            then come in random order instead of by length.
        shard: ``(i, n)``, counted from 0: measure one of n disjoint parts of the data; see
            :meth:`layerangles.AngleResult.merge_shards`.
        gradient_batches: batches over which gradients are summed.
        final_norm: take the last layer of a pre-norm model before (``"pre"``) or after its final norm (``"post"``).
        special_tokens: whether special tokens count. PAD never does.
        max_length: tokens after which a text is cut; the result records how many texts were.
        batch_size: examples per forward pass; does not change the result.
        precision: ``"bfloat16"`` runs the models under autocast: faster where the hardware supports it, and off by
            about 0.04° on average. The angles themselves are computed in float64 either way.
        device: ``"auto"`` takes the best one present.
        confidence: confidence level of the intervals.
        students_per_pass: students held in memory at once; each further group repeats the teacher's forward passes.

    Raises:
        InputError: a value is not allowed, or two settings exclude each other.
    """

    # Every value is checked in __post_init__, with a message for users; shape checks in tests stay away from it.
    __no_type_check__: ClassVar[bool] = True

    space: Space = _setting(
        "teacher",
        "teacher (T - W S), pull (Wᵀ(T - W S)), or gradient (of the matching losses).",
        choices=get_args(Space),
        must_agree=True,
    )
    convention: Convention = _setting(
        "layerangles",
        "layerangles, or paper: count as the paper's code does.",
        choices=get_args(Convention),
        must_agree=True,
    )
    preprocessing: str = _setting(
        "raw", "raw, centred, z, unit, or drop-K (rogue dimensions).", check=_check_preprocessing, must_agree=True
    )
    fit: FitKind | None = _setting(
        None,
        "Fit maps to the data: identity, ridge or orthogonal. For unmatched models.",
        choices=get_args(FitKind),
        attribute="maps",
        recorded=lambda fit: "the student's" if fit is None else f"fitted: {fit}",
        must_agree=True,
    )
    nulls: Sequence[NullName] = _setting(
        ("N1",), "A null to subtract (N0, N1, …), none or all; may be repeated. By default N1.", check=_checked_nulls
    )
    alternatives: Alternatives = _setting(
        "none",
        "Alternative measures: none, sums (ρ, distances), all (also CKA, recoverability gap).",
        choices=get_args(Alternatives),
    )
    steps: bool = _setting(False, "Also measure the checkpoints along training. By default if there are any.")
    until: float | None = _setting(
        None, "Stop when the widest 95 % interval is narrower than so many degrees.", check=_check_width
    )
    shard: tuple[int, int] = _setting(
        (0, 1),
        "Measure part i of n of the data, as i/n from 0/n; see merge.",
        check=_check_shard,
        attribute="shards",
        recorded=lambda shard: f"{shard[0]}/{shard[1]}",
    )
    gradient_batches: int = _setting(8, "Batches to sum gradients over.", check=_check_positive)
    final_norm: FinalNorm = _setting(
        "pre", "Last layer of a pre-norm model: pre or post its norm.", choices=get_args(FinalNorm), must_agree=True
    )
    special_tokens: bool = _setting(
        True,
        "Whether special tokens count.",
        recorded=lambda counted: "counted" if counted else "left out",
        must_agree=True,
    )
    max_length: int = _setting(128, "Tokens after which a text is cut.", must_agree=True)
    batch_size: int = _setting(32, "Texts per forward pass; changes only the speed.", check=_check_positive)
    precision: Precision = _setting(
        "float32",
        "float32, or bfloat16 (faster, off by 0.04° on average).",
        choices=get_args(Precision),
        must_agree=True,
    )
    device: str = _setting("auto", "auto (the best present), cpu, cuda, cuda:N, mps.")
    confidence: float = _setting(0.95, "Confidence level of the intervals.", check=_check_share, must_agree=True)
    students_per_pass: int = _setting(12, "Students held in memory at once.", check=_check_positive)

    def __post_init__(self) -> None:
        for name, setting in SETTINGS.items():
            value = getattr(self, name)
            if setting.check is not None:
                setting.check(name, value)
            elif setting.choices and value not in (*setting.choices, DEFAULTS[name]):
                raise InputError(f"{name} is {value!r}; allowed are {', '.join(map(repr, setting.choices))}.")
        for condition, excluded in self._exclusions().items():
            for name in excluded:
                got, allowed = getattr(self, name), DEFAULTS[name]
                if got != allowed:
                    raise InputError(
                        f"{name} is {got!r}; with {condition} only {allowed!r} is allowed. Leave one of them out."
                    )
        measures_nulls = self.space != "gradient" and self.convention != "paper"
        object.__setattr__(self, "nulls", _checked_nulls("nulls", self.nulls) if measures_nulls else ())

    def _exclusions(self) -> dict[str, tuple[str, ...]]:
        """Conditions that hold, each with the settings that it leaves at their defaults."""
        plain = ("preprocessing", "alternatives")
        streamed = (*plain, "until", "shard")
        return {
            **({'space="pull"': plain} if self.space == "pull" else {}),
            **({'space="gradient"': streamed} if self.space == "gradient" else {}),
            **({'convention="paper"': (*streamed, "space", "fit")} if self.convention == "paper" else {}),
        }

    def attributes(self) -> dict[str, Any]:
        """The attributes of a result that record these settings."""
        return {
            setting.attribute: setting.recorded(getattr(self, name))
            for name, setting in SETTINGS.items()
            if setting.attribute
        }


class SettingsKeywords(TypedDict, total=False):
    """The fields of :class:`MeasurementSettings`, for type checkers and editors; a test holds the two equal."""

    space: Space
    convention: Convention
    preprocessing: str
    fit: FitKind | None
    nulls: Sequence[NullName]
    alternatives: Alternatives
    steps: bool
    until: float | None
    shard: tuple[int, int]
    gradient_batches: int
    final_norm: FinalNorm
    special_tokens: bool
    max_length: int
    batch_size: int
    precision: Precision
    device: str
    confidence: float
    students_per_pass: int


def _named(name: str, setting: Setting) -> Setting:
    return setting._replace(attribute=name) if setting.must_agree and not setting.attribute else setting


def with_settings(function: Function) -> Function:
    """Let ``help()`` and notebooks show the settings and their defaults instead of ``**settings``."""
    own = signature(function)
    parameters = [one for one in own.parameters.values() if one.kind is not Parameter.VAR_KEYWORD]
    parameters += [
        Parameter(one.name, Parameter.KEYWORD_ONLY, default=one.default, annotation=one.type)
        for one in fields(MeasurementSettings)
    ]
    function.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    return function


SETTINGS: dict[str, Setting] = {
    one.name: _named(one.name, one.metadata["setting"]) for one in fields(MeasurementSettings)
}
DEFAULTS: dict[str, Any] = {one.name: one.default for one in fields(MeasurementSettings)}

MUST_AGREE = (
    "schema_version",
    *(setting.attribute for setting in SETTINGS.values() if setting.must_agree),
    "aggregation",
    "teacher_weights_sha256",
    "tokenizer_sha256",
    "data_sha256",
)
"""The attributes that results share if they were measured in the same way on the same thing."""
