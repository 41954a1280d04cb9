"""The example studies can be planned without hub and weights, and have the paper's hyper-parameters."""

import json
import re
import shlex
from pathlib import Path
from typing import Any, get_args

import psutil
import pytest
import yaml
from toys.command_line import Cli
from toys.recipes import (
    FOLDER,
    GLUE,
    IN_PROCESSES,
    PAPERS,
    QWEN,
    RECIPES,
    ROOT,
    commands_of,
    opening_of,
    overrides_of,
    planned,
    recipe,
    use_known_configurations,
)

from kd_train.matching.controls import TARGETS
from kd_train.matching.losses import DIVERGENCES, HIDDEN_LOSSES
from kd_train.matching.strategies import STRATEGIES
from kd_train.study.costs import estimate
from kd_train.study.plan import plan_study, without_weights
from kd_train.study.study_file import parse_study
from layerangles.models.matching_file import MapKind


@pytest.fixture(autouse=True)
def known_configurations(monkeypatch: pytest.MonkeyPatch) -> None:
    use_known_configurations(monkeypatch)


def test_every_recipe_exists() -> None:
    asked_for = {*PAPERS, "depth-bert", "width-bert", "width-t5", "width-bart", "related-work", "controls"}
    asked_for |= {"letters-to-sounds", "smollm2-reviews", "movie-reviews"}
    assert set(RECIPES) == asked_for


@pytest.mark.parametrize("name", RECIPES)
def test_every_file_opens_with_its_needs_commands_and_the_papers_findings(name: str) -> None:
    opening = opening_of(name)
    assert re.search(r"^ Needs: +\S", opening, re.MULTILINE)
    assert re.search(r"\d GB", opening)
    assert re.search(rf"^ Launch: +layerangles plan  examples/studies/{name}\.yaml", opening, re.MULTILINE)
    assert f"layerangles train examples/studies/{name}.yaml" in opening
    assert re.search(r"\b[Tt]he paper('s|,| reports| has| translates| \()", opening)
    assert all(len(line) < 120 for line in opening.splitlines())


@pytest.mark.parametrize("name", RECIPES)
def test_every_command_in_a_file_is_valid(name: str) -> None:
    commands = commands_of(name)
    assert len(commands) >= 3
    for command in commands:
        assert f"examples/studies/{name}.yaml" in command
        overrides = [value for value in overrides_of(command) if not value.startswith("teacher.model=")]
        study = planned(name, *overrides).study
        if command[0] == "accelerate":
            assert command[:5] == ["accelerate", "launch", "--num_processes", "2", "$(which"]
            specs = [study.training, study.teacher.finetune]
            assert all(
                spec is None or spec.min_micro_batches >= 2 for spec in specs
            )  # else the second has nothing to do
    assert any(command[0] == "accelerate" for command in commands) == (name in IN_PROCESSES)


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_recipes_name_their_assumptions_and_the_switch_for_rates(name: str) -> None:
    words = " ".join(opening_of(name).split())
    assert "Not in our sources" in words
    (switch,) = re.findall(r"To give one its own: (\{.*?\})", words)
    strategies = [yaml.safe_load(switch), *yaml.safe_load((FOLDER / f"{name}.yaml").read_text())["strategies"][2:]]
    members = planned(name, f"strategies={json.dumps(strategies)}").members
    assert members["forward"].learning_rate != members["reverse"].learning_rate


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_plans_without_hub_and_without_weights(name: str) -> None:
    plan = planned(name)
    assert set(plan.members) == {strategy.label for strategy in plan.study.strategies}
    assert plan.study.name == name
    assert plan.notes == []  # no student twice


@pytest.mark.parametrize("name", RECIPES)
def test_plan_prints_every_recipe(cli: Cli, name: str) -> None:
    outcome = cli("plan", FOLDER / f"{name}.yaml")
    assert (outcome.code, outcome.err) == (0, "")
    for strategy in recipe(name).strategies:
        assert re.search(rf"^  {re.escape(strategy.label)} ", outcome.out, re.MULTILINE)
    assert not Path("runs").exists()


@pytest.mark.parametrize("name", RECIPES)
def test_a_loss_that_counts_pad_has_one_micro_batch(name: str) -> None:
    study = recipe(name)
    whole = {s.label for s in study.strategies if (s.loss or study.loss).matched_tokens == "all"}
    assert not whole or study.training.micro_batches == 1


