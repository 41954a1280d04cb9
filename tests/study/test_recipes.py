"""The studies under ``examples/studies``: they plan without hub or weights, and hold the paper's maps and numbers."""

import json
import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import psutil
import pytest
import yaml
from toys.command_line import Cli
from transformers import BartConfig, BertConfig, LlamaConfig, PretrainedConfig, Qwen3Config, T5Config

from kd_train.matching.controls import TARGETS
from kd_train.matching.losses import DIVERGENCES, HIDDEN_LOSSES
from kd_train.matching.strategies import STRATEGIES
from kd_train.students.student_plan import student_config
from kd_train.study.costs import estimate
from kd_train.study.plan import StudyPlan, plan_study, without_weights
from kd_train.study.study_file import Study, parse_study, read_study
from layerangles.models.matching_file import MapKind

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "studies"
RECIPES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
GLUE = ("mnli-bert", "qqp-bert", "qnli-bert", "sst2-bert")
QWEN = ("hellaswag-qwen", "coqa-qwen")
PAPERS = (*GLUE, "dart-bart", "wmt16-t5", *QWEN)
IN_PROCESSES = tuple(name for name in RECIPES if name != "width-t5")  # that one refers to another for it

# The public sizes of the models; what a study names and is not here is not planned in these tests.
CONFIGURATIONS: dict[str, PretrainedConfig] = {
    "google-bert/bert-base-uncased": BertConfig(),
    "facebook/bart-large": BartConfig(),
    "google-t5/t5-base": T5Config(d_model=768, num_layers=12, num_heads=12, d_ff=3072),
    "Qwen/Qwen3-8B": Qwen3Config(
        vocab_size=151936,
        hidden_size=4096,
        intermediate_size=12288,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=40960,
    ),
    "embedded/all-MiniLM-L6-v2": BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    ),
    "embedded/SmolLM2-135M-Instruct": LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    ),
    "embedded/bart-letters-to-sounds": BartConfig(
        vocab_size=69,
        d_model=128,
        encoder_layers=3,
        decoder_layers=3,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=512,
        decoder_ffn_dim=512,
        max_position_embeddings=64,
    ),
}


