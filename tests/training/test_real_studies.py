"""The studies of examples/ that take minutes, on the real models and data that packages ship. Run: make test-long"""

from pathlib import Path

import pytest
import torch

from kd_train.study.score_logs import MetricsLog
from kd_train.study.study_file import read_study
from kd_train.training.train_study import train_study
from layerangles import measure_angles
from layerangles.models.checkpoints import ModelCheckpoint

STUDIES = Path(__file__).parents[2] / "examples" / "studies"

pytestmark = pytest.mark.long


def _last(folder: Path, student: str, split: str, metric: str) -> float:
    values = [
        m.value
        for m in MetricsLog(folder, writes=False).read()
        if (m.student, m.split, m.metric) == (student, split, metric)
    ]
    return values[-1]


def test_a_teacher_learns_letters_to_sounds_and_hands_it_on(tmp_path: Path) -> None:
    overrides = [f"output={tmp_path}/g2p", "training.max_steps=300", "teacher.finetune.max_steps=1000"]
    study = read_study(STUDIES / "letters-to-sounds.yaml", overrides=overrides)
    folder = train_study(study, device="cpu")
    assert _last(folder, "teacher", "dev", "token_error_rate") < 0.25
    for name in ("none-seed0", "forward-seed0"):
        log = MetricsLog(folder, writes=False).dev(name, "token_error_rate")
        assert log[-1].value < 0.8
    student = ModelCheckpoint(folder / "students/forward-seed0").config
    assert (student.encoder_layers, student.decoder_layers) == (1, 1)


def test_a_causal_teacher_with_adapters_hands_on_what_it_learnt(tmp_path: Path) -> None:
    steps = ["teacher.finetune.max_steps=12", "training.max_steps=12", "task.max_length=48", "training.batch_size=4"]
    limits = ["task.limit={train: 400, dev: 16, test: 8}", "teacher.finetune.evaluate_every=6"]
    study = read_study(STUDIES / "smollm2-reviews.yaml", overrides=[f"output={tmp_path}/lm", *steps, *limits])
    folder = train_study(study, device="cpu")
    log = MetricsLog(folder, writes=False)
    along = [m.value for m in log.dev("teacher", "perplexity")]
    assert along[-1] < along[0]
    students = [folder / "students" / name for name in ("none-seed0", "forward-seed0", "reverse-seed0")]
    texts = study.task.load().texts("dev")[:8]
    result = measure_angles(students, texts, nulls=("N1",), device="cpu", max_length=48)
    data = result.dataset.sel(tower="decoder")
    assert data.sizes["layer_a"] == 31
    assert data.sizes["student_layer"] == 7
    angles = torch.tensor(data["angle_deg"].sel(student="forward-seed0").values)
    off_diagonal = ~torch.eye(31, dtype=torch.bool)
    # With adapters, the student's embedding output stays that of the teacher, so it has no angle.
    assert bool(angles[1:, off_diagonal].isfinite().all())
    assert bool(angles[0, 0, 1:].isnan().all())
