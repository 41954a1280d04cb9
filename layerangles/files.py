"""Files written whole or not at all, and files read once."""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError

from layerangles.errors import InputError, RunError

Content = TypeVar("Content")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def atomic_write(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a path beside ``path`` to write a file or a directory to; rename it into place at the end.

    If the body raises, what was written is removed and whatever stood at ``path`` stays as it was.

    Raises:
        InputError: ``path`` exists and ``overwrite`` is false.
    """
    target = Path(path)
    check_absent(target, overwrite=overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last, since writers choose their format by it.
    beside = target.with_name(f".{target.stem}.{os.getpid()}.partial{target.suffix}")
    try:
        yield beside
        if target.is_dir() and not target.is_symlink():
            # A directory cannot be replaced in one rename; the old one steps aside first.
            old = target.with_name(f".{target.name}.{os.getpid()}.old")
            target.rename(old)
            beside.rename(target)
            shutil.rmtree(old)
        else:
            beside.replace(target)
    finally:
        if beside.is_dir():
            shutil.rmtree(beside)
        else:
            beside.unlink(missing_ok=True)


@contextmanager
def full_disk_reported(folder: Path) -> Iterator[None]:
    """Turn a full disk, within the block, into a :class:`RunError` that says how to go on."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        # safetensors passes the system's words on, but not its number.
        if getattr(error, "errno", None) not in _FULL and not any(os.strerror(n) in str(error) for n in _FULL):
            raise
        raise RunError(
            f"the disk is full: {error}. Nothing half-written is left in {folder}, and what was finished before is "
            "whole. Free some space, and go on with --resume."
        ) from error


def check_absent(path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Raise before any work is done if ``path`` exists and may not be replaced."""
    if Path(path).exists() and not overwrite:
        raise InputError(f"{path} exists already. Choose another path, or replace it with overwrite (--overwrite).")


def sha256_of_file(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def version_of(path: Path) -> Hashable:
    """A value that differs after a file was written, or removed; None if there is no such file."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


class FileCache:
    """The contents of files, each read at its first use and again only after it changed."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[Hashable, Any]] = {}

    def read(self, path: Path, reader: Callable[[Path], Content]) -> Content:
        """The content of a file, as this reader (one per file) makes it."""
        version = version_of(path)  # before reading, so that what is written meanwhile is read the next time
        if path not in self._known or self._known[path][0] != version:
            self._known[path] = version, reader(path)
        content: Content = self._known[path][1]
        return content
