"""Figures over training, of the excess and of distances show the values of the result."""

import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
from toys.models import write_student
from toys.results import make_result, with_steps
from toys.studies import ToyStudy

from layerangles import AngleResult, InputError, figures, measure_angles
from layerangles.notation import degrees


@pytest.fixture(scope="module")
def stepped(study_with_steps: list[Path], study: ToyStudy) -> AngleResult:
    return measure_angles(
        study_with_steps, study.texts, steps=True, nulls=("N1", "N5"), alternatives="sums", device="cpu"
    )


def _lines(figure: go.Figure, panel: int) -> dict[str, go.Scatter]:
    axis = "y" if panel == 0 else f"y{panel + 1}"
    return {line.legendgroup: line for line in figure.data if line.mode == "lines+markers" and line.yaxis == axis}


def _bands(figure: go.Figure, panel: int) -> dict[str, go.Scatter]:
    axis = "y" if panel == 0 else f"y{panel + 1}"
    return {band.legendgroup: band for band in figure.data if band.fill == "toself" and band.yaxis == axis}


def _without_gaps(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _notes(figure: go.Figure) -> str:
    return " ".join(note.text.replace("<br>", " ") for note in figure.layout.annotations)


def _with(result: AngleResult, name: str, values: object, **where: object) -> AngleResult:
    """The result with other values of one variable, in some places."""
    dataset = result.dataset.copy(deep=True)
    dataset[name].loc[where] = values
    return AngleResult(dataset)


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
            assert _without_gaps(line.x) == of_student["step"].values.tolist()
            assert _without_gaps(line.y) == pytest.approx(of_student.values.tolist())
    ends = stepped.dataset.sel(tower="encoder", null="N1", student="early", step=[0, 10, 20])
    low, high = (ends[f"student_excess_{end}"].values.tolist() for end in ("low", "high"))
    band = _bands(figure, 1)["early"]
    assert list(band.x) == [0, 10, 20, 20, 10, 0]
    assert list(band.y) == pytest.approx([*low, *reversed(high)])
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
    assert _without_gaps(other.y) == pytest.approx(expected.values.tolist())
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


def test_a_band_ends_where_its_line_does(stepped: AngleResult) -> None:
    hashes = stepped.dataset["weights_sha256"].sel(student="early", step=10).item()
    result = _with(stepped, "weights_sha256", hashes, student="early", step=20)
    figure = figures.trajectory(result)
    line, band = _lines(figure, 0)["early"], _bands(figure, 0)["early"]
    assert list(line.x) == [0, 10, None, 20]
    assert list(band.x) == [0, 10, 10, 0]
    data = stepped.dataset.sel(student="early", tower="encoder", step=20)
    mean, low, high = (data[f"student_{name}"].item() for name in ("angle_deg", "ci_low", "ci_high"))
    # The last point stands alone, so that its interval is a bar; the others have none.
    assert list(line.error_y.array) == pytest.approx([None, None, None, high - mean])
    assert list(line.error_y.arrayminus) == pytest.approx([None, None, None, mean - low])
    assert "early: step 20 has the weights of step 10" in _notes(figure)


def test_a_step_without_a_value_is_a_gap(stepped: AngleResult) -> None:
    # "late" was measured at the steps 10 and 30 of 0, 10, 20 and 30.
    assert list(_lines(figures.trajectory(stepped), 0)["late"].x) == [10, None, 30]
    assert not _bands(figures.trajectory(stepped), 0)["late"].x
    undefined = _with(stepped, "student_common_mode_ratio", np.nan, student="early", step=10)
    figure = figures.trajectory(undefined)
    line = _lines(figure, 2)["early"]
    assert list(line.x) == [0, None, 20]
    assert line.y[1] is None
    assert line.hovertext[1] == ""
    assert "early, step 20" in line.hovertext[2]
    assert list(_lines(figure, 0)["early"].x) == [0, 10, 20]  # a gap in one panel alone


def test_a_value_without_an_interval(stepped: AngleResult) -> None:
    figure = figures.trajectory(_with(stepped, "student_ci_low", np.nan, student="early"))
    assert not _bands(figure, 0)["early"].x
    assert "(no interval)" in _lines(figure, 0)["early"].hovertext[0]
    assert "nan" not in figure.to_json()


@pytest.mark.parametrize(("shift", "marked"), [(60, [60]), (90, [90]), (75, []), (30, [])])
def test_lines_at_60_and_90_degrees_where_the_angles_are(stepped: AngleResult, shift: float, marked: list[int]) -> None:
    dataset = stepped.dataset.copy(deep=True)
    centre = dataset["student_angle_deg"].mean()
    for name, offset in (("angle_deg", 0), ("ci_low", -1), ("ci_high", 1)):
        near = (dataset["student_angle_deg"] - centre) / 1000 if name == "angle_deg" else 0 * centre
        dataset[f"student_{name}"] = shift + offset + near + 0 * dataset[f"student_{name}"]
    figure = figures.trajectory(AngleResult(dataset))
    assert [line.y0 for line in figure.layout.shapes if line.yref == "y"] == marked
    assert [line.y0 for line in figure.layout.shapes if line.yref == "y2"] == [0]
    assert [f"dotted: {value}°" in _notes(figure) for value in (60, 90)] == [value in marked for value in (60, 90)]


def test_many_students_of_long_names_are_told_apart_and_fit_into_the_legend(tmp_path: Path) -> None:
    names = [f"<b>{letter}-{'a-very-long-name-of-a-run-' * 3}" for letter in "abcdef"]
    result = with_steps(make_result(names), [0, 10, 20, 30])
    angles = result.dataset["layer_angle_deg"].mean("student_layer")
    hashes = np.array([[f"{name}{step}" for step in result.steps] for name in names], dtype=object)
    new = {f"student_{name}": angles + shift for name, shift in (("angle_deg", 0), ("ci_low", -1), ("ci_high", 1))}
    result = AngleResult(result.dataset.assign(new | {"weights_sha256": (("student", "step"), hashes)}))
    figure = figures.trajectory(result)
    lines = _lines(figure, 0)
    assert list(lines) == names
    for look in ([line.line.color for line in lines.values()], [line.marker.symbol for line in lines.values()]):
        assert len(set(look)) == 6
    listed = [trace.name for trace in figure.data if trace.showlegend]
    assert len(listed) == 6
    assert all("&lt;b&gt;" in name and "<b>" not in name for name in listed)
    n_lines = sum(name.count("<br>") + 1 for name in listed)
    layout = figure.layout
    assert layout.height - layout.margin.t - layout.margin.b > 16 * n_lines
    page = figures.write_html(figure, tmp_path / "course.html").read_text(encoding="utf-8")
    assert "<title>Angles between teacher layers over training</title>" in page


def test_a_result_without_means_over_a_student_has_no_trajectory() -> None:
    with pytest.raises(InputError, match=r"no mean over all layers of a student.*heatmap\(step=….*space=\"teacher\""):
        figures.trajectory(with_steps(make_result(), [0, 10]))


def test_panels_lie_one_below_another_and_share_a_legend(stepped: AngleResult) -> None:
    figure = figures.trajectory(stepped)
    layout = figure.layout
    assert [trace.legendgroup for trace in figure.data if trace.showlegend] == stepped.students
    domains = [axis.domain for axis in (layout.yaxis, layout.yaxis2, layout.yaxis3)]
    assert domains[0][1] == 1
    assert all(upper[0] > lower[1] for upper, lower in itertools.pairwise(domains))
    assert [axis.matches for axis in (layout.xaxis, layout.xaxis2, layout.xaxis3)] == ["x"] * 3


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
        assert f"excess <b>{degrees(cell, signed=True)}</b>" in panels[1].hovertext[1][3]
    with pytest.raises(InputError, match=r"the null 'N2' was not measured"):
        figures.heatmap(result, "late", null="N2")


def test_a_cell_without_an_excess_is_not_one_of_no_excess(stepped: AngleResult) -> None:
    pair = {"student": "late", "step": 10, "null": "N1", "student_layer": 1, "layer_a": 1, "layer_b": 3}
    figure = figures.heatmap(_with(stepped, "excess_deg", np.nan, **pair), "late", step=10, null="N1")
    panel = [trace for trace in figure.data if trace.type == "heatmap"][1]
    assert np.isnan(panel.z[1][3])
    assert "mean angle" in panel.hovertext[1][3]
    assert panel.hovertext[1][3].endswith("no N1 here, and so no excess")
    assert panel.hovertext[1][1].endswith("no angle with itself")
    middle = [colour for place, colour in figure.layout.coloraxis.colorscale if place == 0.5]
    assert middle not in (["#ffffff"], [figure.layout.template.layout.plot_bgcolor])


def test_hover_of_the_excess_says_everything(stepped: AngleResult) -> None:
    data = stepped.dataset.sel(student="late", step=10, tower="encoder", student_layer=1, layer_a=1, layer_b=3)
    of_null = data.sel(null="N5")
    figure = figures.heatmap(stepped, "late", step=10, null="N5")
    text = [trace for trace in figure.data if trace.type == "heatmap"][1].hovertext[1][3]
    low, high = of_null["excess_low"].item(), of_null["excess_high"].item()
    assert text.startswith(f"teacher layers 1 and 3<br>mean angle <b>{data['angle_deg'].item():.1f}°</b>")
    assert text.endswith(
        f"<br>N5 {of_null['null_angle_deg'].item():.1f}°, excess <b>{of_null['excess_deg'].item():+.1f}°</b>"
        f", 95\N{NO-BREAK SPACE}% interval {low:+.1f}° to {high:+.1f}°".replace("-", "−")
    )


def test_distances_are_those_of_the_result(stepped: AngleResult, result: AngleResult, tmp_path: Path) -> None:
    figure = figures.distances(stepped, "late", step=10)
    data = stepped.dataset.sel(student="late", step=10, tower="encoder")
    names = ("distance_teacher_teacher", "distance_teacher_student", "distance_student_student")
    for trace, name in zip(figure.data, names, strict=True):
        np.testing.assert_array_equal(np.array(trace.z, dtype=float), data[name].values)
    assert figures.write_html(figure, tmp_path / "distances.html").stat().st_size > 1_000_000
    with pytest.raises(InputError, match=r'distances were not measured.*alternatives="sums"'):
        figures.distances(result, "identity")


def test_distances_begin_at_zero_and_are_named(stepped: AngleResult) -> None:
    figure = figures.distances(stepped, "late", step=10)
    for trace in figure.data:
        assert trace.zmin == 0
        assert trace.zmax == pytest.approx(np.nanmax(np.array(trace.z, dtype=float)))
    assert {"teacher to teacher", "teacher to student", "student to student"} <= {
        note.text for note in figure.layout.annotations
    }
    assert figure.layout.yaxis.ticktext[0] == "0 (emb)"
    assert f"mean distance <b>{figure.data[1].z[1][3]:.4g}</b>" == figure.data[1].hovertext[1][3]
    with pytest.raises(InputError, match="2 students; name one"):
        figures.distances(stepped)


def test_distances_of_layers_that_a_student_lacks(study: ToyStudy) -> None:
    chosen = [study.deeper, study.identity, study.learned]  # of 3, 2 and 2 blocks; the last without a map of layer 2
    result = measure_angles(chosen, study.texts, nulls=(), alternatives="sums", device="cpu")
    shallow, unmapped = (figures.distances(result, student) for student in ("identity", "learned"))
    assert [np.shape(trace.z) for trace in shallow.data] == [(5, 5), (3, 5), (3, 3)]
    assert [np.shape(trace.z)[0] for trace in figures.distances(result, "deeper").data] == [5, 4, 4]
    assert np.shape(unmapped.data[1].z) == (2, 5)
    missing = _with(result, "distance_teacher_teacher", np.nan, student="deeper", layer_a=3, layer_b=1)
    missing = _with(missing, "distance_teacher_student", np.nan, student="deeper", student_layer=1)
    figure = figures.distances(missing, "deeper")
    assert figure.data[0].hovertext[3][1] == "not measured"
    assert set(figure.data[1].hovertext[1]) == {"not measured"}


def test_a_layer_without_a_map_says_so_in_distances(study: ToyStudy) -> None:
    result = measure_angles(study.wide_learned, study.texts, nulls=(), alternatives="sums", device="cpu")
    figure = figures.distances(result)
    assert set(figure.data[1].hovertext[0]) == {"no map, not measured"}
    assert figure.data[2].hovertext[0][1] == figure.data[2].hovertext[1][0] == "no map, not measured"
    # Teacher layer 0 is another one than student layer 0, whose reason is not its own.
    teacher = figures.distances(_with(result, "distance_teacher_teacher", np.nan, layer_a=0, layer_b=1))
    assert teacher.data[0].hovertext[0][1] == "not measured"
