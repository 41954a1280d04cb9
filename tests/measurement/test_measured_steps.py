"""Checkpoints along training make a step axis, each measured as it would be alone."""

from pathlib import Path

import numpy as np
from toys.results import assert_same_numbers
from toys.studies import ToyStudy

from layerangles import measure_angles
from layerangles.models.weights import weights_sha256


def test_checkpoints_make_a_step_axis(study_with_steps: list[Path], study: ToyStudy) -> None:
    late, early = study_with_steps
    measured = measure_angles([late, early], study.texts, steps=True, device="cpu")
    assert measured.students == ["late", "early"]
    assert measured.steps == [0, 10, 20, 30]
    assert measured.dataset["angle_deg"].dims[:3] == ("student", "step", "tower")
    there = measured.dataset["layer_angle_deg"].notnull().all(["tower", "student_layer"]).to_pandas()
    assert there.loc["late"].to_dict() == {0: False, 10: True, 20: False, 30: True}
    assert there.loc["early"].to_dict() == {0: True, 10: True, 20: True, 30: False}
    counted = (measured.dataset["n_tokens"].max(["tower", "student_layer", "layer_a", "layer_b"]) > 0).to_pandas()
    assert counted.equals(there)
    assert measured.dataset["n_tokens"].dtype == np.int64
    hashes = measured.dataset["weights_sha256"].to_pandas()
    assert hashes.loc["early", 30] == hashes.loc["late", 0] == ""
    assert hashes.loc["early", 20] == weights_sha256(early)
    assert hashes.loc["early", 10] == weights_sha256(early / "checkpoints" / "step-10")


def test_every_step_is_the_checkpoint_measured_alone(study_with_steps: list[Path], study: ToyStudy) -> None:
    _, early = study_with_steps
    measured = measure_angles(early, study.texts, steps=True, device="cpu")
    for step, path in ((0, early / "checkpoints/step-0"), (10, early / "checkpoints/step-10"), (20, early)):
        alone = measure_angles(path, study.texts, device="cpu")
        assert_same_numbers(measured.at_step(step), alone, atol=1e-12)
        assert alone.dataset["trained_steps"].item() == step
    assert not measured.at_step(0).dataset["angle_deg"].equals(measured.at_step(20).dataset["angle_deg"])
