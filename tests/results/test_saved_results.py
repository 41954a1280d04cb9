"""A result is read as it was saved; files that are no results are refused."""

import gc
from pathlib import Path

import pytest
import xarray as xr

from layerangles import AngleResult, InputError
from layerangles.results.angle_result import SCHEMA_VERSION
from layerangles.results.netcdf import read_dataset, student_names


@pytest.mark.parametrize("which", ["result", "stepped", "one_step"])
def test_a_result_is_read_as_it_was_saved(
    which: str, result: AngleResult, stepped: AngleResult, tmp_path: Path
) -> None:
    saved = {"result": result, "stepped": stepped, "one_step": stepped.at_step(10)}[which]
    path = tmp_path / "deep" / "angles.nc"
    assert saved.save(path) == path
    loaded = AngleResult.load(path)
    assert loaded == saved
    assert loaded.dataset.identical(saved.dataset)
    for name, variable in saved.dataset.variables.items():
        assert loaded.dataset[name].dtype.kind.replace("U", "O") == variable.dtype.kind.replace("U", "O"), name
        assert loaded.dataset[name].dims == variable.dims, name
    assert loaded.dataset.attrs == saved.dataset.attrs
    assert loaded.save(tmp_path / "again.nc").exists()  # the file is closed, and what was read can be saved
    assert AngleResult.load(tmp_path / "again.nc") == saved


def test_results_that_differ_are_not_equal(result: AngleResult) -> None:
    assert result == AngleResult(result.dataset.copy(deep=True))
    assert result != AngleResult(result.dataset.assign(angle_deg=result.dataset["angle_deg"] + 1e-9))
    assert result != AngleResult(result.dataset.assign_attrs(data_sha256="other"))
    assert result != "result"
    with pytest.raises(TypeError, match="unhashable"):
        hash(result)


def test_an_existing_file_is_replaced_only_when_asked(
    result: AngleResult, parts: list[AngleResult], tmp_path: Path
) -> None:
    path = parts[0].save(tmp_path / "angles.nc")
    with pytest.raises(InputError, match=r"angles\.nc exists already\. Choose another path, or .*overwrite"):
        result.save(path)
    assert AngleResult.load(path) == parts[0]
    result.save(path, overwrite=True)
    assert AngleResult.load(path) == result


def test_a_failed_save_keeps_the_old_file_and_leaves_nothing_else(
    result: AngleResult, parts: list[AngleResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = parts[0].save(tmp_path / "angles.nc")
    whole = path.read_bytes()

    def fail(_dataset: xr.Dataset, target: Path, **_options: object) -> None:
        Path(target).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(xr.Dataset, "to_netcdf", fail)
    for target in (path, tmp_path / "new.nc"):
        with pytest.raises(OSError, match="No space left"):
            result.save(target, overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == ["angles.nc"]
    assert path.read_bytes() == whole


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "no-such.nc", tmp_path):
        with pytest.raises(InputError, match=r"is not a file\. Give a result written by `layerangles angles`"):
            AngleResult.load(path)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # h5netcdf's destructor, when scribbled
@pytest.mark.parametrize("damage", ["cut short", "no netCDF", "empty", "scribbled over", "scribbled at the end"])
def test_a_damaged_file_is_refused(result: AngleResult, tmp_path: Path, damage: str) -> None:
    path = result.save(tmp_path / "angles.nc")
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(
        {
            "cut short": whole[:middle],
            "no netCDF": b"student,angle\na,60\n",
            "empty": b"",
            "scribbled over": whole[:200] + b"\xff" * (len(whole) - 200),
            "scribbled at the end": whole[:middle] + b"\xff" * (len(whole) - middle),
        }[damage]
    )
    with pytest.raises(InputError, match=r"angles\.nc is damaged, or no netCDF file \("):
        AngleResult.load(path)
    gc.collect()


@pytest.mark.parametrize("version", [99, None])
def test_a_file_of_another_schema_version_is_refused(result: AngleResult, tmp_path: Path, version: int | None) -> None:
    dataset = result.dataset.copy()
    if version is None:
        del dataset.attrs["schema_version"]
    else:
        dataset.attrs["schema_version"] = version
    path = AngleResult(dataset).save(tmp_path / "angles.nc")
    with pytest.raises(InputError, match=rf"schema version {version}, understood is 2\. Measure again, or use the"):
        AngleResult.load(path)


def test_a_netcdf_file_of_something_else_is_refused(tmp_path: Path) -> None:
    xr.Dataset({"temperature": 1.0}, attrs={"schema_version": 1}).to_netcdf(tmp_path / "t.nc", engine="h5netcdf")
    with pytest.raises(InputError, match=r"t\.nc is not an angle result that this version reads"):
        AngleResult.load(tmp_path / "t.nc")


def test_a_file_is_read_as_xarray_reads_it(result: AngleResult, tmp_path: Path) -> None:
    path = result.save(tmp_path / "angles.nc")
    with xr.open_dataset(path, engine="h5netcdf") as opened:
        assert read_dataset(path).identical(opened.load())
    assert student_names(path, SCHEMA_VERSION) == result.students
    assert student_names(path, SCHEMA_VERSION + 1) == []
