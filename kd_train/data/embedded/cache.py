"""The cache: one directory for each model and data set, complete or absent even while other processes write."""

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from filelock import FileLock

from layerangles.errors import InputError
from layerangles.files import atomic_write

Kind = Literal["models", "datasets"]
MANIFEST = "embedded.json"

_log = logging.getLogger(__name__)


def cache_dir() -> Path:
    """The folder of the cache: ``$LAYERANGLES_CACHE``, by default ``~/.cache/layerangles``."""
    chosen = os.environ.get("LAYERANGLES_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "layerangles"


def packages_dir() -> Path | None:
    """The folder with local copies of packages, ``$LAYERANGLES_PACKAGES``; None if it is not set."""
    chosen = os.environ.get("LAYERANGLES_PACKAGES")
    return Path(chosen).expanduser() if chosen else None


def kept(kind: Kind, name: str, faults: Callable[[Path], list[str]], make: Callable[[Path], None]) -> Path:
    """The directory ``<cache>/<kind>/<name>``, written first unless it exists without faults.

    Args:
        kind: folder of the cache.
        name: directory in that folder.
        faults: returns the faults of a directory; empty if it can be used.
        make: fills an empty directory, which is renamed into place once it is complete.

    Raises:
        InputError: raised by ``make``, or the cache cannot be written to.
    """
    target = cache_dir() / kind / name
    try:
        if not faults(target):
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        # Another process may be fetching the same files: wait for it, and check again.
        with FileLock(target.with_name(f".{name}.lock")):
            found = faults(target)
            if found:
                if target.exists():
                    _log.warning("%s is damaged (%s); it is made again", target, "; ".join(found))
                with atomic_write(target, overwrite=True) as beside:
                    beside.mkdir(exist_ok=True)
                    make(beside)
    except OSError as error:
        raise InputError(
            f"{name} cannot be put into the cache {cache_dir()}: {error}. "
            "Choose a folder that can be written to with the environment variable LAYERANGLES_CACHE."
        ) from error
    return target


def write_manifest(folder: Path, recipe: str) -> None:
    """Record the recipe and the file sizes of a directory in its manifest."""
    files = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    content = {"recipe": recipe, "files": files}
    (folder / MANIFEST).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def manifest_faults(folder: Path, recipe: str) -> list[str]:
    """Differences between a directory and its manifest, or between the manifest's recipe and the present one.

    Sizes are compared, not hashes: the files were written here and renamed into place at once, and hashing half a
    gigabyte of weights at every use would be slow.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        made_by, files = manifest["recipe"], dict(manifest["files"])
    except FileNotFoundError:
        return [f"{MANIFEST} is missing"]
    except (ValueError, KeyError, TypeError):
        return [f"{MANIFEST} cannot be read"]
    if made_by != recipe:
        return [f"it was made by the recipe {made_by}, the present one is {recipe}"]
    faults = []
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            faults.append(f"{name} is missing")
        elif (found := path.stat().st_size) != expected:
            faults.append(f"{name} has {found} bytes, expected are {expected}")
    return faults


def announce(text: str) -> None:
    """Print one line on standard error if it is a terminal, before work for which the user has to wait."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)
