"""The passes over the data: forward through teacher and students, and on into sums. Nothing of the data is kept."""

import hashlib
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm
from transformers import AutoModel, PreTrainedModel

from layerangles.geometry.alternatives import TokenSample
from layerangles.geometry.gradients import MatchingBatch, gradient_products
from layerangles.geometry.nulls import NullName, Tokens
from layerangles.geometry.preprocessing import Preprocessing, TeacherStatistics
from layerangles.layers import FinalNorm, Tower
from layerangles.models.checkpoints import ModelCheckpoint, StudentCheckpoint, quiet_transformers
from layerangles.models.states import check_finite, counted_states, forward_with_states, n_layers
from layerangles.models.student_tower import StudentTower
from layerangles.models.texts import Batch, EncodedTexts
from layerangles.settings import Alternatives, FitKind, Precision, Space
from layerangles.sums.angle_sums import AngleSums
from layerangles.sums.map_fitting import MapSums, fit_map, target_layer
from layerangles.sums.relation_sums import RelationSums

States = dict[Tower, Float[Tensor, "layer token dim"]]

# How many batches lie between two looks at the intervals, where a pass ends as soon as they are narrow enough.
_BATCHES_PER_LOOK = 8


@dataclass(frozen=True)
class Settings:
    """How a pass is made.

    Attributes:
        until: end the pass when the widest interval of all mean angles is narrower than this, in degrees.
        shard: ``(i, n)``: the i-th of n disjoint parts of the data, counted from 0.
        progress: called after every batch with what is being done and how far it is, 0 to 1.
    """

    space: Space
    nulls: tuple[NullName, ...]
    preprocessing: Mapping[Tower, Preprocessing]
    alternatives: Alternatives
    final_norm: FinalNorm
    precision: Precision
    device: torch.device
    batch_size: int
    confidence: float
    until: float | None
    shard: tuple[int, int]
    progress: Callable[[str, float], None] | None = None

    @classmethod
    def plain(cls, device: torch.device) -> "Settings":
        """Nothing but the states of all texts, in float32."""
        return cls("teacher", (), {}, "none", "pre", "float32", device, 32, 0.95, None, (0, 1))

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of the forward passes."""
        if self.precision == "bfloat16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()

    @property
    def sums_device(self) -> torch.device:
        """Where the geometry is computed: on the CPU where the device has no float64 (Apple's mps)."""
        return torch.device("cpu") if self.device.type == "mps" else self.device

    def batches(self, encoded: EncodedTexts) -> Iterator[Batch]:
        """This process's batches: of the shard, every process takes a part of its own."""
        process = PartialState()
        (i, n), seed = self.shard, None if self.until is None else 0
        parts = (i + n * process.process_index, n * process.num_processes)
        return (batch.to(self.device) for batch in encoded.batches(self.batch_size, shard=parts, seed=seed))


@dataclass
class Sums:
    """What is summed for one student_tower."""

    angles: AngleSums
    relations: RelationSums | None = None
    sample: TokenSample | None = None


@dataclass
class Measured:
    """What a pass has measured.

    Attributes:
        sums: of every student_tower.
        statistics: of every tower of the teacher; empty unless alternatives were asked for.
        n_examples: examples measured, over all processes.
    """

    sums: list[Sums]
    statistics: dict[Tower, TeacherStatistics] = field(default_factory=dict)
    n_examples: int = 0


def measure(
    student_towers: Sequence[StudentTower], teacher: ModelCheckpoint, encoded: EncodedTexts, settings: Settings
) -> Measured:
    """The main pass: the angles of some students, and all that is asked for beside them."""
    teacher_model = load(teacher, settings.device)
    models = _Students(student_towers, settings)
    measured = Measured([_sums_of(student_tower, teacher, settings) for student_tower in student_towers])
    towers = dict.fromkeys(student_tower.tower for student_tower in student_towers)
    if settings.alternatives != "none":
        measured.statistics = {tower: TeacherStatistics() for tower in towers}
    with torch.inference_mode(), closing(watched(settings.batches(encoded), encoded, settings, "angles")) as batches:
        # As many rounds in every process, since they meet at the end of each.
        n_rounds = 1 if settings.until is None else -(-len(encoded) // (settings.batch_size * _BATCHES_PER_LOOK))
        for _ in range(n_rounds):
            for batch in batches if settings.until is None else islice(batches, _BATCHES_PER_LOOK):
                _measure_batch(batch, teacher_model, models, measured, settings)
                measured.n_examples += len(batch)
            if settings.until is not None and _widest_interval(measured, settings) < settings.until:
                break
    return _over_processes(measured)


def _sums_of(student_tower: StudentTower, teacher: ModelCheckpoint, settings: Settings) -> Sums:
    n_teacher, device = n_layers(teacher.config, student_tower.tower) + 1, settings.sums_device
    rows = {layer: row for row, layer in enumerate(student_tower.layers)}
    matched = {rows[s]: t for s, t in student_tower.matched if s in rows}
    return zero_sums(len(student_tower.layers), n_teacher, settings.nulls, settings.alternatives, matched, device)


def zero_sums(
    n_student_layers: int,
    n_teacher_layers: int,
    nulls: tuple[NullName, ...],
    alternatives: Alternatives,
    matched: Mapping[int, int],
    device: torch.device | str = "cpu",
) -> Sums:
    """Sums over no tokens, of all that is asked for."""
    sums = Sums(AngleSums(n_student_layers, n_teacher_layers, nulls=nulls, device=device))
    if alternatives != "none":
        sums.relations = RelationSums(n_student_layers, n_teacher_layers, matched, device=device)
    if alternatives == "all":
        sums.sample = TokenSample()
    return sums


class _Students:
    """The students' models; each in memory once, whatever number of towers is looked at."""

    def __init__(self, student_towers: Sequence[StudentTower], settings: Settings) -> None:
        self.student_towers = student_towers
        self._models: dict[str, PreTrainedModel] = {}
        self._untrained: dict[str, PreTrainedModel] = {}
        self._architectures: dict[str, str] = {}  # by path; empty unless untrained students are asked for
        for student in (student_tower.student for student_tower in student_towers if student_tower.layers):
            if str(student.path) not in self._models:
                self._models[str(student.path)] = load(student, settings.device)
            if "N3" in settings.nulls:
                architecture = self._architectures[str(student.path)] = _architecture(student)
                if architecture not in self._untrained:
                    self._untrained[architecture] = untrained_model(student, settings.device)

    def states(self, batch: Batch, settings: Settings) -> Iterator[tuple[StudentTower, States, States | None]]:
        """Every student_tower's student: its states, and those of an untrained one; a model's batch is run once."""
        trained: dict[str, States] = {}
        untrained: dict[str, States] = {}
        for student_tower in self.student_towers:
            path = str(student_tower.student.path)
            architecture = self._architectures.get(path, "")
            if not student_tower.layers:
                yield student_tower, {}, None
                continue
            if path not in trained:
                trained = {path: states_of(self._models[path], batch, settings)}  # the towers of one come together
            if architecture in self._untrained and architecture not in untrained:
                untrained[architecture] = states_of(self._untrained[architecture], batch, settings)
            yield student_tower, trained[path], untrained.get(architecture)


def untrained_model(student: StudentCheckpoint, device: torch.device) -> PreTrainedModel:
    """A model of the student's architecture with random weights, always the same."""
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(0)
        model = AutoModel.from_config(  # type: ignore[no-untyped-call]
            student.config, dtype=torch.float32, trust_remote_code=student.trust_remote_code
        )
    torch.nn.Module.to(model, device)
    return model.eval()  # type: ignore[no-any-return]


def _architecture(student: StudentCheckpoint) -> str:
    ignored = ("_name_or_path", "transformers_version", "id2label", "label2id", "architectures", "problem_type")
    fields = {k: v for k, v in student.config.to_dict().items() if k not in ignored}
    return hashlib.sha256(json.dumps(fields, sort_keys=True, default=str).encode()).hexdigest()


def _measure_batch(
    batch: Batch, teacher: PreTrainedModel, students: _Students, measured: Measured, settings: Settings
) -> None:
    teacher_states = states_of(teacher, batch, settings)
    tokens = {tower: tokens_of(batch, tower, settings.sums_device) for tower in teacher_states}
    for tower, statistics in measured.statistics.items():
        statistics.update(teacher_states[tower])
    for sums, (student_tower, states, untrained) in zip(measured.sums, students.states(batch, settings), strict=True):
        if not student_tower.layers:
            continue
        tower, targets = student_tower.tower, teacher_states[student_tower.tower]
        vertex = student_tower.vertex(states[tower])
        unseen = None if untrained is None else student_tower.vertex(untrained[tower])
        try:
            sums.angles.update(
                student_tower.views(settings.space, targets, vertex, unseen, settings.preprocessing[tower]),
                tokens[tower].tokens,
            )
        except ValueError:  # say whose states these were; looking beforehand would cost a pass over all
            check_finite(targets, "the teacher")
            check_finite(vertex, student_tower.student.name)
            raise
        if sums.relations is not None:
            prepare = settings.preprocessing[tower].apply
            sums.relations.update(prepare(targets), prepare(vertex), tokens[tower].tokens.example)
        if sums.sample is not None:
            of_layers = states[tower][list(student_tower.layers)]
            sums.sample.update(targets, of_layers, tokens[tower].number, tokens[tower].position)


class BatchTokens(NamedTuple):
    """What the sums ask of the counted tokens of a batch.

    Attributes:
        tokens: for the angles.
        number: the number of each token's example in the data.
        position: each token's place among those of its example that count.
    """

    tokens: Tokens
    number: Int[Tensor, " token"]
    position: Int[Tensor, " token"]


def tokens_of(batch: Batch, tower: Tower, device: torch.device) -> BatchTokens:
    """The counted tokens of one tower."""
    row = batch.example(tower)
    n_tokens = torch.bincount(row, minlength=len(batch))
    position = torch.arange(len(row), device=row.device) - (n_tokens.cumsum(0) - n_tokens)[row]
    number = batch.numbers.to(row.device)[row]
    tokens = Tokens(row.to(device), batch.partner(tower).to(device), (number * 8191 + position).to(device))
    return BatchTokens(tokens, number.to(device), position.to(device))


def states_of(model: PreTrainedModel, batch: Batch, settings: Settings) -> States:
    """The states of all towers at the counted tokens, in float32, where the sums are computed."""
    with settings.autocast():
        _, states = forward_with_states(model, batch.inputs, final_norm=settings.final_norm)
    return {
        tower: counted_states([s.float() for s in states[tower]], mask).to(settings.sums_device)
        for tower, mask in batch.counted.items()
    }


def load(checkpoint: ModelCheckpoint, device: torch.device) -> PreTrainedModel:
    """A model on its device."""
    model = checkpoint.load_model()
    torch.nn.Module.to(model, device)  # transformers' own `to` hides its signature from the type checker
    return model


def watched(
    batches: Iterable[Batch], encoded: EncodedTexts, settings: Settings, what: str
) -> Generator[Batch, None, None]:
    """The batches, with a progress bar on a terminal (of the first process) and word to whoever watches."""
    process, done = PartialState(), 0
    total = max(1, len(encoded) // (settings.shard[1] * process.num_processes))
    disable = None if process.is_main_process else True
    with tqdm(total=total, desc=what, unit="text", disable=disable, leave=False) as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch))
            done += len(batch)
            if settings.progress is not None:
                settings.progress(what, min(1.0, done / total))


# --- several processes ---------------------------------------------------------------------------------------


def _over_processes(measured: Measured) -> Measured:
    """The sums over all processes, in every process."""
    if PartialState().num_processes == 1:
        return measured
    gathered: list[Measured] = gather_object([measured])
    first, *others = gathered
    for other in others:
        first = Measured(
            [_merged_sums(*pair) for pair in zip(first.sums, other.sums, strict=True)],
            {tower: statistics.merge(other.statistics[tower]) for tower, statistics in first.statistics.items()},
            first.n_examples + other.n_examples,
        )
    return first


def _merged_sums(one: Sums, other: Sums) -> Sums:
    return Sums(
        one.angles.merge(other.angles),
        one.relations.merge(other.relations) if one.relations and other.relations else None,
        one.sample.merge(other.sample) if one.sample and other.sample else None,
    )


def _widest_interval(measured: Measured, settings: Settings) -> float:
    """The widest interval of a mean angle so far, in degrees; infinite while there is none."""
    widest = 0.0
    for sums in _over_processes(Measured([Sums(s.angles) for s in measured.sums])).sums:
        low, high = sums.angles.angle.interval(settings.confidence)
        widths = (high - low)[sums.angles.angle.count > 0]
        widest = max(widest, float(widths.nan_to_num(torch.inf).max()) if len(widths) else torch.inf)
    return widest


# --- passes before the main one ------------------------------------------------------------------------------


def teacher_statistics(
    teacher: ModelCheckpoint, encoded: EncodedTexts, settings: Settings
) -> dict[Tower, TeacherStatistics]:
    """Means and variances of the teacher's states, by tower."""
    measured = Measured([])
    model = load(teacher, settings.device)
    with torch.inference_mode():
        for batch in watched(settings.batches(encoded), encoded, settings, "teacher statistics"):
            for tower, states in states_of(model, batch, settings).items():
                measured.statistics.setdefault(tower, TeacherStatistics()).update(states)
    return _over_processes(measured).statistics


def fit_maps(
    student_towers: Sequence[StudentTower],
    teacher: ModelCheckpoint,
    encoded: EncodedTexts,
    settings: Settings,
    kind: FitKind,
) -> list[StudentTower]:
    """Fit maps to the data, from each student layer to the teacher layer that forward matching gives."""
    model = load(teacher, settings.device)
    students: dict[str, PreTrainedModel] = {}
    sums = [[MapSums() for _ in range(student_tower.n_layers)] for student_tower in student_towers]
    for student_tower in student_towers:
        if str(student_tower.student.path) not in students:
            students[str(student_tower.student.path)] = load(student_tower.student, settings.device)
    with torch.inference_mode():
        for batch in watched(settings.batches(encoded), encoded, settings, "fitting maps"):
            targets = states_of(model, batch, settings)
            states = {path: states_of(student, batch, settings) for path, student in students.items()}
            for student_tower, of_lens in zip(student_towers, sums, strict=True):
                example = tokens_of(batch, student_tower.tower, settings.sums_device).number
                last = n_layers(teacher.config, student_tower.tower)
                for layer, of_layer in enumerate(of_lens):
                    target = targets[student_tower.tower][target_layer(layer, student_tower.n_layers - 1, last)]
                    of_layer.update(
                        states[str(student_tower.student.path)][student_tower.tower][layer], target, example
                    )
    if PartialState().num_processes > 1:
        gathered: list[list[list[MapSums]]] = gather_object([sums])
        sums = [
            [_merged_all([part[i][layer] for part in gathered]) for layer in range(student_tower.n_layers)]
            for i, student_tower in enumerate(student_towers)
        ]
    fitted = [[fit_map(of_layer, kind) for of_layer in of_lens] for of_lens in sums]
    return [
        student_tower.fitted([one.map for one in of_lens], [one.r2 for one in of_lens])
        for student_tower, of_lens in zip(student_towers, fitted, strict=True)
    ]


def _merged_all(sums: Sequence[MapSums]) -> MapSums:
    first, *others = sums
    for other in others:
        first = first.merge(other)
    return first


def gradients(
    student_tower: StudentTower, teacher: ModelCheckpoint, encoded: EncodedTexts, settings: Settings, n_batches: int
) -> Float[Tensor, "view teacher_layer teacher_layer"]:
    """Products of the gradients of the matching losses, over the first batches.

    See :mod:`layerangles.geometry.gradients`.
    """
    teacher_model, student = load(teacher, settings.device), load(student_tower.student, settings.device)

    def batches() -> Iterable[MatchingBatch]:
        for batch in islice(encoded.batches(settings.batch_size, seed=0), n_batches):
            on_device = batch.to(settings.device)
            with torch.no_grad():
                targets = states_of(teacher_model, on_device, settings)[student_tower.tower]
            yield MatchingBatch(on_device.inputs, targets, on_device.counted[student_tower.tower])

    def states(inputs: dict[str, Tensor]) -> Sequence[Tensor]:
        return forward_with_states(student, inputs, final_norm=settings.final_norm)[1][student_tower.tower]

    maps: Mapping[int, Any] = dict(zip(student_tower.layers, student_tower.maps, strict=True))
    return gradient_products(states, list(student.parameters()), maps, batches)
