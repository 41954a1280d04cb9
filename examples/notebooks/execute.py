"""Execute the notebooks beside this file from top to bottom and store their outputs: ``make notebooks``.

Figures are stored twice: as what plotly draws in Jupyter, and as SVG for whatever runs no scripts (GitHub, nbviewer,
the documentation). The notebooks know nothing of that; the images are added here, by one Chrome for all of them.
"""

import asyncio
import hashlib
import html
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

PLOTLY = "application/vnd.plotly.v1+json"
SVG = "image/svg+xml"
HERE = Path(__file__).parent

# For the notebook's process: no progress bars in what is stored, nor the complaint that they lack a widget; one thread,
# so that numbers come out alike; and figures as data alone.
ENVIRONMENT = {
    "PLOTLY_RENDERER": "plotly_mimetype",
    "OMP_NUM_THREADS": "1",
    "TQDM_DISABLE": "1",
    "PYTHONWARNINGS": "ignore:IProgress not found",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


def execute(path: Path, *, timeout_seconds: int = 300) -> Any:
    """The notebook with what its cells put out, run in its own directory. A cell that fails raises."""
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(
        notebook,
        timeout=timeout_seconds,
        kernel_name="python3",
        resources=where,
        record_timing=False,
        coalesce_streams=True,  # on a busy machine the text of one cell comes in several messages
    )
    client.execute(env={**os.environ, **ENVIRONMENT})
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def outputs_of(notebook: Any) -> list[Any]:
    """All outputs, in order."""
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def size_of(output: Any) -> int:
    """In bytes, as it is stored."""
    return len(json.dumps(output, ensure_ascii=False).encode())


def add_images(notebook: Any) -> None:
    """Give every figure that is there as data its SVG, too, with its caption for whoever cannot see it."""
    outputs = [output for output in outputs_of(notebook) if PLOTLY in output.get("data", {})]
    images = asyncio.run(_drawn([output.data[PLOTLY] for output in outputs]))
    for output, image in zip(outputs, images, strict=True):
        caption = output.data[PLOTLY]["layout"]["meta"]["caption"]
        output.data[SVG] = image
        output.metadata[SVG] = {"alt": html.unescape(caption)}


async def _drawn(figures: list[Any]) -> list[str]:
    import kaleido

    # Without MathJax, which kaleido would fetch from the network and wait for.
    async with kaleido.Kaleido(mathjax=False) as browser:
        images = []
        for figure in figures:
            data = {"data": figure["data"], "layout": figure["layout"]}
            size = {"width": figure["layout"].get("width", 700), "height": figure["layout"].get("height", 500)}
            image = await browser.calc_fig(data, opts={"format": "svg", "scale": 1, **size})
            images.append(_for_pages(image.decode("utf-8")))
        return images


def _for_pages(svg: str) -> str:
    """The drawing, never wider than its page; and the same text for the same figure, where plotly draws lots for names.

    Two drawings on one page must not share names all the same: they are made of the drawing's hash.
    """
    svg = re.sub(r"\btrace[0-9a-f]{6}\b", "trace", svg)
    drawn = re.search(r'id="defs-([0-9a-f]{6})"', svg)
    if drawn is not None:
        unnamed = svg.replace(drawn[1], "")
        svg = svg.replace(drawn[1], hashlib.sha256(unnamed.encode()).hexdigest()[:6])
    return svg.replace('style=""', 'style="max-width:100%;height:auto"', 1)


def main() -> None:
    """Execute the notebooks that were named, or all."""
    for path in [Path(name) for name in sys.argv[1:]] or sorted(HERE.glob("*.ipynb")):
        notebook = execute(path)
        add_images(notebook)
        nbformat.write(notebook, path)
        largest = max(map(size_of, outputs_of(notebook)), default=0)
        print(f"{path.name}: largest output {largest / 1000:.0f} kB")


if __name__ == "__main__":
    main()
