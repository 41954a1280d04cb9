"""Fine-tuned teachers are taken from the cache where recipe, data and base are the same."""

from pathlib import Path
from typing import Any

import pytest
from toys.models import toy_bert, write_model
from toys.trained_studies import TrainedStudy, model_files
from toys.training import toy_examples, toy_study, write_jsonl, write_task

import kd_train.training.seed_run
import kd_train.training.teachers
from kd_train.study.score_logs import MetricsLog
from kd_train.training.train_study import train_study


@pytest.fixture
def tunings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where teachers are fine-tuned."""
    places: list[Path] = []
    finetune = kd_train.training.teachers._finetune

    def spy(context: Any, *arguments: Any) -> None:
        places.append(context.folder / "teacher")
        finetune(context, *arguments)

    monkeypatch.setattr(kd_train.training.teachers, "_finetune", spy)
    return places


def test_a_teacher_is_fine_tuned_once(trained: TrainedStudy, tmp_path: Path, tunings: list[Path]) -> None:
    cache, short = tmp_path / "cache", {"max_steps": 1, "batch_size": 8, "checkpoints": []}
    first = train_study(trained.study(tmp_path / "first", training=short), teacher_cache=cache, device="cpu")
    again = train_study(trained.study(tmp_path / "again", training=short), teacher_cache=cache, device="cpu")
    assert tunings == [first / "teacher"]
    assert model_files(first) == model_files(again)
    last = [[m for m in MetricsLog(f).read() if m.student == "teacher" and m.step == 6] for f in (first, again)]
    assert {m.split for m in last[1]} == {"dev", "test"}
    assert set(last[1]) <= set(last[0])


@pytest.mark.parametrize("what", ["recipe", "data", "base"])
def test_a_teacher_of_another_recipe_data_or_base_is_not_taken_from_the_cache(
    trained: TrainedStudy, tmp_path: Path, tunings: list[Path], what: str
) -> None:
    files = write_task(tmp_path / "task")
    cache, short = tmp_path / "cache", {"max_steps": 1, "batch_size": 8, "checkpoints": []}
    recipe = {"max_steps": 1, "batch_size": 8}
    base = trained.base
    for run in ("first", "again"):
        teacher = {"model": str(base), "finetune": recipe}
        study = toy_study(tmp_path / run, files, base, teacher=teacher, training=short)
        train_study(study, teacher_cache=cache, device="cpu")
        if what == "recipe":
            recipe = recipe | {"learning_rate": 1e-3}
        elif what == "data":  # other texts, as many as before, in the same file
            write_jsonl(Path(files["train"]), toy_examples(40, seed=77))
        else:
            base = write_model(tmp_path / "base", toy_bert(layers=4, seed=8))
    assert len(tunings) == 2
