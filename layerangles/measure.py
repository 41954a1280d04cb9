"""The pass: students and texts in, an AngleResult out; one teacher forward for many students."""

import dataclasses
import json
import platform
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
import transformers
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel

import layerangles
from layerangles.checkpoints import (
    LayerPair,
    ModelCheckpoint,
    StudentCheckpoint,
    check_matching,
    check_same_tokenizer,
    open_student,
    resolve,
    tokenizer_sha256,
)
from layerangles.errors import InputError
from layerangles.geometry import layer_pairs
from layerangles.maps import MatchingMap
from layerangles.result import SCHEMA_VERSION, AngleResult, empty_cells
from layerangles.states import (
    Batch,
    EncodedTexts,
    FinalNorm,
    Text,
    check_finite,
    counted_states,
    forward_with_states,
    tower_of,
)
from layerangles.streaming import N_BINS, AngleSums

Precision = Literal["float32", "bfloat16"]
StudentLike = str | Path | StudentCheckpoint


def measure_angles(
    students: StudentLike | Sequence[StudentLike],
    data: Sequence[Text],
    *,
    teacher: str | Path | None = None,
    space: Literal["teacher"] = "teacher",
    steps: bool = False,
    final_norm: FinalNorm = "pre",
    special_tokens: bool = True,
    max_length: int = 128,
    batch_size: int = 32,
    precision: Precision = "float32",
    device: str = "auto",
    confidence: float = 0.95,
    students_per_pass: int = 12,
    trust_remote_code: bool = False,
) -> AngleResult:
    """Measure the angles between all teacher layers, seen from every layer of every student.

    The angle of Yu, Wen and Mou (2025), in its general form ``∠(T_i − W S, T_j − W S)`` with the student's own
    matching map W: per token, then the mean over all tokens, with an interval clustered by example.

    Args:
        students: student directories (or opened ones). With ``teacher``, any models of the teacher's width.
        data: the texts, one string or one pair of strings an example.
        teacher: the teacher's directory or hub name; by default each student knows its own, and it must be one.
        space: where the angle is taken. ``"teacher"`` is the paper's.
        steps: measure the checkpoints along training too; the result then has a ``step`` axis.
        final_norm: take the last layer of a pre-norm model before (``"pre"``) or after its final norm (``"post"``).
        special_tokens: whether special tokens count. PAD never does.
        max_length: tokens after which a text is cut; the result says how many were.
        batch_size: examples a forward pass; it does not change the result.
        precision: ``"bfloat16"`` runs the models under autocast: faster where the hardware has it, and off by about
            0.04° on average. The angles themselves are computed in float64 either way.
        device: ``"auto"`` takes the best that is present.
        confidence: of the intervals.
        students_per_pass: how many students are in memory at a time; each further group repeats the teacher.
        trust_remote_code: whether code that comes with a model may run.

    Returns:
        The result, with hashes of weights, tokenizer and data among its attributes.

    Raises:
        InputError: anything wrong with the settings, the directories, the models or the texts, before the first
            forward pass; and a model whose states are not finite, where it shows.
    """
    _check_choice("space", space, ("teacher",))
    _check_choice("final_norm", final_norm, ("pre", "post"))
    _check_choice("precision", precision, ("float32", "bfloat16"))
    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence}; allowed is a number between 0 and 1, such as 0.95.")
    for setting, number in (("batch_size", batch_size), ("students_per_pass", students_per_pass)):
        if number < 1:
            raise InputError(f"{setting} is {number}; allowed are 1 and more.")
    opened = _open_students(students, teacher, trust_remote_code)
    teacher_checkpoint = _common_teacher(opened, teacher, trust_remote_code)
    entries = [checkpoint for student in opened for checkpoint in (student.checkpoints() if steps else [student])]
    tokenizer = teacher_checkpoint.load_tokenizer()
    for student in opened:
        check_same_tokenizer(tokenizer, student.load_tokenizer(), student.name)
    tower = tower_of(teacher_checkpoint.config)
    lenses = [_Lens.of(entry, teacher_checkpoint, tower) for entry in entries]
    if not any(lens.layers for lens in lenses):
        widths = sorted({entry.config.hidden_size for entry in entries})
        raise InputError(
            f"no student layer can be put into teacher space: the students' widths are {widths}, the teacher's is "
            f"{teacher_checkpoint.config.hidden_size}, and no maps were trained. Train with a matching strategy."
        )
    encoded = EncodedTexts.from_texts(data, tokenizer, max_length=max_length, special_tokens=special_tokens)
    encoded.check_fits([teacher_checkpoint.config, *(entry.config for entry in entries)])

    settings = _Settings(final_norm, precision, _device(device), batch_size)
    sums: list[AngleSums] = []
    for start in range(0, len(lenses), students_per_pass):
        sums += _measure_together(lenses[start : start + students_per_pass], teacher_checkpoint, encoded, settings)

    n_layers = teacher_checkpoint.config.num_hidden_layers + 1
    dataset = _label(lenses, sums, tower, n_layers, confidence, with_steps=steps)
    dataset.attrs = {
        "schema_version": SCHEMA_VERSION,
        "space": space,
        "final_norm": final_norm,
        "special_tokens": "counted" if special_tokens else "left out",
        "aggregation": "per token, then mean over tokens; intervals clustered by example",
        "confidence": confidence,
        "precision": precision,
        "device": settings.device.type,
        "max_length": max_length,
        "n_examples": len(encoded),
        "n_truncated": encoded.n_truncated,
        "data_sha256": encoded.data_sha256,
        "tokenizer_sha256": tokenizer_sha256(tokenizer),
        "teacher": str(teacher or teacher_checkpoint.path),
        "teacher_weights_sha256": teacher_checkpoint.weights_sha256,
        "versions": json.dumps(
            {
                "layerangles": layerangles.__version__,
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            }
        ),
    }
    return AngleResult(dataset)


