"""Single steps of a result, and its tables."""

from pathlib import Path

import numpy as np
import pytest
from toys.models import write_student
from toys.studies import ToyStudy

from layerangles import AngleResult, InputError, measure_angles

N_LAYERS = 5


def test_a_step_of_a_result_is_its_slice(stepped: AngleResult, result: AngleResult) -> None:
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


def test_the_summary_has_one_row_per_measured_layer(result: AngleResult, study: ToyStudy) -> None:
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


def test_the_summary_has_a_row_per_measured_step(stepped: AngleResult) -> None:
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


def test_the_summary_keeps_a_layer_of_degenerate_tokens(study: ToyStudy, tmp_path: Path) -> None:
    two_layers = write_student(tmp_path / "twin", study.teacher, layers=2)
    # Seen from its own layers, all pairs with that layer are degenerate, and one pair of other layers is left.
    table = measure_angles(two_layers, study.texts, teacher=two_layers, device="cpu").summary()
    n_tokens = sum(len(text.split()) + 2 for text in study.texts)
    assert table["n_degenerate"].tolist() == [n_tokens] * 3
    assert table["n_tokens"].tolist() == [n_tokens] * 3
    assert (table["min_angle_deg"] == table["max_angle_deg"]).all()  # one pair is left


def test_student_means_weigh_layers_equally(result: AngleResult, stepped: AngleResult) -> None:
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
