"""English messages and their Romanian translations: the gettext catalogues of Debian packages, fetched through apt."""

import io
import lzma
import re
import struct
import subprocess
import tarfile
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from kd_train.data.embedded.cache import announce, cache_dir, packages_dir
from layerangles.errors import InputError

APT_COMMAND = ("apt-get",)
PACKAGES = (
    "binutils-common",
    "evolution-common",
    "evolution-data-server-common",
    "gimp-data",
    "gnucash-common",
    "libglib2.0-data",
    "libgtk-3-common",
    "libreoffice-l10n-ro",
    "pidgin-data",
    "vlc-l10n",
)
MIN_PAIRS = 5000

_MEGABYTES = 48
_CATALOGUE = re.compile(r"(?:^|/)ro/LC_MESSAGES/([\w.+-]+)\.mo$")
_AR_MAGIC, _AR_HEADER = b"!<arch>\n", 60

# The mark before the letter that is the key of a menu entry: LibreOffice, GTK, Qt.
_ACCELERATOR = re.compile(r"~(?=\w)|(?<!\w)[_&](?=\w)")
# Placeholders, markup, paths and code, which are no language.
_NOT_PROSE = re.compile(r"[%{}<>$\\|#@=~_&*\[\]^`]|://|--|/\w+/|&\w+;")
# Written with a cedilla in old catalogues, where Romanian has a comma below.
_CEDILLAS = str.maketrans("şţŞŢ", "șțȘȚ")


def fetch_catalogues(into: Path) -> dict[str, str]:
    """Write the Romanian catalogues of all packages into a directory, as ``<package>.<domain>.mo``.

    The packages come from ``$LAYERANGLES_PACKAGES``, whatever their version, else through ``apt-get download``, which
    needs no root and checks Debian's signatures itself. Nothing is installed, and nothing but the catalogues unpacked.

    Returns:
        The file name of every package, with its version.

    Raises:
        InputError: packages cannot be had, or hold too few translations; the message says how to go on.
    """
    with TemporaryDirectory(dir=into.parent, prefix=".debian.download.") as scratch:
        found = _obtain(Path(scratch))
        for package, path in found.items():
            for domain, content in _catalogues(path):
                (into / f"{package}.{domain}.mo").write_bytes(content)
    n_pairs = len(clean_pairs(read_messages(into)))
    if n_pairs < MIN_PAIRS:
        raise InputError(
            f"english-romanian: {', '.join(path.name for path in found.values())} hold {n_pairs} usable translations, "
            f"expected are {MIN_PAIRS} and more. Ubuntu takes them out of its packages: download those of Debian, and "
            "let the environment variable LAYERANGLES_PACKAGES name the folder with the .deb files."
        )
    return {package: path.name for package, path in found.items()}


def read_messages(folder: Path) -> Iterator[tuple[str, str]]:
    """Message and translation, by catalogue in the order of their names."""
    for path in sorted(folder.glob("*.mo")):
        yield from parse_catalogue(path)


def parse_catalogue(path: Path) -> Iterator[tuple[str, str]]:
    """Message and translation of a catalogue (``.mo``), each in its singular form.

    The standard library's ``gettext`` looks single messages up; it has no public way to list them.

    Raises:
        InputError: it is not a catalogue in UTF-8.
    """
    content = path.read_bytes()
    try:
        order = {0x950412DE: "<", 0xDE120495: ">"}[struct.unpack_from("<I", content)[0]]
        count, originals, translations = struct.unpack_from(f"{order}3I", content, 8)
        for i in range(count):
            both = []
            for table in (originals, translations):
                length, start = struct.unpack_from(f"{order}2I", content, table + 8 * i)
                both.append(content[start : start + length].decode("utf-8"))
            # "context EOT message NUL plural" → "message"; the header is the translation of the empty message.
            message = both[0].rpartition("\4")[2].partition("\0")[0]
            if message:
                yield message, both[1].partition("\0")[0]
    except (KeyError, struct.error, UnicodeDecodeError) as error:
        raise InputError(f"{path.name} is not a gettext catalogue in UTF-8 ({error}).") from error


