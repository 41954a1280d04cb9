"""Results of different students are put together if they were measured in the same way on the same thing."""

from pathlib import Path

import numpy as np
import pytest
from toys.studies import ToyStudy

from layerangles import AngleResult, InputError, measure_angles


def _with_attribute(result: AngleResult, key: str, value: object) -> AngleResult:
    return AngleResult(result.dataset.assign_attrs({key: value}))


def test_joined_results_hold_all_students_as_measured_together(
    parts: list[AngleResult], result: AngleResult, tmp_path: Path
) -> None:
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


def test_results_along_training_are_joined_as_measured_together(
    study_with_steps: list[Path], study: ToyStudy, tmp_path: Path
) -> None:
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


def test_joining_no_results_is_refused() -> None:
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


def test_results_from_different_devices_are_joined(parts: list[AngleResult]) -> None:
    first, second = parts
    assert AngleResult.concat_students([first, _with_attribute(second, "device", "cuda")]).students == [
        "identity",
        "deeper",
    ]


def test_a_student_in_two_results_is_refused(parts: list[AngleResult]) -> None:
    with pytest.raises(InputError, match=r"the student 'identity' occurs in more than one result; rename it or leave"):
        AngleResult.concat_students([*parts, parts[0]])


def test_results_with_and_without_steps_are_not_joined(parts: list[AngleResult], stepped: AngleResult) -> None:
    with pytest.raises(InputError, match=r"some results have a step axis and some have none; .*\(at_step\)"):
        AngleResult.concat_students([parts[0], stepped])
