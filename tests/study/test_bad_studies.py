"""Mistakes in study files are reported before work starts, with place, value and next step."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml
from toys.bad_studies import (
    BETWEEN_SECTIONS,
    CATALOGUE,
    S2S,
    TEXT,
    WITH_PLACES,
    WITH_THIS_TEACHER,
    Mistake,
    strategy_at,
)
from toys.command_line import Cli, refused
from toys.models import toy_bert, write_model
from toys.training import write_task
from transformers import BartConfig, BartForConditionalGeneration, LlamaConfig, LlamaForCausalLM

_SIZES = {"vocab_size": 30, "max_position_embeddings": 64}


# Words of the type checker that mean nothing to the author of a study file.
JARGON = ("tuple", "Tuple", "dictionary", "instance of", "Spec", "pydantic", "after validation", "pattern", "Traceback")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three teachers of 4 blocks per tower, and data for the first."""
    root = tmp_path_factory.mktemp("bad-studies")
    write_model(root / "base", toy_bert(layers=4))
    llama = LlamaConfig(**_SIZES, hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4)
    write_model(root / "decoder", LlamaForCausalLM(llama))
    towers = {
        f"{tower}_{name}": value
        for tower in ("encoder", "decoder")
        for name, value in {"layers": 4, "attention_heads": 4, "ffn_dim": 64}.items()
    }
    write_model(root / "two-towers", BartForConditionalGeneration(BartConfig(**_SIZES, d_model=32, **towers)))
    write_task(root / "data")
    return root


def _right_study(models: Path) -> dict[str, Any]:
    """The study that every entry of the catalogue changes."""
    return {
        "name": "toy",
        "task": {"files": {"train": "data/train.jsonl", "dev": "data/dev.jsonl"}, "max_length": 16},
        "teacher": {"model": "base", "finetune": {"max_steps": 2, "batch_size": 8}},
        "student": {"layers": 2},
        "strategies": ["none", "forward"],
        "training": {"max_steps": 2, "batch_size": 8},
    }


