"""``layerangles angles``: what it measures, prints and writes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from toys.command_line import Cli, refused
from toys.models import toy_bert, write_model
from toys.studies import ToyStudy

from layerangles import AngleResult
from layerangles.geometry.nulls import NULLS


def test_student_directories_suffice(cli: Cli, trained: Path, tmp_path: Path) -> None:
    students = sorted((trained / "students").iterdir())
    outcome = cli("angles", *students, "--html", "maps.html", "--device", "cpu", "--no-steps")
    assert outcome.code == 0
    result = AngleResult.load("run/angles/angles.nc")
    assert result.students == ["forward-seed0", "none-seed0"]
    assert result.dataset.attrs["n_examples"] == 20  # the dev split
    mean = float(result.dataset["layer_angle_deg"].sel(student="none-seed0", student_layer=1).item())
    assert f"{mean:.1f}" in outcome.out
    assert (tmp_path / "maps.html").stat().st_size > 1_000_000
    assert outcome.out.splitlines()[-2:] == ["wrote run/angles/angles.nc", "wrote maps.html"]
    refused(cli("angles", *students), "run/angles/angles.nc exists already", "--overwrite")


def test_angles_over_training_as_json(cli: Cli, trained: Path) -> None:
    content = json.loads(cli("angles", trained / "students" / "forward-seed0", "--steps", "--json").out)
    assert {row["step"] for row in content["summary"]} == {0, 4, 8}
    assert content["space"] == "teacher"
    at_start = [row for row in content["summary"] if row["step"] == 0 and row["student_layer"] == 0]
    assert at_start[0]["n_degenerate"] > 0  # the copied embedding output is the teacher's


def test_any_two_models_are_measured_on_a_file_of_texts(cli: Cli, study: ToyStudy, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(study.texts), encoding="utf-8")
    other = write_model(tmp_path / "other", toy_bert(layers=2, seed=9))
    outcome = cli("angles", "--teacher", study.teacher, "--student", other, "--data", "texts.txt", "-o", "any.nc")
    assert outcome.code == 0
    assert AngleResult.load("any.nc").dataset.attrs["n_examples"] == len(study.texts)


def test_max_examples_are_drawn_evenly_from_the_file(cli: Cli, study: ToyStudy, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(study.texts), encoding="utf-8")
    arguments = ("angles", study.identity, "--data", "texts.txt", "--max-examples", 5, "--json")
    assert json.loads(cli(*arguments).out)["n_examples"] == 5


def test_angles_measures_checkpoints_and_nulls_by_default(cli: Cli, trained: Path) -> None:
    done = cli("angles", trained / "students" / "forward-seed0", "--trajectory", "course.html")
    assert done.code == 0, done.err
    assert "excess °" in done.out
    result = AngleResult.load("run/angles/angles.nc")
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
    assert last.nulls == list(NULLS)
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


def test_steps_of_the_same_weights_are_reported(cli: Cli, trained: Path, tmp_path: Path) -> None:
    student = trained / "students" / "none-seed0"
    steps = sorted(student.glob("checkpoints/step-*"), key=lambda path: int(path.name.split("-")[1]))
    shutil.copyfile(steps[0] / "model.safetensors", steps[1] / "model.safetensors")
    done = cli("angles", student)
    assert done.code == 0, done.err
    numbers = [path.name.split("-")[1] for path in steps]
    assert f"none-seed0 has the same weights at step {numbers[1]} as at step {numbers[0]}" in done.out


def test_a_result_lands_where_the_other_commands_read_it(cli: Cli, trained: Path, study: ToyStudy) -> None:
    cli("angles", *sorted((trained / "students").iterdir()), "--max-examples", 4, "--no-steps", "--device", "cpu")
    done = cli("draw", "heatmap", trained, "--student", "none-seed0", "-o", "map.html")
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    "options", [("--shard", "0/2"), ("--preprocessing", "unit"), ("--fit", "ridge"), ("--space", "pull")]
)
def test_a_result_that_is_no_plain_measurement_stays_out_of_the_study(
    cli: Cli, trained: Path, options: tuple[str, str]
) -> None:
    done = cli("angles", trained / "students" / "forward-seed0", "--max-examples", 8, "--no-steps", *options)
    assert done.code == 0, done.err
    assert done.out.endswith("wrote angles.nc\n")
    assert not (trained / "angles").exists()


def test_the_options_of_a_measurement_are_its_settings() -> None:
    from layerangles_cli.main import app
    from typer.main import get_command

    from layerangles.settings import DEFAULTS, SETTINGS

    command: Any = get_command(app)
    parameters = {parameter.name: parameter for parameter in command.commands["angles"].params}
    assert set(SETTINGS) - set(parameters) == {"confidence", "students_per_pass"}
    for name in set(SETTINGS) & set(parameters):
        assert parameters[name].help == SETTINGS[name].help
        if name not in ("nulls", "steps", "shard"):  # these say in words what they are by default
            assert parameters[name].default == DEFAULTS[name]
