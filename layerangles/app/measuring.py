"""Angles measured on demand: of whole students, in a thread of their own, and of single tokens.

Comparing stored results needs no torch; it is imported with the first measurement.
"""

import threading
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from layerangles.app.catalogue import StudentEntry
from layerangles.app.sources import STUDENT_RESULT, steps_in, version_of_student
from layerangles.app.views import ResolvedView, Side
from layerangles.errors import InputError
from layerangles.geometry.nulls import NullName
from layerangles.results.angle_result import AngleResult

if TYPE_CHECKING:
    from layerangles.measurement.token_angles import Sentence, TokenReader
    from layerangles.models.checkpoints import ModelCheckpoint, StudentCheckpoint
    from layerangles.models.texts import Text

_NULLS: tuple[NullName, ...] = ("N0", "N1", "N5")
_N_SENTENCES, _TEXTS_READ = 5, 64


@dataclass(frozen=True)
class MeasuringPlan:
    """How students are measured.

    Attributes:
        n_texts: the largest number of texts; drawn evenly.
        max_length: the number of tokens after which a text is cut.
        device: as for :func:`layerangles.measure_angles`.
        trust_remote_code: whether code that comes with a model may be run.
    """

    n_texts: int = 200
    max_length: int = 128
    device: str = "auto"
    trust_remote_code: bool = False

    def texts(self, entry: StudentEntry) -> "list[Text]":
        """The texts that a student is measured on.

        Raises:
            InputError: none are known.
        """
        from layerangles.models.texts import evenly

        return evenly(entry.source.texts(), self.n_texts)


@dataclass(frozen=True)
class Progress:
    """Progress of a measurement: a message and the share done; ``failed`` if it ended in an error."""

    words: str
    share: float = 0.0
    failed: bool = False


class _EndedError(Exception):
    """The app ended while a student was being measured."""


class Measurer:
    """Measures students one after another, and keeps each result in the student's directory if that is writable.

    Attributes:
        n_done: the number of finished measurements.
    """

    def __init__(self, plan: MeasuringPlan) -> None:
        self._plan = plan
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="measuring")
        self._lock = threading.Lock()
        self._progress: dict[tuple[str, str], Progress] = {}
        self._unkept: dict[tuple[str, str], AngleResult] = {}
        self._closed = False
        self.n_done = 0

    def progress(self, key: str, way: str) -> Progress | None:
        """Progress of a student's measurement; None if it was not requested, or has succeeded."""
        with self._lock:
            return self._progress.get((key, way))

    def unkept(self, key: str, way: str) -> AngleResult | None:
        """The result that is not kept in the student's directory, if any."""
        with self._lock:
            return self._unkept.get((key, way))

    def ask(self, entries: Sequence[StudentEntry], way: str) -> None:
        """Queue students for measurement, unless they are queued already."""
        for entry in entries:
            with self._lock:
                known = self._progress.get((entry.key, way))
                if entry.student.directory is None or (known is not None and not known.failed):
                    continue
                self._progress[entry.key, way] = Progress(f"{entry.key} waits")
            self._pool.submit(self._measure, entry, entry.student.directory, way)

    def close(self) -> None:
        """Start no further measurement, and stop the running one after its next batch."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _measure(self, entry: StudentEntry, directory: Path, way: str) -> None:
        def tell(words: str, share: float) -> None:
            # At exit the interpreter waits for this thread.
            if self._closed or not threading.main_thread().is_alive():
                raise _EndedError("the app has ended")
            with self._lock:
                self._progress[entry.key, way] = Progress(f"{entry.key}: {words}", share)

        try:
            tell("opening", 0.0)
            from layerangles.measurement.measure_angles import measure_angles

            result = measure_angles(
                directory,
                self._plan.texts(entry),
                space=way,  # type: ignore[arg-type]  # one of the catalogue's ways
                nulls=_NULLS,
                alternatives="sums" if way == "teacher" else "none",
                steps=bool(steps_in(directory)),
                max_length=self._plan.max_length,
                device=self._plan.device,
                trust_remote_code=self._plan.trust_remote_code,
                progress=tell,
            )
            self._keep(entry.key, directory, way, result)
        except Exception as error:  # the thread must live on, and the page shows the error
            with self._lock:
                self._progress[entry.key, way] = Progress(f"{entry.key} could not be measured: {error}", failed=True)
        else:
            with self._lock:
                del self._progress[entry.key, way]
                self.n_done += 1

    def _keep(self, key: str, directory: Path, way: str, result: AngleResult) -> None:
        # A directory keeps the result in teacher space; others are kept in memory while the app runs.
        if way == "teacher":
            try:
                result.save(directory / STUDENT_RESULT, overwrite=True)
            except (OSError, InputError):
                pass
            else:
                return
        with self._lock:
            self._unkept[key, way] = result


class TokenReaders:
    """Token readers, one per teacher and source; one works at a time."""

    def __init__(self, plan: MeasuringPlan) -> None:
        self._plan, self._lock = plan, threading.Lock()
        self._opened: dict[Hashable, tuple[StudentCheckpoint, ModelCheckpoint]] = {}
        self._readers: dict[tuple[str, int], TokenReader] = {}

    def extremes(self, side: Side, page: ResolvedView) -> "tuple[list[Sentence], list[Sentence]]":
        """The extreme tokens of a checkpoint in their texts.

        Raises:
            InputError: its weights or texts are missing, or single tokens have no angle in this space.
        """
        view, entry = page.view, side.entry
        if side.layer_view.data is None or side.layer_view.absence or entry is None:
            raise InputError(side.layer_view.absence or "nothing is shown")
        if view.way not in ("teacher", "pull"):
            raise InputError(f"single tokens are shown in teacher and pull space, not in {view.way}")
        directory = entry.student.directory
        if directory is None:
            raise InputError("tokens need the student's weights, and only its angles are here")
        if view.low is None or view.high is None or view.low == view.high:
            raise InputError("choose two different teacher layers")
        from layerangles.measurement.token_angles import TokenReader

        with self._lock:
            checkpoint, teacher = self._open(directory, side.step)
            key = teacher.weights_sha256, id(entry.source)
            if key not in self._readers:
                texts = self._plan.texts(entry)[:_TEXTS_READ]
                self._readers[key] = TokenReader(
                    teacher, texts, max_length=self._plan.max_length, device=self._plan.device
                )
            reader = self._readers[key]
            angles = reader.angles(
                checkpoint,
                view.tower,  # type: ignore[arg-type]  # a resolved view has a tower that exists
                int(view.layer or 0),
                (view.low, view.high),
                view.way,  # type: ignore[arg-type]
            )
            smallest, largest = (reader.sentences(angles, _N_SENTENCES, largest=at_top) for at_top in (False, True))
        return smallest, largest

    def _open(self, directory: Path, step: int | None) -> "tuple[StudentCheckpoint, ModelCheckpoint]":
        """A student at a step and its teacher, opened once: opening hashes all weights."""
        key = directory, step, version_of_student(directory)
        from layerangles.models.checkpoints import open_student

        if key not in self._opened:
            student = open_student(directory, self._plan.trust_remote_code)
            checkpoint = next((one for one in student.checkpoints() if one.step == step), student)
            self._opened[key] = checkpoint, student.open_teacher()
        return self._opened[key]
