"""Passes over the texts, which feed the states of teacher and students to a meter, batch by batch."""

import hashlib
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import islice
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm
from transformers import AutoModel, PreTrainedModel

from layerangles.errors import InputError
from layerangles.geometry.gradients import MatchingBatch, gradient_products
from layerangles.geometry.nulls import NULLS
from layerangles.geometry.student_tower import StudentTower
from layerangles.layers import FinalNorm, Tower
from layerangles.measurement.meter import AngleMeter, States, StudentStates, TeacherBatch
from layerangles.models.checkpoints import ModelCheckpoint, StudentCheckpoint, quiet_transformers
from layerangles.models.states import forward_with_states, valid_states
from layerangles.models.texts import Batch, EncodedTexts
from layerangles.settings import MeasurementSettings, Precision

Progress = Callable[[str, float], None]

# Batches between two looks at the intervals, for a pass that ends as soon as these are narrow enough.
_BATCHES_PER_LOOK = 8

_Same = TypeVar("_Same")  # in place of Self, which the shape checks of the tests do not take


@runtime_checkable
class Mergeable(Protocol):
    """A quantity measured on parts of the data that adds up to that of the whole."""

    def merge(self: _Same, other: _Same, /) -> _Same:
        """Merge the quantities of two parts of the data."""


@runtime_checkable
class Meter(Mergeable, Protocol):
    """An accumulator of batches of states."""

    def update(self, teacher: TeacherBatch, students: Iterable[StudentStates], /) -> None:
        """Add a batch; the students' states come one tower at a time."""


AnyMergeable = TypeVar("AnyMergeable", bound=Mergeable)
AnyMeter = TypeVar("AnyMeter", bound=Meter)


class MeasuredStudent(NamedTuple):
    """A student's model and its towers."""

    checkpoint: StudentCheckpoint
    towers: list[StudentTower]


@dataclass(frozen=True)
class ModelRunner:
    """Runs models on a device in a precision.

    Attributes:
        device: device of the models.
        final_norm: as in :class:`layerangles.settings.MeasurementSettings`.
        precision: as there.
    """

    device: torch.device
    final_norm: FinalNorm = "pre"
    precision: Precision = "float32"

    @property
    def sums_device(self) -> torch.device:
        """Device of the geometry: the CPU if the models' device has no float64 (Apple's mps)."""
        return torch.device("cpu") if self.device.type == "mps" else self.device

    def load(self, checkpoint: ModelCheckpoint) -> PreTrainedModel:
        """Load a model onto the device."""
        return self._moved(checkpoint.load_model())

    def untrained(self, student: StudentCheckpoint) -> PreTrainedModel:
        """A model of the student's architecture with random weights, always the same."""
        with torch.random.fork_rng(devices=[]), quiet_transformers():
            torch.manual_seed(0)
            model = AutoModel.from_config(  # type: ignore[no-untyped-call]
                student.config, dtype=torch.float32, trust_remote_code=student.trust_remote_code
            )
        return self._moved(model.eval())

    def _moved(self, model: PreTrainedModel) -> PreTrainedModel:
        torch.nn.Module.to(model, self.device)  # transformers' own `to` hides its signature from the type checker
        return model

    def states(self, model: PreTrainedModel, batch: Batch) -> dict[Tower, Tensor]:
        """States of all towers at the valid tokens, in float32, on :attr:`sums_device`."""
        with self._autocast():
            _, states = forward_with_states(model, batch.inputs, final_norm=self.final_norm)
        return {
            tower: valid_states([s.float() for s in states[tower]], mask).to(self.sums_device)
            for tower, mask in batch.valid.items()
        }

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "bfloat16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()