def clean_pairs(messages: Iterable[tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """Translated sentences of 4 to 30 words, by what tells two English ones apart: their words in lower case.

    Messages with placeholders, markup, paths or code are left out, and so are untranslated ones and those of which one
    side is more than twice as long as the other. Menu keys go. The first translation of a message is kept.
    """
    pairs: dict[str, tuple[str, str]] = {}
    for message, translation in messages:
        english, romanian = _prose(message), _prose(translation)
        lengths = sorted((len(english.split()), len(romanian.split())))
        if lengths[0] < 4 or lengths[1] > min(30, 2 * lengths[0]) or english == romanian:
            continue
        if _is_prose(english) and _is_prose(romanian):
            pairs.setdefault(" ".join(re.findall(r"\w+", english.casefold())), (english, romanian))
    return pairs


def _prose(text: str) -> str:
    text = unicodedata.normalize("NFC", text).translate(_CEDILLAS)
    return " ".join(_ACCELERATOR.sub("", text).split())


def _is_prose(text: str) -> bool:
    letters = sum(character.isalpha() for character in text)
    return not _NOT_PROSE.search(text) and letters >= 0.7 * len(text.replace(" ", ""))


def _obtain(scratch: Path) -> dict[str, Path]:
    """The file of every package: a local copy, else by apt."""
    tried: list[str] = []
    found: dict[str, Path] = {}
    if packages := packages_dir():
        for package in PACKAGES:
            files = sorted(packages.glob(f"{package}_*.deb"))
            if len(files) > 1:
                raise InputError(
                    f"{packages} holds {package} in several versions: {', '.join(file.name for file in files)}. "
                    "Keep one of them; LAYERANGLES_PACKAGES led there."
                )
            found.update((package, file) for file in files)
        absent = [f"{package}_*.deb" for package in PACKAGES if package not in found]
        if absent:
            tried.append(f"LAYERANGLES_PACKAGES={packages}: no {', '.join(absent)} in it")
    missing = [package for package in PACKAGES if package not in found]
    if missing:
        announce(f"Fetching english-romanian ({_MEGABYTES} MB) through apt, once")
        failure = _apt_download(missing, scratch)
        found |= {package: file for package in missing for file in scratch.glob(f"{package}_*.deb")}
        still_missing = [package for package in PACKAGES if package not in found]
        if still_missing:
            tried.append(f"apt-get download {' '.join(missing)}: {failure or 'no ' + ', '.join(still_missing)}")
            raise InputError(
                f"english-romanian ({_MEGABYTES} MB) is taken from Debian packages and could not be fetched. Tried:\n"
                + "".join(f"  {line}\n" for line in tried)
                + "On a Debian with a network, run `apt-get update` as root, then `apt-get download "
                f"{' '.join(PACKAGES)}`, and let the environment variable LAYERANGLES_PACKAGES name the folder with "
                "the .deb files, of any version; or let LAYERANGLES_CACHE name a copy of another machine's cache, "
                f"which is {cache_dir()} here."
            )
    return {package: found[package] for package in PACKAGES}


def _apt_download(packages: list[str], scratch: Path) -> str:
    """Download into ``scratch``; the reason if it failed, else nothing."""
    command = (*APT_COMMAND, "--quiet", "download", *packages)
    try:
        done = subprocess.run(
            command, cwd=scratch, capture_output=True, text=True, encoding="utf-8", errors="replace", check=False
        )
    except OSError as error:
        return str(error)
    if done.returncode == 0:
        return ""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("E:")]
    return (errors or lines or [f"apt-get left with exit code {done.returncode} and no message"])[0]


def _catalogues(path: Path) -> Iterator[tuple[str, bytes]]:
    """Domain and bytes of the Romanian catalogues in a package.

    Read by the standard library, since the ``.deb`` may lie on a machine without Debian's tools: an ``ar`` archive
    whose member ``data.tar.*`` holds the files. No name in it becomes a path.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(_data_member(path.read_bytes()))) as tar:
            for member in tar:
                match = _CATALOGUE.search(member.name)
                if match and member.isfile() and (content := tar.extractfile(member)) is not None:
                    yield match[1], content.read()
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} cannot be read as a Debian package: {reason}. Replace or remove it.") from error


def _data_member(package: bytes) -> bytes:
    """The bytes of ``data.tar.*`` in an ``ar`` archive."""
    if not package.startswith(_AR_MAGIC):
        raise ValueError("it is no ar archive")
    start = len(_AR_MAGIC)
    while start + _AR_HEADER <= len(package):
        header = package[start : start + _AR_HEADER]
        name, size = header[:16].decode("latin-1").strip().rstrip("/"), int(header[48:58])
        content = package[start + _AR_HEADER : start + _AR_HEADER + size]
        if name.startswith("data.tar"):
            if len(content) < size:
                raise ValueError(f"{name} is cut short")
            if name.endswith(".zst"):
                raise ValueError(f"{name} is compressed with Zstandard, which Debian does not use")
            return content
        # Members begin at even offsets.
        start += _AR_HEADER + size + size % 2
    raise ValueError("it has no data.tar")
