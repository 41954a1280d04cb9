"""measure_arrays: states that another tool has extracted in, an AngleResult out."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from layerangles.errors import InputError
from layerangles.geometry.angles import check_states
from layerangles.geometry.nulls import NULLS, NullName
from layerangles.geometry.preprocessing import Preprocessing, TeacherStatistics, parse_preprocessing
from layerangles.geometry.student_tower import StudentTower
from layerangles.layers import Tower
from layerangles.measurement.meter import AngleMeter, StudentStates, TeacherBatch
from layerangles.models.states import check_finite
from layerangles.models.texts import Batch
from layerangles.results.angle_result import SCHEMA_VERSION, AngleResult
from layerangles.settings import Alternatives, MeasurementSettings

Array = npt.NDArray[np.floating[Any]] | Tensor

_EXAMPLES_PER_BATCH = 64


def measure_arrays(
    teacher: Array,
    students: Mapping[str, Array],
    example: Sequence[int] | npt.NDArray[np.integer[Any]] | Tensor,
    *,
    nulls: Sequence[NullName] = ("N1",),
    preprocessing: str = "raw",
    alternatives: Alternatives = "none",
    matched: Mapping[str, Sequence[tuple[int, int]]] | None = None,
    tower: Tower = "encoder",
    confidence: float = 0.95,
) -> AngleResult:
    """Measure the angles of :func:`layerangles.measure_angles` from given states.

    Args:
        teacher: states of all teacher layers without PAD, ``[teacher_layer, token, dim]``.
        students: by name, states of a student's layers at the same tokens and in teacher space (its maps applied),
            ``[student_layer, token, dim]``.
        example: any integer that identifies each token's example (text).
        nulls: as there, without those that need an untrained student.
        preprocessing: as there.
        alternatives: as there.
        matched: by name, the pairs ``(student_layer, teacher_layer)`` that training matched.
        tower: the tower that the states belong to.
        confidence: confidence level of the intervals.

    Returns:
        The result, with hashes of the arrays in place of those of weights and data, and none of a tokenizer.

    Raises:
        InputError: the arrays do not fit together, are not finite, or hold fewer than two examples.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> result = measure_arrays(rng.normal(size=(3, 8, 16)), {"s": rng.normal(size=(2, 8, 16))}, [0, 0, 1, 1] * 2)
        >>> result.students, result.nulls
        (['s'], ['N1'])
    """
    settings = MeasurementSettings(
        nulls=nulls, preprocessing=preprocessing, alternatives=alternatives, confidence=confidence
    )
    for name in settings.nulls:
        if NULLS[name].needs_untrained:
            raise InputError(
                f"the null {name} needs an untrained student's model, which arrays are not. Leave {name} out."
            )
    targets, numbers = torch.as_tensor(teacher), torch.as_tensor(np.asarray(example))
    states = {name: torch.as_tensor(given) for name, given in students.items()}
    _check(targets, states, numbers)
    towers = [
        StudentTower(
            student=name,
            tower=tower,
            n_layers=len(given),
            layers=range(len(given)),
            maps=[None] * len(given),
            matched=list((matched or {}).get(name, ())),
            weights_sha256=_sha256(given),
        )
        for name, given in states.items()
    ]
    statistics = TeacherStatistics()
    if parse_preprocessing(preprocessing).needs_statistics:
        statistics.update(targets)
    prepared = Preprocessing.of(preprocessing, statistics)
    meter = AngleMeter(towers, {tower: len(targets)}, settings, {tower: prepared})
    for chosen, batch in _batches(numbers, tower):
        seen = TeacherBatch({tower: targets[:, chosen]}, {tower: batch.tokens(tower)}, len(batch))
        meter.update(seen, (StudentStates({tower: given[:, chosen]}) for given in states.values()))
    provenance = {
        "schema_version": SCHEMA_VERSION,
        **settings.attributes(),
        "maps": "applied before",
        "final_norm": "as given",
        "special_tokens": "as given",
        "precision": str(targets.dtype).removeprefix("torch."),
        "max_length": 0,
        "n_texts": meter.n_examples,
        "stopped": "all texts",
        "data_sha256": _sha256(numbers),
        "tokenizer_sha256": "",
        "teacher": "arrays",
        "teacher_weights_sha256": _sha256(targets),
    }
    return AngleResult(meter.compute().assign_attrs(provenance))


def _check(teacher: Tensor, students: Mapping[str, Tensor], example: Tensor) -> None:
    if not students:
        raise InputError("there is nothing to measure: got no students. Give at least one array of states.")
    for name, states in students.items():
        try:
            check_states(teacher, states)
        except ValueError as error:
            raise InputError(f"the states of {name!r} do not fit: {error}") from error
        check_finite(states, name)
    check_finite(teacher, "the teacher")
    if example.shape != teacher.shape[1:2] or example.is_floating_point():
        raise InputError(
            f"example must name the example of each of {teacher.shape[1]} tokens by an integer; got the shape "
            f"{tuple(example.shape)} of {example.dtype}."
        )
    if len(np.unique(example.numpy())) < 2:
        raise InputError("an interval needs two examples or more; got tokens of one. Give more texts.")


def _batches(example: Tensor, tower: Tower) -> Iterator[tuple[Tensor, Batch]]:
    """Whole examples, some at a time: the indices of their tokens, and the batch made of them."""
    names, row, n_tokens = np.unique(example.numpy(), return_inverse=True, return_counts=True)
    order, counts = torch.from_numpy(row).argsort(stable=True), torch.from_numpy(n_tokens)
    ends = counts.cumsum(0)
    # A last example alone joins the batch before it, since its partner must be another.
    starts = list(range(0, max(len(names) - 1, 1), _EXAMPLES_PER_BATCH))
    for start, end in zip(starts, [*starts[1:], len(names)], strict=True):
        mask = torch.arange(int(counts[start:end].max())) < counts[start:end, None]
        tokens = order[int(ends[start] - counts[start]) : int(ends[end - 1])]
        yield tokens, Batch({}, {tower: mask}, torch.arange(start, end))


def _sha256(values: Tensor) -> str:
    return hashlib.sha256(values.contiguous().numpy().tobytes()).hexdigest()