@dataclass(frozen=True)
class _Settings:
    final_norm: FinalNorm
    precision: Precision
    device: torch.device
    batch_size: int

    def autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "bfloat16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()


@dataclass(frozen=True)
class _Lens:
    """A student, and how each of its layers that can be looked from is put into teacher space."""

    student: StudentCheckpoint
    layers: list[int]
    maps: list[MatchingMap | None]
    matched: Sequence[LayerPair]

    @classmethod
    def of(cls, student: StudentCheckpoint, teacher: ModelCheckpoint, tower: str) -> "_Lens":
        stored = student.load_maps().by_layer
        matching = student.matching.towers.get(tower) if student.matching else None
        matched = check_matching(student, teacher, tower)
        same_width = student.config.hidden_size == teacher.config.hidden_size
        identity = same_width and (matching is None or matching.map == "identity")
        all_layers = range(student.config.num_hidden_layers + 1)
        layers = [layer for layer in all_layers if identity or (tower, layer) in stored]
        return cls(student, layers, [stored.get((tower, layer)) for layer in layers], matched)

    def vertex(self, states: Float[Tensor, "layer token student_dim"]) -> Float[Tensor, "chosen token teacher_dim"]:
        chosen = states[self.layers]
        if all(m is None for m in self.maps):
            return chosen
        return torch.stack([s if m is None else m.apply(s) for m, s in zip(self.maps, chosen, strict=True)])


def _measure_together(
    lenses: Sequence[_Lens], teacher: ModelCheckpoint, encoded: EncodedTexts, settings: _Settings
) -> list[AngleSums]:
    device = settings.device
    teacher_model = _load(teacher, device)
    student_models = [_load(lens.student, device) for lens in lenses]
    n_teacher_layers = teacher.config.num_hidden_layers + 1
    # Where float64 is missing the geometry moves to the CPU, and its sums with it.
    sums_device = "cpu" if device.type == "mps" else device
    sums = [AngleSums(len(lens.layers), n_teacher_layers, device=sums_device) for lens in lenses]
    with (
        torch.inference_mode(),
        tqdm(total=len(encoded), desc="angles", unit="text", disable=None, leave=False) as bar,
    ):
        for batch in encoded.batches(settings.batch_size):
            on_device = batch.to(device)
            teacher_states = _states(teacher_model, on_device, settings)
            for lens, model, total in zip(lenses, student_models, sums, strict=True):
                if lens.layers:
                    vertex = lens.vertex(_states(model, on_device, settings))
                    try:
                        total.update(teacher_states, vertex, batch.example.to(sums_device))
                    except ValueError:  # say whose states these were; looking beforehand would cost a pass over all
                        check_finite(teacher_states, "the teacher")
                        check_finite(vertex, lens.student.name)
                        raise
            bar.update(len(batch.counted))
    return sums


