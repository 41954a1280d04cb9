"""The version of this package, and of the packages that numbers depend on."""

import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("torch", "transformers", "numpy")

try:
    VERSION = version("layerangles")
except PackageNotFoundError:  # a source tree that is not installed
    VERSION = "0+unknown"


def versions() -> dict[str, str]:
    """Versions by name: layerangles, the packages that compute, and Python."""
    return {
        "layerangles": VERSION,
        **{package: version(package) for package in _PACKAGES},
        "python": platform.python_version(),
    }
