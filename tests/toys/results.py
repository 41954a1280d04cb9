"""Results with made-up numbers, and the traces and texts of the figures drawn from them."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from layerangles.results.angle_result import AngleResult

SQUARE = ("student", "tower", "student_layer", "layer_a", "layer_b")


def make_result(
    students=("forward",),
    n_teacher=4,
    n_student=3,
    *,
    blank=(),
    degenerate=(),
    towers=("encoder",),
    matched=((1, 2), (2, 3)),
    largest=80.0,
) -> AngleResult:
    """A result without sums; ``blank`` and ``degenerate`` index its angles."""
    shape = (len(students), len(towers), n_student, n_teacher, n_teacher)
    angle = np.random.default_rng(0).uniform(20, largest, shape)
    angle = (angle + angle.swapaxes(-1, -2)) / 2
    diagonal = np.arange(n_teacher)
    n_degenerate = np.zeros(shape, dtype=np.int64)
    for index in degenerate:
        n_degenerate[index] = 50
        angle[index] = np.nan
    for index in blank:
        angle[index] = np.nan
    angle[..., diagonal, diagonal] = np.nan
    n_degenerate[..., diagonal, diagonal] = 0
    n_tokens = np.where(np.isnan(angle), 0, 1234)
    lower_ends = np.round(np.linspace(-1, 1, 201)[:-1], 12)
    counts = np.where(n_tokens[..., None] > 0, np.arange(200), 0).astype(np.int64)
    match = np.zeros((len(students), len(towers), n_student, n_teacher), dtype=np.int8)
    for student_layer, teacher_layer in matched:
        match[0, :, student_layer, teacher_layer] = 1
    layer_angle = xr.DataArray(angle, dims=SQUARE).mean(["layer_a", "layer_b"]).values
    dataset = xr.Dataset(
        {
            "angle_deg": (SQUARE, angle),
            "cosine": (SQUARE, np.cos(np.deg2rad(angle))),
            "ci_low": (SQUARE, angle - 0.5),
            "ci_high": (SQUARE, angle + 0.5),
            "acute_fraction": (SQUARE, np.where(np.isnan(angle), np.nan, 0.987)),
            "n_tokens": (SQUARE, n_tokens),
            "n_degenerate": (SQUARE, n_degenerate),
            "histogram": ((*SQUARE, "bin"), counts),
            "layer_angle_deg": (SQUARE[:3], layer_angle),
            "layer_ci_low": (SQUARE[:3], layer_angle - 0.1),
            "layer_ci_high": (SQUARE[:3], layer_angle + 0.1),
            "layer_acute_fraction": (SQUARE[:3], np.where(np.isnan(layer_angle), np.nan, 0.98)),
            "matched": (SQUARE[:4], match),
        },
        coords={
            "student": list(students),
            "tower": list(towers),
            "student_layer": np.arange(n_student),
            "layer_a": diagonal,
            "layer_b": diagonal,
            "bin": lower_ends,
        },
        attrs={"schema_version": 1, "confidence": 0.9},
    )
    return AngleResult(dataset)


def with_steps(result: AngleResult, steps: list[int]) -> AngleResult:
    parts = [result.dataset.expand_dims(step=[step], axis=1) for step in steps]
    return AngleResult(xr.concat(parts, dim="step"))


def maps_of(figure: go.Figure) -> list[go.Heatmap]:
    return [trace for trace in figure.data if trace.type == "heatmap"]


def scatters_of(figure: go.Figure, mode: str) -> list[go.Scatter]:
    return [trace for trace in figure.data if trace.type == "scatter" and trace.mode == mode]


def texts_of(figure: go.Figure) -> list[str]:
    return [annotation.text.replace("<br>", " ") for annotation in figure.layout.annotations]


NAME = "<script>alert(1)</script>%{z}$x$"


def assert_same_numbers(got: AngleResult, expected: AngleResult, *, atol: float = 1e-6) -> None:
    """Compare results: cosines to ``atol``, which float32 models need, angles in degrees to ten times that."""
    assert set(got.dataset.data_vars) == set(expected.dataset.data_vars)
    assert got.students == expected.students
    for name in ("angle_deg", "cosine", "ci_low", "ci_high", "layer_angle_deg", "layer_ci_low", "layer_ci_high"):
        tolerance = atol if name == "cosine" else 10 * atol
        np.testing.assert_allclose(got.dataset[name], expected.dataset[name], rtol=0, atol=tolerance, err_msg=name)
    for name in ("n_tokens", "n_degenerate", "matched", "weights_sha256"):
        assert np.array_equal(got.dataset[name], expected.dataset[name]), name