def _load(checkpoint: ModelCheckpoint, device: torch.device) -> PreTrainedModel:
    model = checkpoint.load_model()
    torch.nn.Module.to(model, device)  # transformers' own `to` hides its signature from the type checker
    return model


def _states(model: PreTrainedModel, batch: Batch, settings: _Settings) -> Float[Tensor, "layer token dim"]:
    with settings.autocast():
        _, states = forward_with_states(model, batch.inputs, final_norm=settings.final_norm)
    return counted_states([state.float() for state in states], batch.counted)


def _label(
    lenses: Sequence[_Lens],
    sums: Sequence[AngleSums],
    tower: str,
    n_layers: int,
    confidence: float,
    *,
    with_steps: bool,
) -> xr.Dataset:
    """Put the sums of every student (and step) into one dataset; the one place where labels are added."""
    parts: list[xr.Dataset] = []
    n_student_layers = 1 + max(lens.student.config.num_hidden_layers for lens in lenses)
    for lens, total in zip(lenses, sums, strict=True):
        part = _label_one(lens, total, n_layers, n_student_layers, confidence)
        keys = {"student": [lens.student.name], **({"step": [lens.student.step]} if with_steps else {})}
        part = part.expand_dims({"tower": [tower]}).expand_dims(keys)
        part["weights_sha256"] = (tuple(keys), np.full([1] * len(keys), lens.student.weights_sha256, dtype=object))
        if not with_steps:
            part = part.assign_coords(trained_steps=("student", [lens.student.step]))
        parts.append(part)
    if with_steps:  # students may have different checkpoints
        dataset = xr.combine_by_coords(parts, join="outer", fill_value=empty_cells(parts[0]))
        names = list(dict.fromkeys(lens.student.name for lens in lenses))
        dataset = cast(xr.Dataset, dataset).sel(student=names)
    else:
        dataset = xr.concat(parts, dim="student")
    dataset = dataset.assign_coords(bin=np.round(np.linspace(-1, 1, N_BINS + 1)[:-1], 12))
    units = {"angle_deg": "degree", "ci_low": "degree", "ci_high": "degree"}
    for name in dataset.data_vars:
        unit = units.get(str(name).removeprefix("layer_"))
        if unit:
            dataset[name].attrs["units"] = unit
    return dataset


def _label_one(lens: _Lens, sums: AngleSums, n_layers: int, n_student_layers: int, confidence: float) -> xr.Dataset:
    a, b = (index.numpy() for index in layer_pairs(n_layers))
    layers = np.array(lens.layers, dtype=int)

    def by_pair(values: Tensor, fill: float = np.nan) -> Any:
        values_np = values.cpu().numpy()
        dtype = np.float64 if np.isnan(fill) else values_np.dtype
        out = np.full((n_student_layers, n_layers, n_layers, *values_np.shape[2:]), fill, dtype=dtype)
        for row, layer in enumerate(layers):
            out[layer, a, b] = out[layer, b, a] = values_np[row]
        return out

    def by_layer(values: Tensor) -> Any:
        out = np.full(n_student_layers, np.nan)
        out[layers] = values.cpu().numpy()
        return out

    angle, layer_angle = sums.angle, sums.layer_angle
    low, high = angle.interval(confidence)
    layer_low, layer_high = layer_angle.interval(confidence)
    matched = np.zeros((n_student_layers, n_layers), dtype=np.int8)
    for student_layer, teacher_layer in lens.matched:
        matched[student_layer, teacher_layer] = 1
    square = ("student_layer", "layer_a", "layer_b")
    return xr.Dataset(
        {
            "angle_deg": (square, by_pair(angle.mean())),
            "cosine": (square, by_pair(sums.cosine_total / angle.count)),
            "ci_low": (square, by_pair(low)),
            "ci_high": (square, by_pair(high)),
            "acute_fraction": (square, by_pair(sums.n_acute / angle.count)),
            "n_tokens": (square, by_pair(angle.count.long(), fill=0)),
            "n_degenerate": (square, by_pair(sums.n_degenerate, fill=0)),
            "histogram": ((*square, "bin"), by_pair(sums.histogram, fill=0)),
            "layer_angle_deg": ("student_layer", by_layer(layer_angle.mean())),
            "layer_ci_low": ("student_layer", by_layer(layer_low)),
            "layer_ci_high": ("student_layer", by_layer(layer_high)),
            "layer_acute_fraction": ("student_layer", by_layer(sums.n_acute.sum(dim=1) / layer_angle.count)),
            "matched": (("student_layer", "layer_a"), matched),
        },
        coords={
            "student_layer": np.arange(n_student_layers),
            "layer_a": np.arange(n_layers),
            "layer_b": np.arange(n_layers),
        },
    )