@pytest.fixture(autouse=True)
def known_configurations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Configurations come from here, and nothing is fetched."""

    def configuration(model: str, *, revision: str | None = None) -> PretrainedConfig:
        return type(CONFIGURATIONS[model])(**CONFIGURATIONS[model].to_dict())

    monkeypatch.setattr("kd_train.study.plan.load_config", configuration)
    monkeypatch.setattr("kd_train.data.embedded.model_path", Path)


def _recipe(name: str, *overrides: str) -> Study:
    return read_study(FOLDER / f"{name}.yaml", overrides=overrides)


def _planned(name: str, *overrides: str) -> StudyPlan:
    return plan_study(_recipe(name, *overrides))


def _opening(name: str) -> str:
    """The comment that a file opens with, without the signs."""
    lines = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    end = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(line[1:] for line in lines[:end])


def _commands(name: str) -> list[list[str]]:
    """What a file says how to launch it, word by word, for two processes."""
    text = re.sub(r"\\\n\s*", " ", _opening(name))
    found = re.findall(r"((?:layerangles (?:plan|train) |accelerate launch ).*)", text)
    return [shlex.split(re.sub(r"\bN\b", "2", command.partition("   (")[0])) for command in found]


def _overrides(command: list[str]) -> list[str]:
    return [value for option, value in pairwise(command) if option == "--set"]


# What every file says and holds


def test_the_recipes_are_all_there() -> None:
    asked_for = {*PAPERS, "depth-bert", "width-bert", "width-t5", "width-bart", "related-work", "controls"}
    asked_for |= {"letters-to-sounds", "smollm2-reviews", "movie-reviews"}
    assert set(RECIPES) == asked_for


@pytest.mark.parametrize("name", RECIPES)
def test_every_file_opens_with_what_it_needs_how_to_launch_it_and_what_the_paper_says(name: str) -> None:
    opening = _opening(name)
    assert re.search(r"^ Needs: +\S", opening, re.MULTILINE)
    assert re.search(r"\d GB", opening)
    assert re.search(rf"^ Launch: +layerangles plan  examples/studies/{name}\.yaml", opening, re.MULTILINE)
    assert f"layerangles train examples/studies/{name}.yaml" in opening
    assert re.search(r"\b[Tt]he paper('s|,| reports| has| translates| \()", opening)
    assert all(len(line) < 120 for line in opening.splitlines())


@pytest.mark.parametrize("name", RECIPES)
def test_every_command_of_a_file_can_be_given(name: str) -> None:
    commands = _commands(name)
    assert len(commands) >= 3
    for command in commands:
        assert f"examples/studies/{name}.yaml" in command
        overrides = [value for value in _overrides(command) if not value.startswith("teacher.model=")]
        study = _planned(name, *overrides).study
        if command[0] == "accelerate":
            assert command[:5] == ["accelerate", "launch", "--num_processes", "2", "$(which"]
            specs = [study.training, study.teacher.finetune]
            assert all(
                spec is None or spec.min_micro_batches >= 2 for spec in specs
            )  # else the second has nothing to do
    assert any(command[0] == "accelerate" for command in commands) == (name in IN_PROCESSES)


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_recipes_say_what_is_not_the_papers_and_how_rates_are_set_apart(name: str) -> None:
    words = " ".join(_opening(name).split())
    assert "Not in our sources" in words
    (switch,) = re.findall(r"To give one its own: (\{.*?\})", words)
    strategies = [yaml.safe_load(switch), *yaml.safe_load((FOLDER / f"{name}.yaml").read_text())["strategies"][2:]]
    members = _planned(name, f"strategies={json.dumps(strategies)}").members
    assert members["forward"].learning_rate != members["reverse"].learning_rate


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_plans_without_hub_and_without_weights(name: str) -> None:
    plan = _planned(name)
    assert set(plan.members) == {strategy.label for strategy in plan.study.strategies}
    assert plan.study.name == name
    assert plan.notes == []  # no student twice


@pytest.mark.parametrize("name", RECIPES)
def test_plan_prints_every_recipe(cli: Cli, name: str) -> None:
    outcome = cli("plan", FOLDER / f"{name}.yaml")
    assert (outcome.code, outcome.err) == (0, "")
    for strategy in _recipe(name).strategies:
        assert re.search(rf"^  {re.escape(strategy.label)} ", outcome.out, re.MULTILINE)
    assert not Path("runs").exists()


@pytest.mark.parametrize("name", RECIPES)
def test_a_loss_that_counts_pad_has_whole_batches(name: str) -> None:
    study = _recipe(name)
    whole = {s.label for s in study.strategies if (s.loss or study.loss).matched_tokens == "all"}
    assert not whole or study.training.micro_batches == 1


def test_the_estimates_of_qwen_take_no_memory() -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    for name in QWEN:
        plan = _planned(name)
        costs = estimate(plan)
        assert costs.teacher.parameters == 8_190_735_360
        models = [without_weights(plan), *(without_weights(plan, m.student) for m in plan.members.values())]
        assert all(parameter.is_meta for model in models for parameter in model.parameters())
        # 9 of 36 blocks, with embeddings and a head that is not tied to them.
        block = (8_190_735_360 - 2 * 151936 * 4096 - 4096) // 36
        assert {cost.parameters for cost in costs.students.values()} == {9 * block + 2 * 151936 * 4096 + 4096}
        assert 12 * 2**30 < costs.students["forward"].memory_bytes < 80 * 2**30
    assert process.memory_info().rss - before < 500 * 2**20


# Layer maps

FORWARD_3 = [(0, 0), (1, 4), (2, 8), (3, 12)]
REVERSE_3 = [(0, 0), (1, 12), (2, 8), (3, 4)]
TO_SIX_3 = [(0, 6), (1, 6), (2, 6), (3, 6)]


@pytest.mark.parametrize("name", [*GLUE, "dart-bart", "wmt16-t5"])
def test_of_12_layers_students_of_3_have_the_papers_maps_in_every_tower(name: str) -> None:
    members = _planned(name).members
    towers = ("encoder",) if name in GLUE else ("encoder", "decoder")
    expected = {"none": [], "forward": FORWARD_3, "reverse": REVERSE_3, "all_to_one": TO_SIX_3}
    for kind, pairs in expected.items():
        for label in (kind, f"{kind}-scratch"):  # the map is no matter of how students begin
            assert members[label].pairs == {tower: tuple(pairs) for tower in towers}
    for tower in towers:
        first, *others = members["random"].pairs[tower]
        assert first == (0, 0)
        assert sorted(layer for _, layer in others) == [4, 8, 12]
        assert [layer for _, layer in others] not in ([4, 8, 12], [12, 8, 4])
    assert members["random"].pairs == members["random-scratch"].pairs


@pytest.mark.parametrize("name", QWEN)
def test_qwens_students_leave_the_embedding_output_alone(name: str) -> None:
    members = _planned(name).members
    forward = [4, 8, 12, 16, 20, 24, 28, 32, 36]
    assert [t for _, t in members["forward"].pairs["decoder"]] == forward
    assert [t for _, t in members["reverse"].pairs["decoder"]] == forward[::-1]
    assert members["all_to_one"].pairs["decoder"] == tuple((j, 18) for j in range(1, 10))
    assert {student for m in members.values() for student, _ in m.pairs["decoder"]} == set(range(1, 10))


def test_the_depth_study_has_the_papers_targets() -> None:
    plan = _planned("depth-bert")
    targets = {3: (4, 8, 12), 6: (2, 4, 6, 8, 10, 12), 9: (2, 3, 4, 6, 7, 8, 10, 11, 12)}
    assert len(plan.members) == 15
    for depth, layers in targets.items():
        forward, reverse = plan.members[f"forward-{depth}"], plan.members[f"reverse-{depth}"]
        assert forward.student.layers == {"encoder": depth}
        assert forward.student.copied_layers == {"encoder": layers}
        assert forward.pairs["encoder"] == ((0, 0), *enumerate(layers, start=1))
        assert reverse.pairs["encoder"] == ((0, 0), *enumerate(layers[::-1], start=1))
        assert reverse.student == forward.student  # the order of copying stays
        assert {t for _, t in plan.members[f"all_to_one-{depth}"].pairs["encoder"]} == {6}


@pytest.mark.parametrize(
    ("name", "widths", "heads"),
    [
        ("width-bert", (384, 576), (6, 9)),
        ("width-t5", (384, 576), (6, 9)),
        ("width-bart", (512, 768), (8, 12)),
    ],
)
def test_the_width_studies_have_the_papers_widths_from_scratch_behind_trained_maps(
    name: str, widths: tuple[int, ...], heads: tuple[int, ...]
) -> None:
    plan = _planned(name)
    for width, n_heads in zip(widths, heads, strict=True):
        for kind in ("none", "forward", "reverse", "all_to_one", "random"):
            student = plan.members[f"{kind}-{width}"].student
            assert (student.width, student.map, student.embeddings) == (width, "learned", "random")
            assert not any(student.copied_layers.values())
            config = student_config(student, plan.teacher)
            assert (config.hidden_size, config.num_attention_heads) == (width, n_heads)
    frozen = {label: member for label, member in plan.members.items() if label.endswith("frozen")}
    assert len(frozen) == (8 if name == "width-bert" else 0)
    for label, member in frozen.items():
        trained = plan.members[label.removesuffix("-frozen")]
        assert member.student == trained.student.model_copy(update={"map": "frozen"})
        assert member.pairs == trained.pairs


def test_t5_copies_other_blocks_than_it_is_matched_to() -> None:
    members = _planned("wmt16-t5").members
    for kind in ("none", "forward", "reverse", "all_to_one", "random"):
        assert members[kind].student.copied_layers == {"encoder": (1, 7, 12), "decoder": (1, 7, 12)}
        assert members[f"{kind}-scratch"].student.copied_layers == {"encoder": (), "decoder": ()}


@pytest.mark.parametrize("name", [*GLUE, "dart-bart"])
def test_bert_and_bart_copy_the_blocks_that_forward_is_matched_to(name: str) -> None:
    members = _planned(name).members
    for kind in ("none", "forward", "reverse", "all_to_one", "random"):
        assert set(members[kind].student.copied_layers.values()) == {(4, 8, 12)}
        assert members[kind].student.embeddings == "copied"
        scratch = members[f"{kind}-scratch"].student
        assert set(scratch.copied_layers.values()) == {()}
        assert scratch.embeddings == "random"


def test_the_related_work_has_every_strategy_but_what_others_show() -> None:
    plan = _planned("related-work")
    shown_elsewhere = {"reverse", "all_to_one", "random", "explicit"}
    assert {member.strategy.kind for member in plan.members.values()} == set(STRATEGIES) - shown_elsewhere
    pairs = {label: member.pairs["encoder"] for label, member in plan.members.items()}
    assert pairs["patient_skip"] == ((1, 2), (2, 4))
    assert pairs["patient_last"] == ((1, 4), (2, 5))
    assert pairs["tinybert"] == pairs["forward"] == pairs["cofi"] == ((0, 0), (1, 2), (2, 4), (3, 6))
    assert (pairs["first"], pairs["last"], pairs["one_to_one"]) == (((1, 1),), ((3, 6),), ((2, 3),))
    assert len(pairs["alp-kd"]) == 3 * 6
    loss = {label: (member.loss.hidden, member.loss.matched_tokens) for label, member in plan.members.items()}
    assert loss["patient_skip"] == loss["patient_last"] == ("patient", "first")
    assert loss["alp-kd"] == ("mse", "first")
    assert (plan.members["tinybert"].student.map, plan.members["tinybert"].student.share_map) == ("learned", True)
    assert plan.members["rail-kd"].strategy.redraw == "epoch"
    changing = {label for label, member in plan.members.items() if member.strategy.change}
    assert changing == {"rail-kd", "alp-kd", "cofi"}


def test_the_controls_differ_from_forward_in_their_targets_alone() -> None:
    plan = _planned("controls")
    assert len(plan.study.seeds) >= 3
    forward = plan.members["forward"]
    controls = [member for label, member in plan.members.items() if label not in ("none", "forward")]
    assert {member.strategy.targets for member in controls} | {"teacher"} == set(TARGETS)
    for member in controls:
        assert (member.pairs, member.student, member.loss) == (forward.pairs, forward.student, forward.loss)


# Hyper-parameters

# Of the released code. By recipe: the teacher's, then the students'; what is None is not in our sources.
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
def test_the_papers_hyper_parameters(name: str) -> None:
    study = _recipe(name)
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
    training = _recipe(name).training
    assert training.learning_rate in (1e-5, 2e-5)
    assert training.evaluate_every in (500, 1000)
    assert training.keep == "best"


@pytest.mark.parametrize("name", QWEN)
def test_qwens_adapters_and_rates_are_the_papers(name: str) -> None:
    study = _recipe(name)
    assert study.training.lora is not None
    assert study.training.lora.model_dump() == {"rank": 128, "alpha": 32, "dropout": 0.1, "targets": "all-linear"}
    assert study.training.learning_rate in (3e-4, 1e-4)
    assert study.student.init == "copied"


def test_the_encoder_decoder_that_is_trained_from_nothing_says_so() -> None:
    study = _recipe("letters-to-sounds")
    assert study.teacher.init == "random"
    assert "trained from nothing" in " ".join(_opening("letters-to-sounds").split())
    finetune = study.teacher.finetune
    assert finetune is not None
    assert (finetune.learning_rate, finetune.batch_size, finetune.max_steps) == (1e-3, 64, 1500)
    assert study.task.metrics == ("token_error_rate", "exact_match")


def test_smollm2_is_asked_for_the_names_of_labels() -> None:
    from kd_train.data.embedded import LabelledData, LabelledTexts
    from kd_train.data.tables import read_embedded

    part = LabelledTexts(("fine", "dull"), (1, 0))
    data = LabelledData(("negative", "positive"), dict.fromkeys(("train", "dev", "test"), part))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kd_train.data.embedded.load_dataset", lambda _name: data)
        assert list(read_embedded("embedded/movie-reviews")["train"].columns) == ["text", "label"]
        task = _recipe("smollm2-reviews").task.load()
    assert task.texts("train") == ["Review: fine\nSentiment: positive", "Review: dull\nSentiment: negative"]


# What docs/paper.md says

PAPER = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
WRITTEN = re.findall(r"`(\{kind: .*?\}+)`", PAPER)


def test_the_reference_names_every_strategy_loss_map_and_control() -> None:
    choices = (*STRATEGIES, *HIDDEN_LOSSES, *get_args(MapKind), *TARGETS, *DIVERGENCES)
    assert [choice for choice in choices if not re.search(rf"`[^`\n]*\b{choice}\b[^`\n]*`", PAPER)] == []
    assert {yaml.safe_load(text)["kind"] for text in WRITTEN} | {"none"} == set(STRATEGIES)


@pytest.mark.parametrize("written", sorted(set(WRITTEN)))
def test_what_the_reference_writes_can_stand_in_a_study(written: str) -> None:
    content = yaml.safe_load((FOLDER / "mnli-bert.yaml").read_text(encoding="utf-8"))
    whole = {"micro_batches": 1} if "paper_t5" in written or "paper_qwen" in written else {}
    study = parse_study(content | {"strategies": [yaml.safe_load(written)], "training": content["training"] | whole})
    assert len(plan_study(study).members) == 1


@pytest.mark.parametrize("line", sorted(set(re.findall(r"`(--set [^`]+)`", PAPER))))
def test_every_switch_that_the_reference_names_can_be_set(line: str) -> None:
    name = "wmt16-t5" if "decoder" in line else "mnli-bert"
    overrides = _overrides(shlex.split(line))
    before, after = _recipe(name), _recipe(name, *overrides, "strategies=[none, forward]")
    plan_study(after)
    for key, value in (override.split("=") for override in overrides):
        section, _, field = key.rpartition(".")
        of = getattr(after, section) if section else after
        now = getattr(of, field)
        assert now == yaml.safe_load(value) or list(now) == yaml.safe_load(value)
    assert before.name == after.name
