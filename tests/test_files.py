"""A file or a directory is written whole or not at all, and never replaced unasked."""

from pathlib import Path

import pytest

from layerangles.errors import InputError
from layerangles.files import atomic_write, check_absent


def _fail_halfway(target: Path) -> None:
    with atomic_write(target, overwrite=True) as beside:
        if target.is_dir():
            beside.mkdir()
            (beside / "half").touch()
        else:
            beside.write_text("half")
        raise RuntimeError("in the middle")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.txt"
    with atomic_write(target) as beside:
        beside.write_text("old")
        assert not target.exists()
        assert beside.suffix == ".txt"
    with pytest.raises(InputError, match=r"file\.txt exists already"), atomic_write(target):
        pass
    with pytest.raises(RuntimeError, match="in the middle"):
        _fail_halfway(target)
    assert target.read_text() == "old"
    with atomic_write(target, overwrite=True) as beside:
        beside.write_text("new")
    assert target.read_text() == "new"
    assert [file.name for file in target.parent.iterdir()] == ["file.txt"]


def test_a_directory_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    with atomic_write(target) as beside:
        beside.mkdir()
        (beside / "old").touch()
    with pytest.raises(RuntimeError, match="in the middle"):
        _fail_halfway(target)
    assert [file.name for file in target.iterdir()] == ["old"]
    with atomic_write(target, overwrite=True) as beside:
        beside.mkdir()
        (beside / "new").touch()
    assert [file.name for file in target.iterdir()] == ["new"]
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


def test_what_exists_is_refused_before_any_work(tmp_path: Path) -> None:
    check_absent(tmp_path / "nothing")
    check_absent(tmp_path, overwrite=True)
    with pytest.raises(InputError, match=r"exists already\. Choose another path"):
        check_absent(tmp_path)
