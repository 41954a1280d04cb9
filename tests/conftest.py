"""Enforced tensor shapes, no hub, one thread; and the fixtures that many tests share."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

os.environ["HF_HUB_OFFLINE"] = "1"

# Before anything of the packages is imported: every shape in a signature becomes a check. The configuration lets an
# int pass for a float, as Python's typing rules do.
install_import_hook(["layerangles", "kd_train"], "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

import torch  # noqa: E402
from layerangles_cli.main import run  # noqa: E402
from toys.command_line import Cli, Outcome  # noqa: E402
from toys.models import toy_bert, toy_texts, write_model, write_student  # noqa: E402
from toys.studies import ToyStudy  # noqa: E402

from layerangles import AngleResult  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Cli:
    """Run the command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["layerangles", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            run()
        captured = capsys.readouterr()
        code = left.value.code
        return Outcome(code if isinstance(code, int) else 0, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> ToyStudy:
    root = tmp_path_factory.mktemp("toy-study")
    teacher = write_model(root / "teacher", toy_bert(layers=4))
    students = root / "students"
    return ToyStudy(
        root=root,
        teacher=teacher,
        identity=write_student(students / "identity", teacher, seed=1),
        deeper=write_student(students / "deeper", teacher, layers=3, seed=2, pairs=((1, 1), (3, 4))),
        learned=write_student(students / "learned", teacher, width=24, seed=3, maps="learned"),
        wide_learned=write_student(
            students / "wide-learned", teacher, seed=4, maps="learned", pairs=((1, 2), (2, 4)), bias=False
        ),
        texts=toy_texts(),
    )


@pytest.fixture(scope="session")
def study_with_steps(tmp_path_factory: pytest.TempPathFactory, study: ToyStudy) -> Sequence[Path]:
    """Two students with checkpoints: "early" at the steps 0, 10 and 20; "late" at the steps 10 and 30."""
    students = tmp_path_factory.mktemp("stepped-study") / "students"
    paths = []
    for name, steps, seed in (("late", (10, 30), 50), ("early", (0, 10, 20), 60)):
        path = write_student(students / name, study.teacher, seed=seed + steps[-1], step=steps[-1])
        for step in steps[:-1]:
            write_student(path / "checkpoints" / f"step-{step}", study.teacher, seed=seed + step, step=step)
        paths.append(path)
    return paths


@pytest.fixture(scope="session")
def result(study: ToyStudy) -> AngleResult:
    """All students of the study, measured together on the CPU."""
    from layerangles import measure_angles

    return measure_angles(study.students, study.texts, device="cpu")
