"""The catalogue: the students of all sources, their training steps, and their scores."""

import threading
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, count

import numpy as np
import pandas as pd

from layerangles.app.sources import Source, Student, no_scores, steps_in, strategy_of
from layerangles.equivalence.intervals import t_interval
from layerangles.errors import InputError
from layerangles.results.angle_result import AngleResult
from layerangles.settings import MeasurementSettings

# The ways of measuring offered on demand; results measured with other settings are ways of their own.
WAYS = ("teacher", "pull", "gradient")
_USUAL = {key: MeasurementSettings().attributes()[key] for key in ("preprocessing", "convention", "maps", "final_norm")}


def way_of(result: AngleResult) -> str:
    """The space of a result and its unusual settings, in words."""
    attributes = result.dataset.attrs
    parts = [str(attributes[key]) for key, usual in _USUAL.items() if attributes.get(key, usual) != usual]
    return " · ".join([str(attributes["space"]), *parts])


@dataclass(frozen=True)
class StudentEntry:
    """A student and the key that identifies it in the browser. Keys are never paths."""

    key: str
    source: Source
    student: Student

    @cached_property
    def strategy(self) -> str:
        """The key without the seed."""
        return strategy_of(self.key)

    def results(self, way: str) -> list[AngleResult]:
        """The results measured in one way."""
        return [result for result in self.student.results if way_of(result) == way]

    @cached_property
    def steps(self) -> list[int]:
        """The training steps with a checkpoint or a measurement; empty if only one state is known."""
        measured = {step for result in self.student.stored for step in steps_of(result, self.student.name)}
        directory = self.student.directory
        measured |= steps_in(directory) if directory is not None else set()
        return sorted(measured)


def steps_of(result: AngleResult, student: str) -> list[int]:
    """The steps at which one student was measured; a result has the steps of all its students."""
    if not result.steps:
        return []
    hashes = result.dataset["weights_sha256"].sel(student=student).values.astype(str)
    return [step for step, there in zip(result.steps, hashes, strict=True) if there]


@dataclass(frozen=True)
class Snapshot:
    """The contents of a catalogue at one time."""

    entries: dict[str, StudentEntry]
    scores: pd.DataFrame

    @property
    def ways(self) -> list[str]:
        """The ways in which students were or can be measured."""
        found = {way_of(result) for entry in self.entries.values() for result in entry.student.stored}
        return [*WAYS, *sorted(found - set(WAYS))]

    @property
    def strategies(self) -> list[str]:
        """The strategies, in order of discovery."""
        return list(dict.fromkeys(entry.strategy for entry in self.entries.values()))

    def seeds(self, strategy: str) -> list[int]:
        """The seeds of a strategy's students."""
        seeds = (e.student.seed for e in self.entries.values() if e.strategy == strategy)
        return sorted(seed for seed in seeds if seed is not None)

    def key(self, strategy: str | None, seed: int | None) -> str | None:
        """The key of a strategy's student with this seed, or of its first student."""
        of_strategy = [entry for entry in self.entries.values() if entry.strategy == strategy]
        return next((e.key for e in [*(e for e in of_strategy if e.student.seed == seed), *of_strategy]), None)

    def standings(self) -> pd.DataFrame:
        """One row per strategy and metric, best first: the mean over seeds with its interval.

        Columns: ``strategy``, ``metric``, ``split``, ``n_seeds``, ``score``, ``ci_low``, ``ci_high`` (95 %, Student's t
        over seeds; NaN with a single seed).
        """
        rows = []
        groups = self.scores.groupby(["metric", "split", "strategy", "higher_is_better"], sort=False)
        for (metric, split, strategy, better), of in groups:
            mean, low, high = t_interval(of["score"].to_numpy(dtype=np.float64), 0.95)
            rows.append((strategy, metric, split, len(of), mean, low, high, -mean if better else mean))
        columns = ["strategy", "metric", "split", "n_seeds", "score", "ci_low", "ci_high", "place"]
        frame = pd.DataFrame(rows, columns=columns).sort_values(["metric", "split", "place"], kind="stable")
        return frame.drop(columns="place").reset_index(drop=True)


class Catalogue:
    """The contents of all sources, read again after a change; safe for several threads.

    Raises:
        InputError: no source has a student.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = tuple(sources)
        self._lock = threading.Lock()
        self._version: Hashable = object()
        self._snapshot = Snapshot({}, pd.DataFrame())
        if not self.read().entries:
            names = ", ".join(source.name for source in self.sources) or "nothing"
            raise InputError(
                f"there is no student to compare in {names}. Give student directories, a study's directory, or result "
                "files that `layerangles angles` wrote; a study must have a finished student or stored angles."
            )

    def version(self) -> Hashable:
        """A value that differs whenever a source may have changed."""
        return tuple(source.version() for source in self.sources)

    def read(self) -> Snapshot:
        """The current contents."""
        with self._lock:
            version = self.version()
            if version != self._version:
                self._snapshot = Snapshot(*_read(self.sources))
                self._version = version
            return self._snapshot


def _read(sources: Sequence[Source]) -> tuple[dict[str, StudentEntry], pd.DataFrame]:
    found = [(source, student) for source in sources for student in source.students()]
    tables = [(source, _scores(source)) for source in sources]
    here = {(id(source), student.name) for source, student in found}
    # Scores may belong to students without weights or results here.
    scored = [
        (source, str(name))
        for source, table in tables
        for name in dict.fromkeys(table["student"])
        if (id(source), name) not in here
    ]
    named = [*((source, student.name) for source, student in found), *scored]
    keys = _unique(named)
    entries = {key: StudentEntry(key, source, student) for key, (source, student) in zip(keys, found, strict=False)}
    key_of = {(id(source), name): key for key, (source, name) in zip(keys, named, strict=True)}
    frames = []
    for source, table in tables:
        # Students without matching appear in every cell of a study; count them once.
        frame = table.drop_duplicates(["student", "metric", "split"])
        frame = frame.assign(student=[key_of[id(source), str(name)] for name in frame["student"]])
        frames.append(frame.assign(strategy=frame["student"].map(strategy_of)))
    there = [frame for frame in frames if len(frame)]
    return entries, pd.concat(there, ignore_index=True) if there else no_scores()


def _scores(source: Source) -> pd.DataFrame:
    try:
        return source.scores()
    except InputError:  # no student is finished yet
        return no_scores()


def _unique(names: Sequence[tuple[Source, str]]) -> list[str]:
    """A key for every student: its name, preceded by its source's name if another source has the strategy, too.

    Of a strategy, not of a student: the seeds of one strategy in one source stay together.
    """
    homes: dict[str, set[int]] = {}
    labels: dict[int, str] = {}  # of sources; equal names are numbered
    for source, student in names:
        homes.setdefault(strategy_of(student), set()).add(id(source))
        if id(source) not in labels:
            labels[id(source)] = _numbered(source.name, labels.values())
    keys: dict[str, None] = {}
    for source, student in names:
        label = "" if len(homes[strategy_of(student)]) == 1 else labels[id(source)]
        key = f"{label}: {student}" if label else student
        if key in keys:
            key = f"{_numbered(labels[id(source)], {k.removesuffix(f': {student}') for k in keys})}: {student}"
        keys[key] = None
    return list(keys)


def _numbered(name: str, taken: Collection[str]) -> str:
    """The name, followed by the first number from 2 on that distinguishes it from those taken."""
    return next(new for new in chain([name], (f"{name} ({n})" for n in count(2))) if new not in taken)