def test_the_estimates_of_qwen_take_no_memory() -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    for name in QWEN:
        plan = planned(name)
        costs = estimate(plan)
        assert costs.teacher.parameters == 8_190_735_360
        models = [without_weights(plan), *(without_weights(plan, m.student) for m in plan.members.values())]
        assert all(parameter.is_meta for model in models for parameter in model.parameters())
        # 9 of 36 blocks, with embeddings and a head that is not tied to them.
        block = (8_190_735_360 - 2 * 151936 * 4096 - 4096) // 36
        assert {cost.parameters for cost in costs.students.values()} == {9 * block + 2 * 151936 * 4096 + 4096}
        assert 12 * 2**30 < costs.students["forward"].memory_bytes < 80 * 2**30
    assert process.memory_info().rss - before < 500 * 2**20


# ---- hyper-parameters

# From the released code, by recipe: the teacher's, then the students'.
TEACHERS: dict[str, dict[str, Any]] = {
    "mnli-bert": {"learning_rate": 2e-5, "epochs": 3, "batch_size": 32},
    "qqp-bert": {"learning_rate": 2e-5, "epochs": 3, "batch_size": 32},
    "qnli-bert": {"learning_rate": 5e-5, "epochs": 3, "batch_size": 32},
    "sst2-bert": {"learning_rate": 5e-5, "epochs": 3, "batch_size": 32},
    "dart-bart": {"learning_rate": 1e-5, "epochs": 16, "batch_size": 16, "warmup": 100},
    "wmt16-t5": {"optimizer": "adafactor", "learning_rate": 5e-4, "epochs": 9, "batch_size": 8},
    "hellaswag-qwen": {"learning_rate": 2e-5, "epochs": 10},
    "coqa-qwen": {"learning_rate": 1e-5, "epochs": 2},
}
STUDENTS: dict[str, dict[str, Any]] = {
    "mnli-bert": {"optimizer": "adamw", "epochs": 10, "batch_size": 32},
    "qqp-bert": {"optimizer": "adamw", "epochs": 10, "batch_size": 32},
    "qnli-bert": {"optimizer": "adamw", "epochs": 10, "batch_size": 32},
    "sst2-bert": {"optimizer": "adamw", "epochs": 20, "batch_size": 32},
    "dart-bart": {"learning_rate": 1e-4, "epochs": 18, "batch_size": 8, "warmup": 100},
    "wmt16-t5": {"optimizer": "adafactor", "learning_rate": 1e-4, "epochs": 40, "batch_size": 8, "warmup": 500},
    "hellaswag-qwen": {"warmup": 1000},
    "coqa-qwen": {"warmup": 1000},
}
TASKS: dict[str, dict[str, Any]] = {
    **{name: {"max_length": 128} for name in GLUE},
    "dart-bart": {"max_length": 128, "beams": 5, "metrics": ("bleu",)},
    "wmt16-t5": {"max_length": 300, "beams": 4, "metrics": ("bleu",), "limit": {"train": 100_000}},
    "hellaswag-qwen": {"metrics": ("accuracy",)},
    "coqa-qwen": {"metrics": ("exact_match",)},
}
MODELS = {
    **dict.fromkeys(GLUE, "google-bert/bert-base-uncased"),
    "dart-bart": "facebook/bart-large",
    "wmt16-t5": "google-t5/t5-base",
    **dict.fromkeys(QWEN, "Qwen/Qwen3-8B"),
}
LOSSES = {
    **dict.fromkeys(GLUE, ("paper_bert", 1)),
    "dart-bart": ("paper_bart", 1),
    "wmt16-t5": ("paper_t5", 2),
    **dict.fromkeys(QWEN, ("paper_qwen", 1)),
}


