"""A result is read as it was saved, joined only with its like, and summarised in tables."""

import gc
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from toys.models import write_student
from toys.studies import ToyStudy

from layerangles import AngleResult, InputError, measure_angles
from layerangles.results.angle_result import SCHEMA_VERSION
from layerangles.results.netcdf import read_dataset, student_names

N_LAYERS = 5


@pytest.fixture(scope="module")
def stepped(study_with_steps: list[Path], study: ToyStudy) -> AngleResult:
    """Students with different checkpoints, so that some of student × step is not there."""
    return measure_angles(study_with_steps, study.texts, steps=True, device="cpu")


@pytest.fixture(scope="module")
def parts(study: ToyStudy) -> list[AngleResult]:
    return [measure_angles(path, study.texts, device="cpu") for path in (study.identity, study.deeper)]


def _with_attribute(result: AngleResult, key: str, value: object) -> AngleResult:
    return AngleResult(result.dataset.assign_attrs({key: value}))


# --- save and load --------------------------------------------------------------------------------------------


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
    assert result != _with_attribute(result, "data_sha256", "other")
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


def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(
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


def test_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "no-such.nc", tmp_path):
        with pytest.raises(InputError, match=r"is not a file\. Give a result written by `layerangles angles`"):
            AngleResult.load(path)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # h5netcdf's destructor, when scribbled
@pytest.mark.parametrize("damage", ["cut short", "no netCDF", "empty", "scribbled over", "scribbled at the end"])
def test_a_damaged_file(result: AngleResult, tmp_path: Path, damage: str) -> None:
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
def test_a_file_of_another_version(result: AngleResult, tmp_path: Path, version: int | None) -> None:
    dataset = result.dataset.copy()
    if version is None:
        del dataset.attrs["schema_version"]
    else:
        dataset.attrs["schema_version"] = version
    path = AngleResult(dataset).save(tmp_path / "angles.nc")
    with pytest.raises(InputError, match=rf"schema version {version}, understood is 2\. Measure again, or use the"):
        AngleResult.load(path)


def test_a_file_of_something_else(tmp_path: Path) -> None:
    xr.Dataset({"temperature": 1.0}, attrs={"schema_version": 1}).to_netcdf(tmp_path / "t.nc", engine="h5netcdf")
    with pytest.raises(InputError, match=r"t\.nc is not an angle result that this version reads"):
        AngleResult.load(tmp_path / "t.nc")


# --- join -----------------------------------------------------------------------------------------------------


def test_joined_results_hold_all_students(parts: list[AngleResult], result: AngleResult, tmp_path: Path) -> None:
    joined = AngleResult.concat_students(parts)
    assert joined.students == ["identity", "deeper"]
    expected = result.dataset.sel(student=["identity", "deeper"])
    for name in ("angle_deg", "ci_low", "layer_angle_deg", "n_tokens", "histogram", "matched", "weights_sha256"):
        assert joined.dataset[name].dtype == expected[name].dtype, name
        if expected[name].dtype.kind == "f":
            np.testing.assert_allclose(joined.dataset[name], expected[name], atol=1e-9, err_msg=name)
        else:
            assert np.array_equal(joined.dataset[name], expected[name]), name
    # The shallower student's missing layer is NaN, and 0 where it is a count.
    assert joined.dataset["layer_angle_deg"].sel(student="identity", student_layer=3).isnull().all()
    assert (joined.dataset["n_tokens"].sel(student="identity", student_layer=3) == 0).all()
    assert joined.dataset.attrs == parts[0].dataset.attrs
    assert AngleResult.load(joined.save(tmp_path / "joined.nc")) == joined
    assert parts[0].students == ["identity"]


def test_joining_one_result_gives_it_back(result: AngleResult) -> None:
    assert AngleResult.concat_students([result]) == result


def test_joining_along_training(study_with_steps: list[Path], study: ToyStudy, tmp_path: Path) -> None:
    alone = [measure_angles(path, study.texts, steps=True, device="cpu") for path in study_with_steps]
    together = measure_angles(study_with_steps, study.texts, steps=True, device="cpu")
    joined = AngleResult.concat_students(alone)
    assert joined.steps == together.steps == [0, 10, 20, 30]
    for name in together.dataset.data_vars:
        if together.dataset[name].dtype.kind == "f":
            np.testing.assert_allclose(joined.dataset[name], together.dataset[name], atol=1e-9, err_msg=name)
        else:
            assert np.array_equal(joined.dataset[name], together.dataset[name]), name
    assert AngleResult.load(joined.save(tmp_path / "joined.nc")) == joined
    read = [AngleResult.load(part.save(tmp_path / f"{i}.nc")) for i, part in enumerate(alone)]
    assert AngleResult.concat_students(read) == joined


def test_nothing_to_join() -> None:
    with pytest.raises(InputError, match=r"got no results\. Give at least one"):
        AngleResult.concat_students([])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("schema_version", 3),
        ("space", "pull"),
        ("final_norm", "post"),
        ("special_tokens", "left out"),
        ("max_length", 7),
        ("precision", "bfloat16"),
        ("confidence", 0.5),
        ("teacher_weights_sha256", "abc"),
        ("tokenizer_sha256", "abc"),
        ("data_sha256", "abc"),
    ],
)
def test_results_measured_in_another_way_are_not_joined(parts: list[AngleResult], key: str, value: object) -> None:
    first, second = parts
    with pytest.raises(InputError, match=rf"not comparable: {key} is .* in one and {value!r} in another\. Measure"):
        AngleResult.concat_students([first, _with_attribute(second, key, value)])


