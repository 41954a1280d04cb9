"""``layerangles env``: installed versions and devices, for a bug report or a paper's appendix."""

from typing import Annotated

import typer

from .output import print_json

_PACKAGES = (
    "torch",
    "transformers",
    "accelerate",
    "datasets",
    "numpy",
    "scipy",
    "xarray",
    "plotly",
    "kaleido",
    "typer",
)


def env(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print versions, device, threads, the cache, and the Chrome that writes static images.

    Example: layerangles env --json
    """
    content = _environment()
    if as_json:
        print_json(content)
        return
    width = max(map(len, content))
    for name, value in content.items():
        typer.echo(f"{name:<{width}}  {value}")


def _environment() -> dict[str, str]:
    import os
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import torch
    from accelerate import PartialState

    import layerangles
    from kd_train.data.embedded import cache_dir
    from layerangles.figures.drawing.export import find_chrome

    def installed(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "not installed"

    return {
        "layerangles": layerangles.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{package: installed(package) for package in _PACKAGES},
        "device": str(PartialState().device),
        "threads": str(torch.get_num_threads()),
        "cores": str(os.cpu_count()),
        "cache": str(cache_dir()),
        "chrome (for --png, --svg, --pdf)": find_chrome() or "not found",
    }
