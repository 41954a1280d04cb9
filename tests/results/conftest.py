"""Measured results that several files of tests read."""

from pathlib import Path

import pytest
from toys.studies import ToyStudy

from layerangles import AngleResult, measure_angles


@pytest.fixture(scope="package")
def stepped(study_with_steps: list[Path], study: ToyStudy) -> AngleResult:
    """Students with different checkpoints, so that some pairs of student and step are missing."""
    return measure_angles(study_with_steps, study.texts, steps=True, device="cpu")


@pytest.fixture(scope="package")
def parts(study: ToyStudy) -> list[AngleResult]:
    """Two students measured apart."""
    return [measure_angles(path, study.texts, device="cpu") for path in (study.identity, study.deeper)]