def test_what_may_differ_between_joined_results(parts: list[AngleResult]) -> None:
    first, second = parts
    assert AngleResult.concat_students([first, _with_attribute(second, "device", "cuda")]).students == [
        "identity",
        "deeper",
    ]


def test_a_student_in_two_results(parts: list[AngleResult]) -> None:
    with pytest.raises(InputError, match=r"the student 'identity' occurs in more than one result; rename it or leave"):
        AngleResult.concat_students([*parts, parts[0]])


def test_results_with_and_without_steps(parts: list[AngleResult], stepped: AngleResult) -> None:
    with pytest.raises(InputError, match=r"some results have a step axis and some have none; .*\(at_step\)"):
        AngleResult.concat_students([parts[0], stepped])


# --- steps ----------------------------------------------------------------------------------------------------


def test_one_step_of_a_result(stepped: AngleResult, result: AngleResult) -> None:
    assert stepped.steps == [0, 10, 20, 30]
    for step in stepped.steps:
        one = stepped.at_step(step)
        assert one.steps == []
        assert one.dataset["angle_deg"].dims == result.dataset["angle_deg"].dims
        assert one.dataset["angle_deg"].equals(stepped.dataset["angle_deg"].sel(step=step))
    assert stepped.at_step() == stepped.at_step(30)
    assert result.at_step() is result
    with pytest.raises(InputError, match=r"step 5 was not measured; the steps are \[0, 10, 20, 30\]"):
        stepped.at_step(5)


# --- tables ---------------------------------------------------------------------------------------------------


def test_summary_has_one_row_a_layer_that_was_measured(result: AngleResult, study: ToyStudy) -> None:
    table = result.summary()
    assert table.index.names == ["student", "tower", "student_layer"]
    assert list(table.index) == [
        (name, "encoder", layer)
        for name, layers in (("identity", 3), ("deeper", 4), ("learned", 2))
        for layer in range(layers)
    ] + [("wide-learned", "encoder", 1), ("wide-learned", "encoder", 2)]
    assert list(table.columns) == [
        "angle_deg",
        "ci_low",
        "ci_high",
        "min_angle_deg",
        "max_angle_deg",
        "acute_fraction",
        "n_tokens",
        "n_degenerate",
    ]
    assert not table.isna().any(axis=None)
    for (name, tower, layer), row in table.iterrows():
        cell = result.dataset.sel(student=name, tower=tower, student_layer=layer)
        upper = cell["angle_deg"].values[np.triu_indices(N_LAYERS, 1)]
        # Without degenerate tokens every pair has the same number of tokens, so the mean of means is the mean.
        assert row["angle_deg"] == pytest.approx(upper.mean(), abs=1e-9)
        assert (row["min_angle_deg"], row["max_angle_deg"]) == (upper.min(), upper.max())
        assert row["ci_low"] < row["angle_deg"] < row["ci_high"]
        acute = cell["acute_fraction"].values[np.triu_indices(N_LAYERS, 1)]
        assert row["acute_fraction"] == pytest.approx(acute.mean(), abs=1e-12)
        assert row["n_tokens"] == sum(len(text.split()) + 2 for text in study.texts)
        assert row["n_degenerate"] == 0


def test_summary_along_training(stepped: AngleResult) -> None:
    table = stepped.summary()
    assert table.index.names == ["student", "step", "tower", "student_layer"]
    assert sorted({(name, step) for name, step, _, _ in table.index}) == [
        ("early", 0),
        ("early", 10),
        ("early", 20),
        ("late", 10),
        ("late", 30),
    ]
    assert len(table) == 5 * 3


def test_summary_keeps_a_layer_whose_every_token_is_degenerate(study: ToyStudy, tmp_path: Path) -> None:
    two_layers = write_student(tmp_path / "twin", study.teacher, layers=2)
    # Seen from itself, with two layers besides: pairs with the own layer are degenerate, the others are not.
    table = measure_angles(two_layers, study.texts, teacher=two_layers, device="cpu").summary()
    n_tokens = sum(len(text.split()) + 2 for text in study.texts)
    assert table["n_degenerate"].tolist() == [n_tokens] * 3
    assert table["n_tokens"].tolist() == [n_tokens] * 3
    assert (table["min_angle_deg"] == table["max_angle_deg"]).all()  # one pair is left


def test_student_means(result: AngleResult, stepped: AngleResult) -> None:
    table = result.student_means()
    assert list(table.index) == result.students
    assert table.index.name == "student"
    assert list(table.columns) == ["angle_deg", "acute_fraction"]
    by_layer = result.summary()
    for name in result.students:
        assert table.loc[name, "angle_deg"] == pytest.approx(by_layer.loc[name, "angle_deg"].mean(), abs=1e-9)
        assert table.loc[name, "acute_fraction"] == pytest.approx(by_layer.loc[name, "acute_fraction"].mean())
    along = stepped.student_means()
    assert along.index.names == ["student", "step"]
    assert list(along.index) == [("late", 10), ("late", 30), ("early", 0), ("early", 10), ("early", 20)]


def test_a_file_is_read_as_xarray_reads_it(result, tmp_path):
    path = result.save(tmp_path / "angles.nc")
    with xr.open_dataset(path, engine="h5netcdf") as opened:
        assert read_dataset(path).identical(opened.load())
    assert student_names(path, SCHEMA_VERSION) == result.students
    assert student_names(path, SCHEMA_VERSION + 1) == []
