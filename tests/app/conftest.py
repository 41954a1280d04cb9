"""Results and an app for the tests of the app."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from dash import Dash
from toys.app_browser import PLAN, Browser
from toys.app_sources import Stub, scored
from toys.studies import ToyStudy

from layerangles import AngleResult, measure_angles
from layerangles.app.catalogue import Catalogue
from layerangles.app.server import create_app
from layerangles.app.sources import InMemory, Student, StudentDirectories


@pytest.fixture(scope="session")
def nulls(study: ToyStudy) -> AngleResult:
    return measure_angles([study.identity, study.deeper], study.texts[:8], nulls=("N0", "N1"), device="cpu")


@pytest.fixture(scope="module")
def catalogue(
    tmp_path_factory: pytest.TempPathFactory,
    study: ToyStudy,
    study_with_steps: Sequence[Path],
    nulls: AngleResult,
) -> Catalogue:
    """Two strategies and a third with one seed; two students with steps; two with weights, of which one is measured."""
    names = ["forward-seed0", "none-seed0", "none-seed1", "forward-seed1"]
    result = AngleResult(nulls.dataset.isel(student=[0, 1, 0, 1]).assign_coords(student=names))
    students = [*(Student(name, None, lambda: (result,)) for name in names), Student("lone", None)]
    scores = scored({"forward-seed0": 0.5, "forward-seed1": 0.7, "none-seed0": 0.9})
    stepped = measure_angles(study_with_steps, study.texts[:6], steps=True, device="cpu")
    root = tmp_path_factory.mktemp("directories")
    directories = [Path(shutil.copytree(path, root / path.name)) for path in (study.learned, study.wide_learned)]
    measure_angles(directories[0], study.texts[:8], device="cpu").save(directories[0] / "angles.nc")
    return Catalogue(
        [
            Stub("study", students, scores),
            InMemory(stepped, "course"),
            StudentDirectories(directories, lambda: study.texts),
        ]
    )


@pytest.fixture(scope="module")
def app(catalogue: Catalogue) -> Dash:
    return create_app(catalogue, PLAN)


@pytest.fixture
def browser(app: Dash) -> Browser:
    return Browser(app)


@pytest.fixture(scope="session")
def stepped(study_with_steps: Sequence[Path], study: ToyStudy) -> AngleResult:
    """Two students with checkpoints, at all their steps."""
    return measure_angles(study_with_steps, study.texts[:6], steps=True, device="cpu")
