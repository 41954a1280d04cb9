"""Measure states that another tool has extracted: plain arrays in, an AngleResult out."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from torch import Tensor

from layerangles.errors import InputError
from layerangles.geometry.angles import check_states
from layerangles.geometry.nulls import NullName, check_nulls
from layerangles.geometry.preprocessing import Preprocessing, TeacherStatistics, parse_preprocessing
from layerangles.layers import Tower
from layerangles.measurement.passes import Sums, tokens_of, zero_sums
from layerangles.models.states import check_finite
from layerangles.models.texts import Batch
from layerangles.results import labelling
from layerangles.results.angle_result import SCHEMA_VERSION, AngleResult
from layerangles.settings import Alternatives
from layerangles.sums.angle_sums import View

Array = npt.NDArray[np.floating[Any]] | Tensor

_EXAMPLES_AT_A_TIME = 64


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
    """The angles of :func:`layerangles.measure_angles`, from states that are at hand.

    Args:
        teacher: states of all teacher layers, ``[teacher_layer, token, dim]``, PAD left out.
        students: by name, states of a student's layers in teacher space (its maps applied),
            ``[student_layer, token, dim]``, on the same tokens.
        example: which example (text) each token belongs to; any integers.
        nulls: as there, without N3, which needs a model.
        preprocessing: as there.
        alternatives: as there.
        matched: by name, the pairs ``(student_layer, teacher_layer)`` that training matched.
        tower: the name of the tower that the states are of.
        confidence: of the intervals.

    Returns:
        The result; without hashes of weights and tokenizer, which it cannot know.

    Raises:
        InputError: arrays that do not fit together, are not finite, or hold fewer than two examples.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> result = measure_arrays(rng.normal(size=(3, 8, 16)), {"s": rng.normal(size=(2, 8, 16))}, [0, 0, 1, 1] * 2)
        >>> result.students, result.nulls
        (['s'], ['N1'])
    """
    chosen = check_nulls(nulls)
    if "N3" in chosen:
        raise InputError("the null N3 needs an untrained student's model, which arrays are not. Leave N3 out.")
    targets, numbers = torch.as_tensor(teacher), torch.as_tensor(np.asarray(example))
    vertices = {name: torch.as_tensor(states) for name, states in students.items()}
    _check(targets, vertices, numbers)
    names, row, n_tokens = np.unique(numbers.numpy(), return_inverse=True, return_counts=True)
    counts = torch.from_numpy(n_tokens)
    order = torch.from_numpy(row).argsort(stable=True)  # the tokens of an example together
    targets, vertices = targets[:, order], {name: states[:, order] for name, states in vertices.items()}
    statistics = TeacherStatistics()
    statistics.update(targets)
    prepared = Preprocessing.of(
        preprocessing, statistics if parse_preprocessing(preprocessing).needs_statistics else None
    )

    pairs = {name: list((matched or {}).get(name, ())) for name in students}
    sums = {
        name: zero_sums(len(states), len(targets), chosen, alternatives, dict(pairs[name]))
        for name, states in vertices.items()
    }
    ends = counts.cumsum(0)
    starts = ends - counts
    for first in _blocks(len(names)):
        tokens = slice(int(starts[first.start]), int(ends[first.stop - 1]))
        mask = torch.arange(int(counts[first].max())) < counts[first][:, None]
        batch = Batch({}, {tower: mask}, torch.arange(first.start, first.stop))
        for name, states in vertices.items():
            _update(sums[name], targets[:, tokens], states[:, tokens], batch, tower, prepared)

    parts = [_labelled(name, of, vertices[name], len(targets), pairs[name], tower) for name, of in sums.items()]
    dataset = labelling.derived(labelling.combine(parts), confidence)
    if alternatives != "none":
        dataset = xr.merge([dataset, *labelling.top_dimensions({tower: statistics})])
    dataset.attrs = {
        "schema_version": SCHEMA_VERSION,
        "space": "teacher",
        "convention": "layerangles",
        "preprocessing": preprocessing,
        "maps": "applied before",
        "final_norm": "as given",
        "special_tokens": "as given",
        "aggregation": "per token, then mean over tokens; intervals clustered by example",
        "confidence": confidence,
        "precision": str(targets.dtype).removeprefix("torch."),
        "max_length": 0,
        "n_texts": len(names),
        "n_examples": len(names),
        "shards": "0/1",
        "stopped": "all texts",
        "data_sha256": _sha256(numbers),
        "tokenizer_sha256": "",
        "teacher": "arrays",
        "teacher_weights_sha256": _sha256(torch.as_tensor(teacher)),
    }
    return AngleResult(dataset)


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


def _blocks(n_examples: int) -> list[slice]:
    """Examples some at a time; a last one alone joins the block before it, since its partner must be another."""
    starts = list(range(0, max(n_examples - 1, 1), _EXAMPLES_AT_A_TIME))
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], n_examples], strict=True)]


def _update(sums: Sums, teacher: Tensor, states: Tensor, batch: Batch, tower: Tower, prepared: Preprocessing) -> None:
    targets, vertex = prepared.apply(teacher), prepared.apply(states)
    tokens = tokens_of(batch, tower, torch.device("cpu"))
    sums.angles.update([View(slice(0, len(vertex)), targets, vertex)], tokens.tokens)
    if sums.relations is not None:
        sums.relations.update(targets, vertex, tokens.tokens.example)
    if sums.sample is not None:
        sums.sample.update(teacher, states, tokens.number, tokens.position)


def _labelled(
    name: str, sums: Sums, states: Tensor, n_teacher: int, matched: Sequence[tuple[int, int]], tower: Tower
) -> xr.Dataset:
    layers = range(len(states))
    parts = [labelling.labelled(sums.angles, layers, len(states), n_teacher)]
    if sums.relations is not None:
        parts.append(labelling.labelled_relations(sums.relations, layers, len(states), n_teacher))
    if sums.sample is not None:
        parts.append(labelling.labelled_alternatives(sums.sample, layers, len(states), n_teacher))
    part = labelling.with_matched(xr.merge(parts), matched).expand_dims({"student": [name], "tower": [tower]})
    part["weights_sha256"] = (("student",), np.array([_sha256(states)], dtype=object))
    return part.assign_coords(trained_steps=("student", [0]))


def _sha256(values: Tensor) -> str:
    return hashlib.sha256(values.contiguous().numpy().tobytes()).hexdigest()
