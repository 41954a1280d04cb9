"""What the app's callbacks share: the catalogue, who measures, and who reads single tokens."""

import threading
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path

from dash import html

from layerangles.app import layout
from layerangles.app.catalogue import Catalogue
from layerangles.app.measuring import Measurer, Plan
from layerangles.app.resolved import Page, Side, resolve
from layerangles.app.sources import version_of_student
from layerangles.app.view import View
from layerangles.errors import InputError
from layerangles.measurement.token_angles import TokenReader
from layerangles.models.checkpoints import ModelCheckpoint, StudentCheckpoint, open_student

_N_SENTENCES, _TEXTS_READ = 5, 64


@dataclass(frozen=True)
class Session:
    """What the callbacks share: the catalogue, who measures, and who reads tokens."""

    catalogue: Catalogue
    measurer: Measurer
    plan: Plan
    readers: "Readers"

    def page(self, view: View) -> Page:
        """What a view shows now."""
        return resolve(view, self.catalogue.read(), self.measurer.unkept)


class Readers:
    """One reader of tokens a teacher and source; one at work at a time."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._lock = plan, threading.Lock()
        self._opened: dict[Hashable, tuple[StudentCheckpoint, ModelCheckpoint]] = {}
        self._readers: dict[tuple[str, int], TokenReader] = {}

    def sentences(self, side: Side, page: Page) -> html.Div:
        """The extreme tokens of a checkpoint in their texts.

        Raises:
            InputError: its weights or its texts are not to be had, or a token has no angle in this space.
        """
        view, entry = page.view, side.entry
        if side.sight.data is None or side.sight.absence or entry is None:
            raise InputError(side.sight.absence or "nothing is shown")
        if view.way not in ("teacher", "pull"):
            raise InputError(f"single tokens are shown in teacher and pull space, not in {view.way}")
        directory = entry.student.directory
        if directory is None:
            raise InputError("tokens need the student's weights, and only its angles are here")
        if view.low is None or view.high is None or view.low == view.high:
            raise InputError("choose two different teacher layers")
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
                view.tower,  # type: ignore[arg-type]  # the page has chosen one that is there
                int(view.layer or 0),
                (view.low, view.high),
                view.way,  # type: ignore[arg-type]
            )
            ends = [reader.sentences(angles, _N_SENTENCES, largest=largest) for largest in (False, True)]
        return layout.sentences(side.sight, *ends)

    def _open(self, directory: Path, step: int | None) -> tuple[StudentCheckpoint, ModelCheckpoint]:
        """A student at a step, and its teacher; once, since both are known by the hash of all their weights."""
        key = directory, step, version_of_student(directory)
        if key not in self._opened:
            student = open_student(directory, self._plan.trust_remote_code)
            checkpoint = next((one for one in student.checkpoints() if one.step == step), student)
            self._opened[key] = checkpoint, student.open_teacher()
        return self._opened[key]