class Passes:
    """Runs a teacher and its students over the same texts, once for each meter.

    Args:
        teacher: the teacher; its model stays in memory.
        encoded: the texts.
        settings: how to measure.
        progress: called after every batch with the name of the pass and the share of it done, 0 to 1.
    """

    def __init__(
        self,
        teacher: ModelCheckpoint,
        encoded: EncodedTexts,
        settings: MeasurementSettings,
        progress: Progress | None = None,
    ) -> None:
        self.teacher = teacher
        self.encoded = encoded
        self.runner = ModelRunner(device_of(settings.device), settings.final_norm, settings.precision)
        self.settings = settings
        self._progress = progress

    @cached_property
    def _teacher_model(self) -> PreTrainedModel:
        return self.runner.load(self.teacher)

    def run(
        self,
        meter: AnyMeter,
        students: Sequence[MeasuredStudent],
        name: str,
        *,
        batches: Iterable[Batch] | None = None,
        until: float | None = None,
    ) -> AnyMeter:
        """Show a meter the states of the teacher and of the students' towers, and return that of all processes.

        Args:
            meter: a meter of these towers.
            students: the students; there may be none.
            name: the name of the pass, for progress bars.
            batches: this process's batches; by default those of its part of the shard.
            until: end the pass as soon as all intervals of the angles are narrower than this, in degrees.
        """
        models = _StudentModels(students, self.runner, self.settings)
        n_batches = None if until is None else _BATCHES_PER_LOOK
        # As many rounds in every process, since they meet at the end of each.
        n_rounds = 1 if n_batches is None else -(-len(self.encoded) // (self.settings.batch_size * n_batches))
        watched = self._watched(self._batches() if batches is None else batches, name)
        with torch.inference_mode(), closing(watched):
            for _ in range(n_rounds):
                for batch in islice(watched, n_batches):
                    meter.update(self._teacher_batch(batch), models.states(batch))
                if until is not None and _widest_interval(meter, self.settings.confidence) < until:
                    break
        return over_processes(meter)

    def _teacher_batch(self, batch: Batch) -> TeacherBatch:
        states = self.runner.states(self._teacher_model, batch)
        tokens = {tower: batch.tokens(tower).to(self.runner.sums_device) for tower in states}
        return TeacherBatch(states, tokens, len(batch))

    def _batches(self) -> Iterator[Batch]:
        """This process's batches: of the shard, every process takes a part of its own."""
        process = PartialState()
        (i, n), seed = self.settings.shard, None if self.settings.until is None else 0
        part = (i + n * process.process_index, n * process.num_processes)
        return self.encoded.batches(self.settings.batch_size, shard=part, seed=seed)

    def _watched(self, batches: Iterable[Batch], name: str) -> Generator[Batch, None, None]:
        """The batches on the device, with a progress bar on a terminal (of the first process)."""
        process, done = PartialState(), 0
        total = max(1, len(self.encoded) // (self.settings.shard[1] * process.num_processes))
        disable = None if process.is_main_process else True
        with tqdm(total=total, desc=name, unit="text", disable=disable, leave=False) as bar:
            for batch in batches:
                yield batch.to(self.runner.device)
                bar.update(len(batch))
                done += len(batch)
                if self._progress is not None:
                    self._progress(name, min(1.0, done / total))

    def gradient_products(
        self, student: StudentCheckpoint, tower: StudentTower
    ) -> Float[Tensor, "view teacher_layer teacher_layer"]:
        """Products of the gradients of the matching losses of a tower, over the first batches.

        See :mod:`layerangles.geometry.gradients`.
        """
        settings, runner = self.settings, self.runner
        model = runner.load(student)

        def batches() -> Iterator[MatchingBatch]:
            for batch in islice(self.encoded.batches(settings.batch_size, seed=0), settings.gradient_batches):
                on_device = batch.to(runner.device)
                with torch.no_grad():
                    targets = runner.states(self._teacher_model, on_device)[tower.tower]
                yield MatchingBatch(on_device.inputs, targets, on_device.valid[tower.tower])

        def states(inputs: dict[str, Tensor]) -> Sequence[Tensor]:
            return forward_with_states(model, inputs, final_norm=settings.final_norm)[1][tower.tower]

        maps = dict(zip(tower.layers, tower.maps, strict=True))
        return gradient_products(states, list(model.parameters()), maps, batches)


class _StudentModels:
    """The students' models, and one untrained model per architecture if a null needs it."""

    def __init__(self, students: Sequence[MeasuredStudent], runner: ModelRunner, settings: MeasurementSettings) -> None:
        self._runner = runner
        self._students = students
        self._models: list[PreTrainedModel | None] = []
        self._untrained: dict[str, PreTrainedModel] = {}
        self._architectures: list[str] = []
        needs_untrained = any(NULLS[null].needs_untrained for null in settings.nulls)
        for checkpoint, towers in students:
            measured = settings.fit is not None or any(tower.layers for tower in towers)
            self._models.append(runner.load(checkpoint) if measured else None)
            self._architectures.append(_architecture(checkpoint) if needs_untrained and measured else "")
            if needs_untrained and measured and self._architectures[-1] not in self._untrained:
                self._untrained[self._architectures[-1]] = runner.untrained(checkpoint)

    def states(self, batch: Batch) -> Iterator[StudentStates]:
        """The states for every tower of every student; each model runs the batch once."""
        untrained: dict[str, States] = {}
        for (_, towers), model, architecture in zip(self._students, self._models, self._architectures, strict=True):
            trained = {} if model is None else self._runner.states(model, batch)
            if architecture and architecture not in untrained:
                untrained[architecture] = self._runner.states(self._untrained[architecture], batch)
            for _ in towers:
                yield StudentStates(trained, untrained.get(architecture))


def _architecture(student: StudentCheckpoint) -> str:
    """Hash of the configuration without its names, equal for students of equal architecture."""
    ignored = ("_name_or_path", "transformers_version", "id2label", "label2id", "architectures", "problem_type")
    fields = {k: v for k, v in student.config.to_dict().items() if k not in ignored}
    return hashlib.sha256(json.dumps(fields, sort_keys=True, default=str).encode()).hexdigest()


def over_processes(own: AnyMergeable) -> AnyMergeable:
    """Merge the quantities that the processes have measured on their parts of the data, in every process."""
    if PartialState().num_processes == 1:
        return own
    parts: list[AnyMergeable] = gather_object([own])
    return reduce(lambda a, b: a.merge(b), parts)


def _widest_interval(meter: Meter, confidence: float) -> float:
    """Width of the widest interval of a mean angle so far, in degrees; infinite if there is none."""
    if not isinstance(meter, AngleMeter):
        raise TypeError(f"only a meter of angles has intervals; got {type(meter).__name__}.")
    angles = over_processes(meter.angles())
    low, high = angles.interval(confidence)
    widths = (high - low)[angles.count > 0]
    return torch.inf if len(widths) == 0 or bool(widths.isnan().any()) else float(widths.max())


def device_of(name: str) -> torch.device:
    """The device of this process, which joins the other processes if it was launched with some.

    Raises:
        InputError: there is no such device.
    """
    on_cpu = name == "cpu" or (name == "auto" and not torch.accelerator.is_available())
    process = PartialState(cpu=on_cpu)
    if name == "auto":
        return torch.device(process.device)
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
