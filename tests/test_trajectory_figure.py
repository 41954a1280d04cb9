"""The figures over training, of distances, and of the excess: what they show is what the result holds."""

import shutil
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
from conftest import ToyStudy
from toys import write_student

from layerangles import AngleResult, InputError, figures, measure_angles


@pytest.fixture(scope="module")
def stepped(study_with_steps: list[Path], study: ToyStudy) -> AngleResult:
    return measure_angles(study_with_steps, study.texts, steps=True, nulls=("N1", "N5"), rivals="sums", device="cpu")


def _lines(figure: go.Figure, panel: int) -> dict[str, go.Scatter]:
    axis = "y" if panel == 0 else f"y{panel + 1}"
    return {line.legendgroup: line for line in figure.data if line.mode == "lines+markers" and line.yaxis == axis}


def test_trajectory_shows_angle_excess_and_common_mode(stepped: AngleResult) -> None:
    figure = figures.trajectory(stepped)
    names = ("student_angle_deg", "student_excess_deg", "student_common_mode_ratio")
    for panel, name in enumerate(names):
        values = stepped.dataset[name].sel(tower="encoder")
        values = values.sel(null="N1") if "null" in values.dims else values
        lines = _lines(figure, panel)
        assert list(lines) == stepped.students
        for student, line in lines.items():
            of_student = values.sel(student=student).dropna("step")
            assert list(line.x) == of_student["step"].values.tolist()
            assert list(line.y) == pytest.approx(of_student.values.tolist())
    bands = [trace for trace in figure.data if trace.fill == "tonexty" and trace.yaxis == "y2"]
    high = stepped.dataset["student_excess_high"].sel(tower="encoder", null="N1", student="early").dropna("step")
    (band,) = [trace for trace in bands if trace.legendgroup == "early"]
    assert list(band.y) == pytest.approx(high.values.tolist())
    assert [axis.title.text for axis in (figure.layout.yaxis, figure.layout.yaxis2, figure.layout.yaxis3)] == [
        "mean angle °",
        "excess over N1 °",
        "common-mode ratio ρ",
    ]


def test_another_null_and_what_was_not_measured(
    stepped: AngleResult, study_with_steps: list[Path], study: ToyStudy
) -> None:
    other = _lines(figures.trajectory(stepped, null="N5"), 1)["early"]
    expected = stepped.dataset["student_excess_deg"].sel(tower="encoder", null="N5", student="early").dropna("step")
    assert list(other.y) == pytest.approx(expected.values.tolist())
    with pytest.raises(InputError, match=r"the null 'N3' was not measured; measured were N1, N5.*--null N3"):
        figures.trajectory(stepped, null="N3")
    with pytest.raises(InputError, match=r"no step axis.*steps=True"):
        figures.trajectory(stepped.at_step(10))
    bare = measure_angles(study_with_steps, study.texts, steps=True, nulls=(), device="cpu")
    assert len(_lines(figures.trajectory(bare), 0)) == 2
    assert "yaxis2" not in figures.trajectory(bare).to_dict()["layout"]  # the other panels were not measured


def test_steps_of_the_same_weights_break_the_line(tmp_path: Path, study: ToyStudy) -> None:
    student = write_student(tmp_path / "students" / "stuck", study.teacher, seed=3, step=20)
    for step, seed in ((0, 1), (10, 2)):
        write_student(student / "checkpoints" / f"step-{step}", study.teacher, seed=seed, step=step)
    shutil.copyfile(student / "checkpoints/step-0/model.safetensors", student / "checkpoints/step-10/model.safetensors")
    result = measure_angles(student, study.texts, steps=True, device="cpu")
    assert result.unchanged_steps == [("stuck", 10, 0)]
    figure = figures.trajectory(result)
    line = _lines(figure, 0)["stuck"]
    assert list(line.x) == [0, None, 10, 20]
    assert line.y[1] is None
    assert any("stuck: step 10 has the weights of step 0" in note.text for note in figure.layout.annotations)
    assert "the same weights as at step 0" in line.hovertext[2]


def test_heat_maps_of_the_excess(stepped: AngleResult) -> None:
    result = stepped.at_step(10)
    for figure, student in (
        (figures.heatmap(result, "late", null="N1"), "late"),
        (figures.comparison(result, null="N1"), None),
    ):
        panels = [trace for trace in figure.data if trace.type == "heatmap"]
        values = result.dataset["excess_deg"].sel(null="N1", tower="encoder", student=student or "late")
        np.testing.assert_array_equal(np.array(panels[1].z, dtype=float), values.sel(student_layer=1).values)
        assert figure.layout.coloraxis.cmin == -figure.layout.coloraxis.cmax
        assert "excess over N1" in figure.layout.coloraxis.colorbar.title.text
        cell = values.sel(student_layer=1, layer_a=1, layer_b=3).item()
        assert f"excess <b>{cell:+.1f}°</b>" in panels[1].hovertext[1][3]
    with pytest.raises(InputError, match=r"the null 'N2' was not measured"):
        result.heatmap("late", null="N2")


def test_distances_are_those_of_the_result(stepped: AngleResult, result: AngleResult, tmp_path: Path) -> None:
    figure = figures.distances(stepped, "late", step=10)
    data = stepped.dataset.sel(student="late", step=10, tower="encoder")
    names = ("distance_teacher_teacher", "distance_teacher_student", "distance_student_student")
    for trace, name in zip(figure.data, names, strict=True):
        np.testing.assert_array_equal(np.array(trace.z, dtype=float), data[name].values)
    assert figures.write_html(figure, tmp_path / "distances.html").stat().st_size > 1_000_000
    with pytest.raises(InputError, match=r'distances were not measured.*rivals="sums"'):
        figures.distances(result, "identity")
