"""The command line end to end: what it prints, what it writes, what it refuses, and its exit codes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from toys.command_line import Cli, refused
from toys.models import toy_bert, toy_tokenizer, write_model
from toys.studies import ToyStudy
from toys.training import toy_study, write_task

from kd_train.training.train_study import train_study
from layerangles import AngleResult

LAYERANGLES = str(Path(sys.executable).with_name("layerangles"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small study, trained: a teacher and two students with checkpoints."""
    root = tmp_path_factory.mktemp("cli")
    base = write_model(root / "base", toy_bert(layers=4, seed=0))
    return train_study(toy_study(root / "run", write_task(root / "data"), base), device="cpu")


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    """A study file of the same study, to be changed by the test."""
    base = write_model(tmp_path / "base", toy_bert(layers=4, seed=0))
    study = toy_study(tmp_path / "run", write_task(tmp_path / "data"), base)
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(study.model_dump(mode="json")), encoding="utf-8")
    return file


# Help


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, layerangles_cli.main; print([m for m in ('torch', 'transformers', 'plotly') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    "command", ["demo", "plan", "train", "angles", "compare", "draw", "merge", "verdict", "report", "env"]
)
def test_help_of_every_command_shows_an_example(cli: Cli, command: str) -> None:
    assert command in cli("--help").out
    assert "Example: layerangles " + command in cli(command, "--help").out


def test_the_folder_cli_reaches_nobody(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import cli"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "No module named 'cli'" in done.stderr


# plan


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


def test_plan_as_json(cli: Cli, study_file: Path) -> None:
    content = json.loads(cli("plan", study_file, "--json").out)
    assert content["towers"] == {"encoder": {"none": [], "forward": [[0, 0], [1, 2], [2, 4]]}}
    assert content["students"] == ["none-seed0", "forward-seed0"]
    assert content["teacher"]["layers"] == {"encoder": 4}
    assert content["strategies"]["forward"]["estimate"]["memory_bytes"] > 0


def test_all_mistakes_of_a_study_in_one_message(cli: Cli, study_file: Path) -> None:
    outcome = cli("plan", study_file, "--set", "loss.hiden=mse", "--set", "strategies=[foward]", "--set", "seeds=[]")
    refused(outcome, "3 mistakes", "did you mean hidden?", "did you mean forward?", "seeds")


# train


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


def test_a_missing_study_file(cli: Cli) -> None:
    refused(cli("plan", "nowhere.yaml"), "nowhere.yaml does not exist", "examples/studies")


# angles


def test_angles_needs_nothing_but_the_directories(cli: Cli, trained: Path, tmp_path: Path) -> None:
    students = sorted((trained / "students").iterdir())
    outcome = cli("angles", *students, "--html", "maps.html", "--device", "cpu", "--no-steps")
    assert outcome.code == 0
    result = AngleResult.load(tmp_path / "angles.nc")
    assert result.students == ["forward-seed0", "none-seed0"]
    assert result.dataset.attrs["n_examples"] == 20  # the dev split
    mean = float(result.dataset["layer_angle_deg"].sel(student="none-seed0", student_layer=1).item())
    assert f"{mean:.1f}" in outcome.out
    assert (tmp_path / "maps.html").stat().st_size > 1_000_000
    assert outcome.out.splitlines()[-2:] == ["wrote angles.nc", "wrote maps.html"]
    refused(cli("angles", *students), "angles.nc exists already", "--overwrite")


def test_angles_over_training_as_json(cli: Cli, trained: Path) -> None:
    content = json.loads(cli("angles", trained / "students" / "forward-seed0", "--steps", "--json").out)
    assert {row["step"] for row in content["summary"]} == {0, 4, 8}
    assert content["space"] == "teacher"
    at_start = [row for row in content["summary"] if row["step"] == 0 and row["student_layer"] == 0]
    assert at_start[0]["n_degenerate"] > 0  # the copied embedding output is the teacher's


def test_angles_of_any_two_models_on_a_file(cli: Cli, study: ToyStudy, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(study.texts), encoding="utf-8")
    other = write_model(tmp_path / "other", toy_bert(layers=2, seed=9))
    outcome = cli("angles", "--teacher", study.teacher, "--student", other, "--data", "texts.txt", "-o", "any.nc")
    assert outcome.code == 0
    assert AngleResult.load("any.nc").dataset.attrs["n_examples"] == len(study.texts)


def test_max_examples_spreads_over_the_file(cli: Cli, study: ToyStudy, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(study.texts), encoding="utf-8")
    arguments = ("angles", study.identity, "--data", "texts.txt", "--max-examples", 5, "--json")
    assert json.loads(cli(*arguments).out)["n_examples"] == 5


def broken(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained study, to be broken."""
    return Path(shutil.copytree(trained, tmp_path / "copy"))


def test_angles_refuses_what_is_no_student(cli: Cli, trained: Path, tmp_path: Path) -> None:
    refused(cli("angles", "nowhere"), "nowhere is not a directory")
    refused(
        cli("angles", trained / "teacher", "--data", trained / "metrics.jsonl", "--text", "student"), "matching.json"
    )
    refused(cli("angles"), "give student directories")
    refused(cli("angles", "--teacher", "x"), "belong together")
    refused(cli("angles", trained / "students" / "none-seed0", "--png", "x.svg"), "must end in .png")
    refused(cli("angles", trained / "students" / "none-seed0", "--split", "train2"), "no split 'train2'")
    assert not list(tmp_path.iterdir())


def test_angles_refuses_truncated_weights(cli: Cli, trained: Path, tmp_path: Path) -> None:
    student = broken(trained, tmp_path) / "students" / "none-seed0"
    weights = student / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    refused(cli("angles", student), "model.safetensors is damaged or cut short")


def test_angles_refuses_another_teacher(cli: Cli, trained: Path, tmp_path: Path) -> None:
    copy = broken(trained, tmp_path)
    write_model(copy / "teacher", toy_bert(layers=4, seed=5))
    refused(
        cli("angles", copy / "students" / "none-seed0"), "weights changed since none-seed0 was trained", "--teacher"
    )


def test_angles_refuses_another_tokenizer(cli: Cli, trained: Path, tmp_path: Path) -> None:
    student = broken(trained, tmp_path) / "students" / "none-seed0"
    tokenizer = toy_tokenizer()
    tokenizer.add_tokens(["extra"])
    tokenizer.save_pretrained(student)
    refused(cli("angles", student), "the tokenizer of none-seed0 differs", "'extra'")


def test_angles_without_texts(cli: Cli, study: ToyStudy) -> None:
    refused(cli("angles", study.identity), "--data")


def test_an_unknown_option_is_a_mistake_too(cli: Cli) -> None:
    assert cli("angles", "--no-such-option").code == 2


# Leaving early


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


# env and demo


def test_env_says_what_is_installed(cli: Cli) -> None:
    content = json.loads(cli("env", "--json").out)
    assert content["torch"].startswith("2.")
    assert content["cores"] == str(os.cpu_count())


SHORT = (
    "task.limit={train: 64, dev: 24, test: 16}",
    "teacher.finetune.max_steps=2",
    "training.max_steps=2",
    "training.batch_size=8",
)


def test_demo_end_to_end_in_small(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: Path) -> None:
    from kd_train.data import embedded

    models = embedded.cache_dir() / "models"
    embedded.model_path("all-MiniLM-L6-v2")
    embedded.movie_reviews()
    # A cache of its own, so that the teacher of this test is not kept; model and data come from the real one.
    monkeypatch.setenv("LAYERANGLES_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    for kind in (models, models.parent / "datasets"):
        (tmp_path / "cache" / kind.name).symlink_to(kind)
    sets = [part for change in SHORT for part in ("--set", change)]
    first = cli("demo", "-o", "one", "--texts", 8, *sets)
    assert first.code == 0, first.err
    assert "in_order_random-seed0" in first.out
    assert "1→6 2→4 3→2" in first.out  # reverse, as it was trained
    for name in ("report.html", "angles/angles.nc", "angles/comparison.html", "angles/forward-seed0.html"):
        assert (tmp_path / "one" / name).stat().st_size > 10_000
        assert f"wrote one/{name}" in first.out
    assert AngleResult.load("one/angles/angles.nc").steps == [0, 1, 2]

    again = cli("demo", "-o", "one", *sets)
    assert (again.code, again.out) == (2, "")
    assert "one holds a study already" in again.err
    teachers = tmp_path / "cache" / "teachers"
    kept = {path: path.stat().st_mtime_ns for path in teachers.rglob("*.safetensors")}
    assert len(kept) == 1
    again = cli("demo", "-o", "two", "--seed", 1, "--texts", 8, "--json", *sets)
    assert {path: path.stat().st_mtime_ns for path in teachers.rglob("*.safetensors")} == kept
    rows = {row["student"]: row for row in json.loads(again.out)["students"]}
    assert rows["none-seed1"]["mean angle °"] is not None
    one = AngleResult.load("one/angles/angles.nc").at_step(2).student_means()["angle_deg"]
    assert one["none-seed0"] != rows["none-seed1"]["mean angle °"]


# Wider measurements


def test_angles_measures_checkpoints_and_nulls_by_default(cli: Cli, trained: Path) -> None:
    done = cli("angles", trained / "students" / "forward-seed0", "--trajectory", "course.html")
    assert done.code == 0, done.err
    assert "excess °" in done.out
    result = AngleResult.load("angles.nc")
    assert result.nulls == ["N1"]
    assert len(result.steps) > 1
    assert Path("course.html").stat().st_size > 10_000
    done = cli(
        "angles",
        trained / "students" / "forward-seed0",
        "--no-steps",
        "-o",
        "last.nc",
        "--null",
        "all",
        "--alternatives",
        "all",
    )
    assert done.code == 0, done.err
    last = AngleResult.load("last.nc")
    assert last.nulls == ["N0", "N1", "N2", "N3", "N4", "N5", "N6"]
    assert last.steps == []
    assert "recoverability_gap" in last.dataset
    first = int(last.dataset["top_dimension"].sel(tower="encoder", layer_a=1, rank=1))
    assert f"{first} (" in done.out


def test_gradients_and_the_papers_convention_are_drawn_too(cli: Cli, trained: Path) -> None:
    student = trained / "students" / "forward-seed0"
    short = ("--no-steps", "--max-examples", 8, "--gradient-batches", 1)
    done = cli("angles", student, "--space", "gradient", "--html", "gradient.html", "-o", "gradient.nc", *short)
    assert done.code == 0, done.err
    assert "Whole students: angles between their gradients" in done.out
    whole = AngleResult.load("gradient.nc").dataset["whole_angle_deg"]
    assert f"{float(whole.mean()):.1f}" in done.out
    done = cli("angles", student, "--convention", "paper", "--max-length", 32, "--html", "p.html", "-o", "p.nc", *short)
    assert done.code == 0, done.err
    assert Path("p.html").stat().st_size > 1_000_000
    refused(cli("angles", student, "--space", "gradient", "--excess"), "leave out --space gradient")
    refused(cli("angles", student, "--convention", "paper", "--trajectory", "x.html"), "does not have")


def test_shards_and_their_merger(cli: Cli, trained: Path) -> None:
    students = sorted((trained / "students").glob("*-seed0"))
    for i in range(2):
        assert cli("angles", *students, "--shard", f"{i}/2", "-o", f"shard-{i}.nc", "--no-steps").code == 0
    done = cli("merge", "shard-0.nc", "shard-1.nc", "-o", "whole.nc")
    assert done.code == 0, done.err
    assert cli("angles", *students, "-o", "one.nc", "--no-steps").code == 0
    whole, one = AngleResult.load("whole.nc"), AngleResult.load("one.nc")
    assert whole.dataset["angle_deg"].values == pytest.approx(one.dataset["angle_deg"].values, abs=1e-4, nan_ok=True)
    refused(cli("merge", "shard-0.nc", "shard-0.nc", "-o", "twice.nc"), "the shards overlap: got 0/2, 0/2")
    refused(cli("merge", "shard-0.nc", "-o", "whole.nc"), "whole.nc exists")


def test_steps_of_the_same_weights_are_reported(cli: Cli, trained: Path, tmp_path: Path) -> None:
    student = broken(trained, tmp_path) / "students" / "none-seed0"
    steps = sorted(student.glob("checkpoints/step-*"), key=lambda path: int(path.name.split("-")[1]))
    shutil.copyfile(steps[0] / "model.safetensors", steps[1] / "model.safetensors")
    done = cli("angles", student)
    assert done.code == 0, done.err
    numbers = [path.name.split("-")[1] for path in steps]
    assert f"none-seed0 has the same weights at step {numbers[1]} as at step {numbers[0]}" in done.out


def test_angles_refuses_bad_input_of_wider_measurements(cli: Cli, trained: Path, tmp_path: Path) -> None:
    student = trained / "students" / "none-seed0"
    refused(cli("angles", student, "--null", "N9"), "no null 'N9'", "N0, N1")
    refused(cli("angles", student, "--preprocessing", "whitened"), "'whitened'", "drop-K")
    refused(cli("angles", student, "--shard", "3"), "--shard is '3'", "0/4 to 3/4")
    refused(cli("angles", student, "--trajectory", "x.gif"), "must end in .html")
    refused(cli("angles", student, "--trajectory", "x.html", "--no-steps"), "--trajectory needs checkpoints")
    (tmp_path / "one.txt").write_text("a b c\n", encoding="utf-8")
    refused(cli("angles", student, "--data", "one.txt"), "too few", "two examples")
    (tmp_path / "latin.txt").write_bytes("caf\u00e9 cr\u00e8me\nth\u00e9\n".encode("latin-1"))
    refused(cli("angles", student, "--data", "latin.txt"), "latin.txt", "UTF-8")


def test_angles_refuses_weights_that_are_not_finite(cli: Cli, trained: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    student = broken(trained, tmp_path) / "students" / "none-seed0"
    weights = load_file(student / "model.safetensors")
    name = next(name for name in weights if name.endswith("output.dense.weight"))
    weights[name][0, 0] = float("nan")
    save_file(weights, student / "model.safetensors", metadata={"format": "pt"})
    refused(cli("angles", student, "--no-steps"), "the states of none-seed0 are not finite", "train it anew")


def test_angles_refuses_maps_of_the_wrong_shape(cli: Cli, study: ToyStudy, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    student = Path(shutil.copytree(study.learned, tmp_path / "students" / "learned"))
    text = (student / "matching.json").read_text(encoding="utf-8")
    (student / "matching.json").write_text(text.replace("../../teacher", str(study.teacher)), encoding="utf-8")
    maps = load_file(student / "matching_maps.safetensors")
    maps["encoder.1.weight"] = maps["encoder.1.weight"][:, :-1].contiguous()
    save_file(maps, student / "matching_maps.safetensors")
    (tmp_path / "texts.txt").write_text("a b c\nd e\n", encoding="utf-8")
    refused(cli("angles", student, "--data", "texts.txt"), "the map of layer 1 has the shape (32, 23)", "(32, 24)")
