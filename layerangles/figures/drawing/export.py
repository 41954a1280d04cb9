"""Export of figures to self-contained HTML files and static images."""

import html
import os
import re
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.io import to_html
from plotly.offline import get_plotlyjs

from layerangles.errors import InputError
from layerangles.extras import require_extra
from layerangles.files import atomic_write, check_absent

# plotly.js 4 has a button that sends the data to Plotly's server, which nobody expects of these files.
CONFIG: dict[str, Any] = {
    "displaylogo": False,
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"],
    "toImageButtonOptions": {"format": "svg", "filename": "angles"},
}

_FORMATS = (".png", ".svg", ".pdf")
_SECONDS = 90

# Kaleido prints PDFs with margins of 0.1 inch on pages that are no larger for it: a figure would be smaller, by a
# fifteenth in one column of a paper, and lose its lower edge.
_NO_MARGIN = "<style>@page { margin: 0 } img { display: block }</style>"

_CSS = "body { margin: 16px; background: white; overflow-x: auto; }"

# The policy enforces that no network is needed: a browser refuses to load anything. Plotly's WebGL traces, which a
# caller may pass to a page, compile their shaders with `Function`, hence unsafe-eval.
_DOCUMENT = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval';\
 style-src 'unsafe-inline'; img-src data: blob:; font-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{css}</style>
<script>window.PlotlyConfig = {{MathJaxConfig: "local"}};</script>
<script>{plotlyjs}</script>
</head>
<body>
{body}
</body>
</html>
"""


def write_html(figure: go.Figure, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write a figure as one interactive HTML file (about 5 MB) that opens from disk without a network.

    Raises:
        InputError: ``path`` does not end in ``.html``, or exists and ``overwrite`` is false.
    """
    if Path(path).suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{path} ends in {Path(path).suffix!r}; an interactive figure is written to .html.")
    check_absent(path, overwrite=overwrite)
    text = document(plain_title(figure), fragment(figure, "figure-1"), _CSS)
    with atomic_write(path, overwrite=overwrite) as beside:
        beside.write_text(text, encoding="utf-8")
    return Path(path)


def write_image(
    figure: go.Figure,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    width: int | None = None,
    height: int | None = None,
    scale: float = 2.0,
) -> Path:
    """Write a figure as a static image: ``.png``, ``.svg`` or ``.pdf``, by the suffix. It takes some seconds.

    Args:
        figure: any plotly figure.
        path: the file.
        overwrite: whether an existing file may be replaced.
        width: in layout pixels; the figure's own by default.
        height: in layout pixels; the figure's own by default.
        scale: pixels of a PNG per layout pixel; without effect on other formats.

    Raises:
        InputError: another suffix, a file that exists, or kaleido or Chrome is missing.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _FORMATS:
        raise InputError(f"{path} ends in {suffix!r}; static images are written to {', '.join(_FORMATS)}.")
    check_absent(path, overwrite=overwrite)
    layout = figure.layout
    size = float(width or layout.width or 700), float(height or layout.height or 500)
    options = {"format": suffix[1:], "width": size[0], "height": size[1], "scale": scale if suffix == ".png" else 1}
    image = _rendered(figure, options)
    if suffix == ".pdf":
        image = _of_exact_size(image, 0.75 * size[0], 0.75 * size[1])
    with atomic_write(path, overwrite=overwrite) as beside:
        beside.write_bytes(image)
    return Path(path)


def find_chrome() -> str | None:
    """The path of Chrome or Chromium for static images; None without a browser or without kaleido."""
    try:
        from choreographer.browsers.chromium import Chromium
    except ImportError:
        return None
    found = os.environ.get("BROWSER_PATH") or Chromium.find_browser(skip_local=False)
    return str(found) if found else None


def require_image_export() -> None:
    """Check, before any long work, that a static image can be written at its end.

    Raises:
        InputError: kaleido or Chrome is missing; the message says what to install.
    """
    require_extra("export", "a static image", alternative="write an .html file")
    if find_chrome() is None:
        raise InputError(_no_chrome("is not found"))


def _no_chrome(what: str) -> str:
    given = os.environ.get("BROWSER_PATH")
    tried = f" BROWSER_PATH is {given!r}." if given else ""
    return (
        f"static images need Chrome or Chromium, which {what}.{tried} Install one, or run `plotly_get_chrome`, or "
        "set the environment variable BROWSER_PATH to its program file; or write an .html file."
    )


def _rendered(figure: go.Figure, options: dict[str, Any]) -> bytes:
    """The bytes of the image; Chrome runs for this call only."""
    require_image_export()
    import kaleido
    from choreographer.errors import BrowserDepsError, BrowserFailedError, ChromeNotFoundError

    try:
        # Without MathJax, which kaleido would fetch from the network; plotly's own wrapper has no option for it.
        page = kaleido.PageGenerator(mathjax=False)
        page.header += _NO_MARGIN
        image: bytes = kaleido.calc_fig_sync(
            figure.to_dict(), opts=options, kopts={"page_generator": page, "timeout": _SECONDS}
        )
    except ChromeNotFoundError as error:
        raise InputError(_no_chrome("is not found")) from error
    except (BrowserDepsError, BrowserFailedError) as error:
        raise InputError(_no_chrome("does not start")) from error
    return image


def _of_exact_size(pdf: bytes, width_pt: float, height_pt: float) -> bytes:
    """The PDF with a page of exactly this size: Chrome rounds the page, but not the drawing on it, by up to 0.7 pt."""

    def box(found: re.Match[bytes]) -> bytes:
        # A PDF refers to positions in bytes, so that the text has to keep its length.
        heights = f"{height_pt:.6g}".encode(), found["height"]
        exact = [b"/MediaBox [0 0 %s %s]" % (f"{width_pt:.6g}".encode(), height) for height in heights]
        fitting = [one.ljust(len(found[0])) for one in exact if len(one) <= len(found[0])]
        return fitting[0] if fitting else found[0]

    return re.sub(rb"/MediaBox \[0 0 [\d.]+ (?P<height>[\d.]+)\]", box, pdf, count=1)


def fragment(figure: go.Figure, div_id: str) -> str:
    """The HTML of one figure, for a document of :func:`document`; ``div_id`` must be unique in it."""
    text: str = to_html(figure, config=CONFIG, include_plotlyjs=False, full_html=False, div_id=div_id)
    return text


def document(title: str, body: str, css: str) -> str:
    """An HTML document with one copy of plotly.js; ``title`` is plain text, ``body`` and ``css`` go in verbatim."""
    return _DOCUMENT.format(title=html.escape(title), css=css, plotlyjs=get_plotlyjs(), body=body)


def plain_title(figure: go.Figure) -> str:
    """A figure's title as text, without plotly's tags."""
    title = re.sub(r"<[^>]*>", " ", figure.layout.title.text or "figure")
    return html.unescape(title)