@pytest.mark.parametrize("name", PAPERS)
def test_the_recipes_have_the_papers_hyper_parameters(name: str) -> None:
    study = recipe(name)
    assert study.teacher.finetune is not None
    for spec, expected in (
        (study.teacher.finetune, TEACHERS[name]),
        (study.training, STUDENTS[name]),
        (study.task, TASKS[name]),
    ):
        assert {key: getattr(spec, key) for key in expected} == expected
    loss = study.loss
    assert (study.teacher.model, (loss.hidden, loss.temperature)) == (MODELS[name], LOSSES[name])
    assert (loss.ce_weight, loss.kl_weight, loss.hidden_weight, loss.divergence) == (1, 1, 3, "forward_kl")
    assert {(s.learning_rate, s.loss) for s in study.strategies} == {(None, None)}  # the maps alone differ


@pytest.mark.parametrize("name", GLUE)
def test_glues_students_are_kept_at_their_best_within_the_papers_rates_and_intervals(name: str) -> None:
    training = recipe(name).training
    assert training.learning_rate in (1e-5, 2e-5)
    assert training.evaluate_every in (500, 1000)
    assert training.keep == "best"


@pytest.mark.parametrize("name", QWEN)
def test_qwens_adapters_and_rates_are_the_papers(name: str) -> None:
    study = recipe(name)
    assert study.training.lora is not None
    assert study.training.lora.model_dump() == {"rank": 128, "alpha": 32, "dropout": 0.1, "targets": "all-linear"}
    assert study.training.learning_rate in (3e-4, 1e-4)
    assert study.student.init == "copied"


def test_the_encoder_decoder_trained_from_scratch_says_so() -> None:
    study = recipe("letters-to-sounds")
    assert study.teacher.init == "random"
    assert "trained from scratch" in " ".join(opening_of("letters-to-sounds").split())
    finetune = study.teacher.finetune
    assert finetune is not None
    assert (finetune.learning_rate, finetune.batch_size, finetune.max_steps) == (1e-3, 64, 1500)
    assert study.task.metrics == ("token_error_rate", "exact_match")


def test_smollm2_learns_the_names_of_labels() -> None:
    from kd_train.data.embedded import LabelledData, LabelledTexts
    from kd_train.data.tables import read_embedded

    part = LabelledTexts(("fine", "dull"), (1, 0))
    data = LabelledData(("negative", "positive"), dict.fromkeys(("train", "dev", "test"), part))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kd_train.data.embedded.load_dataset", lambda _name: data)
        assert list(read_embedded("embedded/movie-reviews")["train"].columns) == ["text", "label"]
        task = recipe("smollm2-reviews").task.load()
    assert task.texts("train") == ["Review: fine\nSentiment: positive", "Review: dull\nSentiment: negative"]


# ---- docs/paper.md

PAPER = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
WRITTEN = re.findall(r"`(\{kind: .*?\}+)`", PAPER)


def test_the_papers_page_names_every_strategy_loss_map_and_control() -> None:
    choices = (*STRATEGIES, *HIDDEN_LOSSES, *get_args(MapKind), *TARGETS, *DIVERGENCES)
    assert [choice for choice in choices if not re.search(rf"`[^`\n]*\b{choice}\b[^`\n]*`", PAPER)] == []
    assert {yaml.safe_load(text)["kind"] for text in WRITTEN} | {"none"} == set(STRATEGIES)


@pytest.mark.parametrize("written", sorted(set(WRITTEN)))
def test_every_entry_on_the_papers_page_is_valid_in_a_study(written: str) -> None:
    content = yaml.safe_load((FOLDER / "mnli-bert.yaml").read_text(encoding="utf-8"))
    whole = {"micro_batches": 1} if "paper_t5" in written or "paper_qwen" in written else {}
    study = parse_study(content | {"strategies": [yaml.safe_load(written)], "training": content["training"] | whole})
    assert len(plan_study(study).members) == 1


@pytest.mark.parametrize("line", sorted(set(re.findall(r"`(--set [^`]+)`", PAPER))))
def test_every_switch_on_the_papers_page_can_be_set(line: str) -> None:
    name = "wmt16-t5" if "decoder" in line else "mnli-bert"
    overrides = overrides_of(shlex.split(line))
    before, after = recipe(name), recipe(name, *overrides, "strategies=[none, forward]")
    plan_study(after)
    for key, value in (override.split("=") for override in overrides):
        section, _, field = key.rpartition(".")
        of = getattr(after, section) if section else after
        now = getattr(of, field)
        assert now == yaml.safe_load(value) or list(now) == yaml.safe_load(value)
    assert before.name == after.name
