"""``layerangles.compare``: two checkpoints side by side in a notebook, as a widget or as the app itself."""

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerangles.app.sources import InMemory, ResultFile, Source, StudentDirectories
from layerangles.app.widget import widget
from layerangles.errors import InputError
from layerangles.extras import require_extra
from layerangles.models.matching_file import MATCHING_FILE
from layerangles.results.angle_result import AngleResult

if TYPE_CHECKING:
    from layerangles.app.measuring import MeasuringPlan


Comparable = AngleResult | str | os.PathLike[str] | Source


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` gives. A notebook shows it as a widget that needs no server, and so does nbviewer.

    Attributes:
        sources: where the students come from.
        html: the widget, below 200 kB.
    """

    sources: tuple[Source, ...]
    html: str = field(repr=False)

    def _repr_html_(self) -> str:
        return self.html

    def app(self, *, port: int = 0, height: int = 1000, plan: "MeasuringPlan | None" = None) -> Any:
        """Start the app, which can do all that ``layerangles compare`` can, on this machine, and embed it.

        It lives as long as the notebook's kernel. On a remote kernel its port must be forwarded.

        Args:
            port: where on 127.0.0.1; 0 for one that is free.
            height: of the frame, pixels.
            plan: how students are measured on demand.

        Returns:
            An ``IPython.display.IFrame``.

        Raises:
            InputError: the extra ``app`` or IPython is not installed, or there is no student.
        """
        from layerangles.app.catalogue import Catalogue
        from layerangles.app.measuring import MeasuringPlan

        require_extra("app", "the app")
        require_extra("notebooks", "the app in a notebook")
        from IPython.display import IFrame

        from layerangles.app.server import create_app, listen

        app = create_app(Catalogue(self.sources), plan or MeasuringPlan())
        server = listen(app, "127.0.0.1", port)
        threading.Thread(target=server.run, name="layerangles-compare", daemon=True).start()
        return IFrame(f"http://127.0.0.1:{server.effective_port}/", width="100%", height=height)


def compare(*what: Comparable, first: str | None = None, second: str | None = None) -> Comparison:
    """Compare checkpoints in a notebook: the angles that two students see, and their difference.

    >>> layerangles.compare(result, first="forward-seed0@0", second="forward-seed0")  # doctest: +SKIP
    >>> layerangles.compare(kd_train.open_study("runs/movie-reviews")).app()  # doctest: +SKIP

    Args:
        what: results; result files; directories of students; studies opened with ``kd_train.open_study``.
        first: the checkpoint shown first: a student's name, at its last step, or ``name@step``.
        second: the one beside it.

    Returns:
        Shown by a notebook as a widget of what was measured; its method ``app`` starts the app.

    Raises:
        InputError: nothing was given, or something that cannot be compared; or ``first`` or ``second`` names nothing
            that was measured.
    """
    if not what:
        raise InputError("nothing was given to compare. Give results, result files, student directories, or studies.")
    sources = tuple(_source(one) for one in what)
    results = _results(sources)
    if results:
        return Comparison(sources, widget(results, first, second))
    if first is not None or second is not None:
        raise InputError("nothing was measured of these students yet. Call measure_angles first, or start the app().")
    names = ", ".join(student.name for source in sources for student in source.students())
    return Comparison(sources, f"<p>Nothing was measured of {names} yet; <code>.app()</code> measures on demand.</p>")


def _results(sources: Sequence[Source]) -> list[AngleResult]:
    """Each once, though every student of a result names it."""
    found = (result for source in sources for student in source.students() for result in student.results)
    return list({id(result): result for result in found}.values())


def _source(one: Comparable) -> Source:
    if isinstance(one, AngleResult):
        return InMemory(one)
    if isinstance(one, Source):
        return one
    if not isinstance(one, str | os.PathLike):
        raise InputError(
            f"a {type(one).__name__} cannot be compared. Give results, result files, student directories, or studies "
            "opened with kd_train.open_study."
        )
    path = Path(one)
    if path.is_file():
        return ResultFile(path)
    if (path / MATCHING_FILE).is_file():
        return StudentDirectories([path])
    raise InputError(
        f"{path} is neither a result file nor a student's directory (with {MATCHING_FILE}). Open a study with "
        "kd_train.open_study, and give that."
    )
