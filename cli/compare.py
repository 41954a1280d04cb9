"""``layerangles compare``: two checkpoints side by side, in a browser."""

import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options

if TYPE_CHECKING:
    from layerangles.app.sources import Source
    from layerangles.models.texts import Text


def compare(
    paths: Annotated[list[Path], typer.Argument(help="Studies, student directories, or result files (.nc).")],
    data: Annotated[
        Path | None, typer.Option(help="Texts to measure on, for students of no study: a file, see `angles --data`.")
    ] = None,
    texts: Annotated[int, typer.Option(min=2, help="How many texts students are measured on, on demand.")] = 200,
    host: Annotated[
        str | None, typer.Option(help="Bind to this address or name, and answer to it. By default this machine alone.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for one that is free.")] = 8050,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser.")] = True,
    max_length: Annotated[int, typer.Option(min=2, help="Tokens after which a text is cut.")] = 128,
    device: options.Device = "auto",
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Compare checkpoints in a browser: heat maps, their difference, histograms, tokens, scores.

    Students without angles are measured on demand, and the result is kept in their directory. Ends with Ctrl-C.

    Example: layerangles compare runs/movie-reviews

    Example: layerangles compare runs/a/students/forward-seed0 runs/a/students/none-seed0 angles.nc
    """
    from layerangles.extras import require_extra

    require_extra("app", "the app", alternative="write a page with `layerangles report`")
    address = host or "127.0.0.1"
    port = _free(address, port)
    sources = _sources(paths, data)
    from layerangles.app.catalogue import Catalogue
    from layerangles.app.measuring import MeasuringPlan
    from layerangles.app.server import create_app, serve

    catalogue = Catalogue(sources)
    plan = MeasuringPlan(n_texts=texts, max_length=max_length, device=device, trust_remote_code=trust_remote_code)
    hosts = ("127.0.0.1", "localhost", "[::1]", *([host] if host else []))
    app = create_app(catalogue, plan, hosts=hosts)
    url = f"http://{address}:{port}/"
    typer.echo(f"{len(catalogue.read().entries)} students at {url} (Ctrl-C ends it)")
    if browser:
        import webbrowser

        webbrowser.open(url)
    serve(app, address, port)


def _free(host: str, port: int) -> int:
    """The port, or a free port for 0.

    Raises:
        InputError: it cannot be bound.
    """
    from layerangles.errors import InputError

    try:
        with socket.create_server((host, port)) as probe:
            return int(probe.getsockname()[1])
    except OSError as error:
        raise InputError(
            f"nothing can be served at {host}:{port} ({error.strerror or error}). Choose another --port (0 takes a "
            "free one), or another --host."
        ) from error


def _sources(paths: Sequence[Path], data: Path | None) -> "list[Source]":
    """A source per study, per file, and per group of student directories with the same texts."""
    from kd_train.outcome.opened_study import open_study
    from kd_train.study.study_file import RESOLVED_FILE, study_folder_of
    from layerangles.app.sources import ResultFile, StudentDirectories
    from layerangles.errors import InputError
    from layerangles.models.matching_file import MATCHING_FILE

    sources: list[Source] = []
    students = []
    for path in dict.fromkeys(paths):
        if path.is_file():
            sources.append(ResultFile(path))
        elif (path / RESOLVED_FILE).is_file():
            sources.append(open_study(path))
        elif (path / MATCHING_FILE).is_file():
            students.append(path)
        else:
            raise InputError(
                f"{path} is nothing that can be compared. Give a study's directory (with {RESOLVED_FILE}), a student's "
                f"(with {MATCHING_FILE}), or a result file that `layerangles angles` wrote."
            )
    by_study: dict[Path | None, list[Path]] = {}
    for student in students:
        by_study.setdefault(None if data is not None else study_folder_of(student), []).append(student)
    for folder, some in by_study.items():
        sources.append(StudentDirectories(some, partial(_texts, folder, data)))
    return sources


def _texts(folder: Path | None, data: Path | None) -> "Sequence[Text]":
    from kd_train.data.tables import read_file
    from kd_train.study.study_file import read_study
    from layerangles.app.sources import no_texts

    if data is not None:
        return read_file(data).texts("text")
    return no_texts() if folder is None else read_study(folder).task.load().texts("dev")
