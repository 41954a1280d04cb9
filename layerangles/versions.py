"""The versions of what numbers depend on, for the record beside them."""

import platform
from importlib.metadata import version

import layerangles

_PACKAGES = ("torch", "transformers", "numpy")


def versions() -> dict[str, str]:
    """By name: layerangles, the packages that compute, and Python."""
    return {
        "layerangles": layerangles.__version__,
        **{package: version(package) for package in _PACKAGES},
        "python": platform.python_version(),
    }