def _open_students(
    students: StudentLike | Sequence[StudentLike], teacher: str | Path | None, trust_remote_code: bool
) -> list[StudentCheckpoint]:
    listed = [students] if isinstance(students, str | Path | StudentCheckpoint) else list(students)
    if not listed:
        raise InputError("there is nothing to measure: got no students. Give at least one student directory.")
    opened = [
        student
        if isinstance(student, StudentCheckpoint)
        else _any_model(str(student), trust_remote_code)
        if teacher is not None
        else open_student(student, trust_remote_code)
        for student in listed
    ]
    return list(_with_unique_names(opened))


def _any_model(model: str, trust_remote_code: bool) -> StudentCheckpoint:
    """A student directory if it is one, else any checkpoint, as a student that was never matched."""
    path = resolve(model)
    if (path / "matching.json").exists():
        return open_student(path, trust_remote_code)
    return StudentCheckpoint(path, trust_remote_code, name=Path(model).name)


def _with_unique_names(students: Sequence[StudentCheckpoint]) -> Iterator[StudentCheckpoint]:
    """Students of the same name get their study's name before it, or where that is the same too, their path."""
    paths = [student.path.resolve() for student in students]
    for path in paths:
        if paths.count(path) > 1:
            raise InputError(f"the student {path} is given twice. Give every student once.")
    names = [student.name for student in students]
    with_study = [f"{path.parent.parent.name}/{name}" for path, name in zip(paths, names, strict=True)]
    for longer in (with_study, [str(path) for path in paths]):
        names = [long if names.count(name) > 1 else name for name, long in zip(names, longer, strict=True)]
    for student, name in zip(students, names, strict=True):
        yield dataclasses.replace(student, name=name)


def _common_teacher(
    students: Sequence[StudentCheckpoint], teacher: str | Path | None, trust_remote_code: bool
) -> ModelCheckpoint:
    if teacher is not None:
        checkpoint = ModelCheckpoint(resolve(str(teacher)), trust_remote_code)
        for student in students:
            ours, theirs = checkpoint.config.hidden_size, student.config.hidden_size
            if ours != theirs and not student.load_maps().by_layer:
                raise InputError(
                    f"{student.name} has width {theirs}, the teacher {ours}. Two models that were never matched can be "
                    "compared only at equal width; choose another pair, or train the student with a learned map."
                )
        return checkpoint
    first = students[0].open_teacher()
    for student in students[1:]:
        if student.matching and student.matching.teacher.weights_sha256 != first.weights_sha256:
            raise InputError(
                f"{students[0].name} and {student.name} have different teachers. Measure them in two calls, "
                "since one angle needs one teacher."
            )
    return first


def _device(name: str) -> torch.device:
    if name == "auto":
        from accelerate import PartialState

        return torch.device(PartialState().device)
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError("it is of another kind")
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"the device {name!r} is not there ({str(error).splitlines()[0]}). "
            "Allowed are auto, cpu, cuda, cuda:N and mps."
        ) from error


def _check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise InputError(f"{name} is {value!r}; allowed are {', '.join(map(repr, allowed))}.")
