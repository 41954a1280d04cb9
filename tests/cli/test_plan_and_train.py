"""``layerangles plan`` and ``train`` on a small study."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from toys.command_line import Cli, refused
from toys.models import toy_bert, write_model

LAYERANGLES = str(Path(sys.executable).with_name("layerangles"))


def test_plan_shows_every_map_and_the_sizes(cli: Cli, study_file: Path) -> None:
    outcome = cli("plan", study_file, "--set", "strategies=[none, forward, reverse, {kind: random, name: mine}]")
    assert outcome.code == 0
    assert "0 = embedding output, 1 = first block" in outcome.out
    line = next(line for line in outcome.out.splitlines() if line.split()[:1] == ["reverse"])
    assert line.split()[1:] == ["teacher", "0", "teacher", "4", "teacher", "2"]
    parameters = sum(p.numel() for p in toy_bert(layers=4).parameters())
    assert f"{parameters:,}" in outcome.out
    assert "mine is the same map as" in outcome.out
    assert not (study_file.parent / "run").exists()


def test_plan_prints_json(cli: Cli, study_file: Path) -> None:
    content = json.loads(cli("plan", study_file, "--json").out)
    assert content["towers"] == {"encoder": {"none": [], "forward": [[0, 0], [1, 2], [2, 4]]}}
    assert content["students"] == ["none-seed0", "forward-seed0"]
    assert content["teacher"]["layers"] == {"encoder": 4}
    assert content["strategies"]["forward"]["estimate"]["memory_bytes"] > 0


def test_all_errors_of_a_study_are_in_one_message(cli: Cli, study_file: Path) -> None:
    outcome = cli("plan", study_file, "--set", "loss.hiden=mse", "--set", "strategies=[foward]", "--set", "seeds=[]")
    refused(outcome, "3 mistakes", "did you mean hidden?", "did you mean forward?", "seeds")


def test_a_missing_study_file_is_refused(cli: Cli) -> None:
    refused(cli("plan", "nowhere.yaml"), "nowhere.yaml does not exist", "examples/studies")


def test_train_prints_scores_and_where_it_wrote(cli: Cli, study_file: Path) -> None:
    outcome = cli("train", study_file, "--output", "elsewhere", "--set", "training.max_steps=2", "--device", "cpu")
    assert outcome.code == 0
    assert "forward-seed0" in outcome.out
    assert "dev accuracy" in outcome.out
    assert outcome.out.endswith("wrote elsewhere\n")
    refused(cli("train", study_file, "--output", "elsewhere"), "--resume", "--overwrite")
    scores = json.loads(
        cli("train", study_file, "--output", "elsewhere", "--set", "training.max_steps=2", "--overwrite", "--json").out
    )["scores"]
    assert {row["student"] for row in scores} == {"teacher", "none-seed0", "forward-seed0"}


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ("task.files.train=nowhere.jsonl", ("nowhere.jsonl does not exist",)),
        ("task.text=sentence", ('no column "sentence"', "text, label", "the study's task")),
        ("strategies=[sideways]", ("sideways", "'forward'")),
        ("student.layers=5", ("5 layers is deeper than its teacher of 4", "at most 4")),
        ("strategies=[{kind: explicit, pairs: [[1, 5]]}]", ("[1, 5]", "layers 0 to 4")),
        ("teacher.finetune=null", ("has no",)),
    ],
)
def test_bad_input_is_refused_before_training(cli: Cli, study_file: Path, change: str, parts: tuple[str, ...]) -> None:
    if change.startswith("teacher"):
        content = yaml.safe_load(study_file.read_text())
        write_model(Path(content["teacher"]["model"]), toy_bert(layers=4, num_labels=3))
        parts = ("labels do not fit", "the data have 2", "the teacher has 3")
    refused(cli("train", study_file, "--set", change, "--device", "cpu"), *parts)
    assert not (study_file.parent / "run").exists()


def test_an_empty_file_is_refused(cli: Cli, study_file: Path) -> None:
    (study_file.parent / "data" / "dev.jsonl").write_text("")
    refused(cli("train", study_file), "dev.jsonl is empty")


def test_ctrl_c_leaves_with_130_and_nothing_half_written(study_file: Path) -> None:
    process = subprocess.Popen(
        [LAYERANGLES, "train", str(study_file), "--set", "training.max_steps=5000", "--device", "cpu"],
        stderr=subprocess.PIPE,
        # A shell that starts this in the background would have it ignore the signal.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    resume = study_file.parent / "run" / "resume" / "seed0"
    deadline = time.monotonic() + 120
    while not list(resume.glob("step-*")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert not list((study_file.parent / "run").glob("students/*/matching.json"))