def _changed(content: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Content with some values overridden, key by key; a task of another kind replaces the old one."""
    changed = dict(content)
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(changed.get(key), dict) and "kind" not in value:
            changed[key] = _changed(changed[key], value)
        else:
            changed[key] = value
    return changed


def _write(models: Path, changes: dict[str, Any]) -> Path:
    file = models / "study.yaml"
    file.write_text(yaml.safe_dump(_changed(_right_study(models), changes)), encoding="utf-8")
    return file


def _everything_in(*folders: Path) -> set[Path]:
    return {path for folder in folders for path in folder.rglob("*")}


def _name(mistake: Mistake) -> str:
    return f"{mistake.place}={mistake.got}"


def _refused(cli: Cli, command: str, models: Path, changes: dict[str, Any]) -> str:
    """The error of a refused study, after a check that nothing was written."""
    file = _write(models, changes)
    before = _everything_in(models, Path())
    outcome = cli(command, file, *(["--device", "cpu"] if command == "train" else []))
    refused(outcome)
    assert _everything_in(models, Path()) == before
    assert [word for word in JARGON if word in outcome.err.replace(str(models), "")] == []
    return outcome.err


def test_the_study_without_mistakes_is_accepted(cli: Cli, models: Path) -> None:
    assert cli("plan", _write(models, {})).code == 0
    for model, task in (("decoder", TEXT), ("two-towers", S2S)):
        assert cli("plan", _write(models, {"teacher": {"model": model}, "task": task | {"max_length": 16}})).code == 0


def test_the_catalogue_covers_every_section_and_repeats_nothing() -> None:
    assert len(CATALOGUE) >= 45
    assert len({str(mistake.changes) for mistake in CATALOGUE}) == len(CATALOGUE)
    sections = {mistake.place.partition(".")[0] for mistake in CATALOGUE}
    assert sections >= {
        *("schema_version", "name", "output", "seeds", "task", "teacher", "student", "strategies", "towers", "loss"),
        *("training", "precision", "report_to"),
    }


@pytest.mark.parametrize("command", ["plan", "train"])
@pytest.mark.parametrize("mistake", CATALOGUE, ids=_name)
def test_an_error_names_place_value_and_next_step(cli: Cli, models: Path, command: str, mistake: Mistake) -> None:
    message = _refused(cli, command, models, mistake.changes)
    answers = [line for line in message.splitlines() if mistake.place in line]
    assert len(answers) == 1, message
    for part in (mistake.got, mistake.allowed):
        assert part in answers[0], message
    if mistake not in (*BETWEEN_SECTIONS, *WITH_THIS_TEACHER, *WITH_PLACES):  # there, the place is part of what is said
        assert answers[0].startswith((f"  - {mistake.place}: ", f"  - {mistake.place}."))
        assert message.splitlines()[0] == f"Error: {models / 'study.yaml'} has 1 mistake:"


def test_several_mistakes_are_reported_in_one_message(cli: Cli, models: Path) -> None:
    several = [
        Mistake({"seed": 1}, "seed", "unknown key", "did you mean seeds?"),
        Mistake({"student": {"layers": 0}}, "student.layers", "0", "greater than or equal to 1"),
        Mistake({"loss": {"hidden": "msee"}}, "loss.hidden", "'msee'", "did you mean mse?"),
        Mistake(
            {"training": {"min_micro_batches": 9}}, "training", "min_micro_batches is 9", "more than micro_batches, 6"
        ),
        Mistake(strategy_at(kind="forward", targets="gausian"), "strategies.1.targets", "'gausian'", "mean gaussian?"),
    ]
    changes: dict[str, Any] = {}
    for mistake in several:
        changes = _changed(changes, mistake.changes)
    head, *lines = _refused(cli, "train", models, changes).splitlines()
    assert head == f"Error: {models / 'study.yaml'} has {len(several)} mistakes:"
    assert len(lines) == len(several)
    for mistake in several:
        (line,) = [line for line in lines if line.startswith(f"  - {mistake.place}: ")]
        assert mistake.got in line
        assert mistake.allowed in line


def test_several_conflicts_with_the_teacher_are_reported_in_one_message(cli: Cli, models: Path) -> None:
    changes = {"strategies": ["none", {"kind": "all_to_one", "teacher_layer": 9, "name": "far"}, "in_order_random"]}
    head, *lines = _refused(cli, "plan", models, _changed(changes, {"student": {"layers": 4}})).splitlines()
    assert head == "Error: the study is not possible with this teacher:"
    assert len(lines) == 2
    assert "the teacher has the layers 1 to 4" in lines[0]
    assert "has only 3" in lines[1]


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"task": {"files": {"train": "nowhere.jsonl"}}}, ("nowhere.jsonl does not exist", "start at its folder")),
        ({"task": {"files": {"dev": "dev.xml"}}}, ("dev.xml", "'.xml'", "allowed are .jsonl, .csv, .tsv, .parquet")),
        ({"task": {"text": "sentence"}}, ('no column "sentence"', "its columns are text, label", "the study's task")),
        ({"task": {"label": "rating"}}, ('no column "rating"', "its columns are text, label", "the study's task")),
        ({"task": {"label_names": ["bad", "good"]}}, ("the label '", "labels bad, good", "task.label_names")),
    ],
    ids=["no-file", "wrong-ending", "no-text", "no-label", "wrong-labels"],
)
def test_data_that_do_not_fit_the_study_are_refused_before_training(
    cli: Cli, models: Path, changes: dict[str, Any], parts: tuple[str, ...]
) -> None:
    message = _refused(cli, "train", models, changes)
    for part in parts:
        assert part in message


@pytest.mark.skipif(importlib.util.find_spec("trackio") is not None, reason="trackio is installed")
def test_a_tracker_that_is_not_installed_is_refused_before_training(cli: Cli, models: Path) -> None:
    message = _refused(cli, "train", models, {"report_to": ["trackio"]})
    assert "report_to names trackio" in message
    assert "pip install trackio" in message
