"""Who is trained no further, which state is kept, what changing maps say of themselves, and what a full disk leaves."""

import json
import signal
import textwrap
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from toys.models import toy_bert, write_model
from toys.processes import Ended, in_processes
from toys.training import differing, toy_study, toy_teacher, write_jsonl, write_task
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from kd_train.matching.strategies import Strategy, layer_pairs
from kd_train.study.score_logs import METRICS_FILE, Measurement, MetricsLog
from kd_train.study.study_file import Study, read_study
from kd_train.training.bank import Bank
from kd_train.training.member import Member
from kd_train.training.run import TrainingContext
from kd_train.training.train_study import train_study
from layerangles import InputError, open_student
from layerangles.errors import RunError
from layerangles.models.checkpoints import check_weights

WILD = {"kind": "forward", "name": "wild", "learning_rate": 1e25}
EVERY_STEP = [step / 8 for step in range(9)]
TRAINING: dict[str, Any] = {
    "max_steps": 8,
    "batch_size": 8,
    "micro_batches": 2,
    "learning_rate": 1e-3,
    "checkpoints": EVERY_STEP,
    "evaluate_every": 1,
    "resume_every": 2,
}


@dataclass(frozen=True)
class Toys:
    """A teacher that knows its task, and the task's files."""

    root: Path
    teacher: Path
    files: dict[str, str]

    def study(self, folder: Path, *strategies: Any, training: dict[str, Any] | None = None, **changes: Any) -> Study:
        content = {"teacher": {"model": str(self.teacher)}, "strategies": list(strategies)} | changes
        return toy_study(folder, self.files, self.teacher, training=TRAINING | (training or {}), **content)


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Toys:
    root = tmp_path_factory.mktemp("stops")
    return Toys(root, write_model(root / "teacher", toy_teacher()), write_task(root / "task"))


def _weights(study: Study, student: str, step: int | None = None) -> bytes:
    place = study.folder / "students" / f"{student}-seed0"
    place = place if step is None else place / "checkpoints" / f"step-{step}"
    return (place / "model.safetensors").read_bytes()


def _matching(study: Study, student: str, step: int | None = None) -> dict[str, Any]:
    place = study.folder / "students" / f"{student}-seed0"
    place = place if step is None else place / "checkpoints" / f"step-{step}"
    content: dict[str, Any] = json.loads((place / "matching.json").read_text(encoding="utf-8"))
    return content


def _lines(study: Study, *, of: str = "") -> Counter[str]:
    """The lines of the metrics file, without clocks."""
    lines = (study.folder / METRICS_FILE).read_text(encoding="utf-8").splitlines()
    return Counter(line for line in lines if "seconds_per_step" not in line and of in line)


def _files(study: Study) -> dict[str, bytes]:
    students = study.folder / "students"
    return {f.relative_to(students).as_posix(): f.read_bytes() for f in students.rglob("*") if f.is_file()}


def _assert_same(got: Study, expected: Study) -> None:
    ours, theirs = _files(got), _files(expected)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []
    assert _lines(got) == _lines(expected)


# ---- students that diverge -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wild(toys: Toys, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A student that diverges, between two that do not."""
    study = toys.study(tmp_path_factory.mktemp("wild") / "study", "none", WILD, "forward")
    train_study(study, device="cpu")
    return study


def test_a_student_that_diverged_is_marked_and_none_is_written(wild: Study) -> None:
    place = wild.folder / "students" / "wild-seed0"
    assert {file.name for file in place.iterdir()} == {"stopped.json", "checkpoints"}
    stopped = json.loads((place / "stopped.json").read_text(encoding="utf-8"))
    assert stopped.keys() == {"step", "reason", "failed"}
    assert stopped["failed"] is True
    assert stopped["reason"].startswith("its loss was ")
    assert stopped["reason"].endswith(f" in step {stopped['step'] + 1}")
    kept = {int(file.name.removeprefix("step-")) for file in (place / "checkpoints").iterdir()}
    assert kept == set(range(stopped["step"] + 1))  # none from after it stopped
    scored = [m for m in MetricsLog(wild.folder).read() if m.student == "wild-seed0"]
    assert {m.step for m in scored if m.split == "dev"} == set(range(1, stopped["step"] + 1))
    assert not [m for m in scored if m.split == "test"]


@pytest.fixture(scope="module")
def calm(toys: Toys, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study of which nothing is to be told."""
    study = toys.study(tmp_path_factory.mktemp("calm") / "study", "none", "forward")
    train_study(study, device="cpu")
    return study


def test_the_others_are_those_of_a_study_without_it(wild: Study, calm: Study) -> None:
    assert {name: content for name, content in _files(wild).items() if "wild" not in name} == _files(calm)
    assert _lines(wild) - _lines(wild, of="wild-seed0") == _lines(calm)


def test_a_study_with_a_marked_student_is_finished(wild: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _files(wild), _lines(wild)
    monkeypatch.setattr(Bank, "train_step", None)
    train_study(wild, resume=True, device="cpu")
    assert (_files(wild), _lines(wild)) == before


def test_a_run_in_which_all_diverge_ends(toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    step_of_bank = Bank.train_step
    monkeypatch.setattr(
        Bank,
        "train_step",
        lambda bank, micro_batches, step: steps.append(step) or step_of_bank(bank, micro_batches, step),
    )
    folder = train_study(toys.study(tmp_path / "study", WILD), device="cpu")
    stopped = json.loads((folder / "students" / "wild-seed0" / "stopped.json").read_text(encoding="utf-8"))
    assert steps == list(range(stopped["step"] + 1))
    assert len(steps) < 8


def test_a_teacher_that_diverges_teaches_nobody(toys: Toys, tmp_path: Path) -> None:
    tuning = {"max_steps": 6, "batch_size": 8, "learning_rate": 1e25}
    study = toys.study(tmp_path / "study", "none", teacher={"model": str(toys.teacher), "finetune": tuning})
    with pytest.raises(RunError, match=r"fine-tuning the teacher failed: its loss was .* Lower teacher\.finetune\.lea"):
        train_study(study, device="cpu")
    assert not (study.folder / "teacher").exists()
    assert not (study.folder / "students").exists()


# ---- early stopping, and the best state ----------------------------------------------------------------------------

# What each student is scored with on dev after so many steps; both metrics, by which more or less is better.
_SCRIPT = {
    "peaks": [0.1, 0.5, 0.9, 0.2, 0.3, 0.4, 0.8, 0.7],
    "rises": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8],
    "falls": [0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1],
    "nothing": [float("nan")] * 8,
    "evens": [0.5, 0.4, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6],
}
_SCRIPTED = [{"kind": "forward", "name": name} for name in _SCRIPT]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluate(context: TrainingContext, member: Member, step: int, splits: Any) -> None:
        name = member.name.removesuffix("-seed0")
        for split in splits:
            value = _SCRIPT[name][step - 1] if split == "dev" and name in _SCRIPT else 0.0
            context.report([Measurement(member.name, step, split, context.task.metrics[0], value)])

    monkeypatch.setattr(TrainingContext, "evaluate", evaluate)


def _numbers(folder: Path) -> dict[str, str]:
    """A regression: how many words a text has."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for split, n in (("train", 24), ("dev", 12)):
        rows = [{"text": " ".join("abc"[i % 3] * (1 + i % 5)), "label": float(1 + i % 5)} for i in range(n)]
        files[split] = str(write_jsonl(folder / f"{split}.jsonl", rows))
    return files


def _regression(toys: Toys, folder: Path, *strategies: Any, **training: Any) -> Study:
    teacher = folder.parent / "regressor"
    if not teacher.exists():
        write_model(teacher, toy_bert(layers=4, num_labels=1, problem_type="regression"))
    task = {"kind": "regression", "files": _numbers(folder.parent / "numbers"), "metrics": ["mean_squared_error"]}
    task["max_length"] = 16
    return toys.study(folder, *strategies, task=task, teacher={"model": str(teacher)}, training=training)


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize("keep", ["last", "best"])
def test_students_that_get_no_better_stop(toys: Toys, tmp_path: Path, keep: str) -> None:
    study = toys.study(tmp_path / "study", *_SCRIPTED, training={"patience": 2, "keep": keep})
    train_study(study, device="cpu")
    # Two evaluations without a better one: from the best on dev, the earliest of equals.
    stopped = {"peaks": 5, "rises": 8, "falls": 3, "nothing": 8, "evens": 3}
    best = {"peaks": 3, "rises": 8, "falls": 1, "nothing": None, "evens": 1}
    for name, step in stopped.items():
        expected = best[name] or step if keep == "best" else step
        matching = _matching(study, name)
        assert (name, matching["step"]) == (name, expected)
        assert (matching["best"] or {}).get("step") == best[name]
        kept = study.folder / "students" / f"{name}-seed0" / "checkpoints"
        assert {int(f.name.removeprefix("step-")) for f in kept.iterdir()} == set(range(step + 1)) - {8}
        if expected < 8:
            assert _weights(study, name) == _weights(study, name, expected)
        scored = [m for m in MetricsLog(study.folder).read() if m.student == f"{name}-seed0"]
        assert [m.step for m in scored if m.split == "dev"] == list(range(1, step + 1))
        assert [m.step for m in scored if m.split == "test"] == [expected]  # what is written is what is scored
        assert not (study.folder / "students" / f"{name}-seed0" / "stopped.json").exists()


@pytest.mark.usefixtures("scripted")
def test_the_best_is_kept_where_less_is_better(toys: Toys, tmp_path: Path) -> None:
    study = _regression(toys, tmp_path / "study", *_SCRIPTED, keep="best")
    train_study(study, device="cpu")
    best = {"peaks": 1, "rises": 1, "falls": 8, "nothing": 8, "evens": 2}
    assert {name: _matching(study, name)["step"] for name in best} == best
    for name, step in best.items():
        if step < 8:
            assert _weights(study, name) == _weights(study, name, step)
            assert _weights(study, name) != _weights(study, name, step + 1)
    assert _matching(study, "evens")["best"] == {"step": 2, "metric": "mean_squared_error", "value": 0.4}


def test_the_student_that_is_kept_scores_as_its_best(toys: Toys, tmp_path: Path) -> None:
    """By transformers alone, with a learning rate that makes it better and worse."""
    study = _regression(toys, tmp_path / "study", "forward", keep="best", learning_rate=2e-2, warmup=0.0)
    train_study(study, device="cpu")
    errors = {m.step: m.value for m in MetricsLog(study.folder).read() if m.split == "dev" and m.step > 0}
    best = _matching(study, "forward")["best"]
    assert best == {"step": best["step"], "metric": "mean_squared_error", "value": min(errors.values())}
    assert errors[best["step"]] == min(errors.values()) < errors[8]
    place = study.folder / "students" / "forward-seed0"
    model = AutoModelForSequenceClassification.from_pretrained(place).eval()
    tokenizer = AutoTokenizer.from_pretrained(place)
    rows = [json.loads(line) for line in Path(study.task.files["dev"]).read_text(encoding="utf-8").splitlines()]
    with torch.no_grad():
        squared = [(float(model(**tokenizer(r["text"], return_tensors="pt")).logits) - r["label"]) ** 2 for r in rows]
    assert sum(squared) / len(squared) == pytest.approx(best["value"], rel=1e-4)


# ---- maps that change, and targets that are none -------------------------------------------------------------------

_CHANGING: list[Any] = [
    "attention",
    "dynamic",
    {"kind": "random", "mapping_seed": 3, "redraw": 3},
    {"kind": "in_order_random", "redraw": "epoch"},
    {"kind": "last", "targets": "gaussian"},
    {"kind": "forward", "targets": "random_teacher"},
]
_REDRAWN = "random-draw3-every-3"


@pytest.fixture(scope="module")
def changing(toys: Toys, tmp_path_factory: pytest.TempPathFactory) -> Study:
    study = toys.study(tmp_path_factory.mktemp("changing") / "study", *_CHANGING)
    train_study(study, device="cpu")
    return study


def test_matching_json_says_what_a_changing_map_did(changing: Study) -> None:
    def draw(number: int, kind: str = "random", mapping_seed: int = 3) -> list[list[int]]:
        strategy = Strategy(kind=kind, mapping_seed=mapping_seed, redraw=1)
        return [list(pair) for pair in layer_pairs(strategy, 2, 4, draw=number)]

    for step in (1, 3, 4, None):
        done = step or 8
        matching = _matching(changing, _REDRAWN, step)
        assert matching["strategy"] == {"kind": "random", "mapping_seed": 3, "redraw": 3}
        assert matching["mapping_seed"] == 3
        draws = [{"from_step": n * 3, "pairs": draw(n)} for n in range(-(-done // 3))]
        assert matching["changing"] == {"encoder": {"kind": "redrawn", "every_steps": 3, "draws": draws}}
        assert matching["towers"]["encoder"]["pairs"] == draws[-1]["pairs"]  # those that led here
    in_order = _matching(changing, "in_order_random-every-epoch")
    draws = [{"from_step": n * 5, "pairs": draw(n, "in_order_random", 0)} for n in range(2)]  # 40 examples: 5 steps
    assert in_order["changing"] == {"encoder": {"kind": "redrawn", "every_steps": 5, "draws": draws}}
    assert in_order["mapping_seed"] == 0


def test_matching_json_has_the_weights_of_attention(changing: Study) -> None:
    assert _matching(changing, "attention", 0)["changing"]["encoder"]["mean_weights"] == [[0.0] * 4] * 2
    seen = []
    for step in (1, 4, None):
        record = _matching(changing, "attention", step)["changing"]["encoder"]
        assert record["kind"] == "attention"
        assert [sum(row) for row in record["mean_weights"]] == pytest.approx([1, 1])
        seen.append(record["mean_weights"])
    assert seen[0] != seen[1] != seen[2]
    pairs = _matching(changing, "attention")["towers"]["encoder"]["pairs"]
    assert pairs == [[s, t] for s in (1, 2) for t in (1, 2, 3, 4)]


def test_matching_json_has_the_steps_of_a_dynamic_map(changing: Study) -> None:
    for step in (0, 1, 4, None):
        done = 8 if step is None else step
        record = _matching(changing, "dynamic", step)["changing"]["encoder"]
        assert (record["kind"], record["teacher_layers"]) == ("dynamic", [2, 4])
        counts = record["steps"]
        assert [sum(row[column] for row in counts) for column in (0, 1)] == [done, done]
    assert _matching(changing, "dynamic", 1)["changing"]["encoder"]["steps"] == [[1, 0], [0, 1]]  # forward's


@pytest.mark.usefixtures("scripted")
def test_the_kept_state_says_what_its_map_did_until_then(toys: Toys, tmp_path: Path) -> None:
    strategies = [{"kind": "dynamic", "name": "peaks"}, {"kind": "attention", "name": "evens"}]
    study = toys.study(tmp_path / "study", *strategies, training={"keep": "best"})
    train_study(study, device="cpu")
    for name, step in (("peaks", 3), ("evens", 4)):
        kept, then = _matching(study, name), _matching(study, name, step)
        assert kept["step"] == step
        assert (kept["changing"], kept["towers"]) == (then["changing"], then["towers"])


def test_the_pairs_of_a_dynamic_map_are_those_of_the_last_step(changing: Study) -> None:
    counts = [_matching(changing, "dynamic", step)["changing"]["encoder"]["steps"] for step in range(8)]
    for step in range(1, 8):
        used = [
            next(row for row in (1, 2) if counts[step][row - 1][column] > counts[step - 1][row - 1][column])
            for column in (0, 1)
        ]
        pairs = _matching(changing, "dynamic", step)["towers"]["encoder"]["pairs"]
        assert pairs == [[0, 0], [used[0], 2], [used[1], 4]]


def test_matching_json_says_when_the_targets_are_none_of_the_teacher(changing: Study) -> None:
    assert _matching(changing, "attention")["targets"] == "teacher"
    assert _matching(changing, "last-gaussian")["targets"] == "gaussian"
    control = _matching(changing, "forward-random_teacher")
    assert (control["targets"], control["changing"]) == ("random_teacher", None)
    assert control["strategy"] == {"kind": "forward"}
    assert control["towers"]["encoder"]["pairs"] == [[0, 0], [1, 2], [2, 4]]


def test_a_random_teacher_is_another_network_and_follows_from_the_seed(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[dict[str, torch.Tensor]] = []
    bank = Bank.__init__

    def spy(self: Bank, members: Any, teacher: Any, *, random_teacher: Any = None, **options: Any) -> None:
        made.append({name: tensor.clone() for name, tensor in random_teacher.state_dict().items()})
        assert random_teacher.config.to_dict() == teacher.config.to_dict()
        bank(self, members, teacher, random_teacher=random_teacher, **options)

    monkeypatch.setattr(Bank, "__init__", spy)
    training = {"max_steps": 1, "checkpoints": []}
    control = {"kind": "forward", "targets": "random_teacher"}
    for name, torch_seed in (("first", 1), ("again", 2)):
        torch.manual_seed(torch_seed)
        train_study(toys.study(tmp_path / name, control, training=training, seeds=[0, 1]), device="cpu")
    assert [differing(made[0], other) == set() for other in made] == [True, False, True, False]
    matrices = {name for name, tensor in made[0].items() if tensor.ndim > 1}
    assert matrices <= differing(made[0], load_file(toys.teacher / "model.safetensors"))


def test_principal_maps_are_those_of_the_layers_that_are_matched(toys: Toys, tmp_path: Path) -> None:
    """Against a singular value decomposition of the teacher's states, text by text."""
    student = {"layers": 2, "width": 24, "init": "random", "map": "pca"}
    training = {"max_steps": 2, "checkpoints": [0]}
    study = toys.study(tmp_path / "study", "reverse", "last", student=student, training=training)
    train_study(study, device="cpu")
    by_text = _teacher_states(toys)
    for name, targets in (("reverse", (0, 4, 2)), ("last", (0, 2, 4))):  # unmatched: forward's
        maps = load_file(study.folder / "students" / f"{name}-seed0" / "matching_maps.safetensors")
        first = load_file(study.folder / "students" / f"{name}-seed0/checkpoints/step-0/matching_maps.safetensors")
        for layer, target in enumerate(targets):
            states = torch.cat([states[target][0] for states in by_text]).double()
            directions = maps[f"encoder.{layer}.weight"]
            assert torch.equal(first[f"encoder.{layer}.weight"], directions)  # fixed
            kept = float((states @ directions.double()).square().sum())
            assert kept == pytest.approx(float(torch.linalg.svdvals(states)[:24].square().sum()), rel=1e-6)
            torch.testing.assert_close(directions.T @ directions, torch.eye(24), rtol=0, atol=1e-5)


def test_a_shared_principal_map_keeps_most_of_all_its_layers(toys: Toys, tmp_path: Path) -> None:
    student = {"layers": 2, "width": 24, "init": "random", "map": "pca", "share_map": True}
    study = toys.study(tmp_path / "study", "forward", student=student, training={"max_steps": 1, "checkpoints": []})
    train_study(study, device="cpu")
    states = torch.cat([torch.cat([of[layer][0] for of in _teacher_states(toys)]) for layer in (0, 2, 4)]).double()
    maps = load_file(study.folder / "students" / "forward-seed0" / "matching_maps.safetensors")
    for directions in maps.values():
        kept = float((states @ directions.double()).square().sum())
        assert kept == pytest.approx(float(torch.linalg.svdvals(states)[:24].square().sum()), rel=1e-6)


def _teacher_states(toys: Toys) -> list[Any]:
    """The states of every training text by itself, layer by layer."""
    teacher, tokenizer = AutoModel.from_pretrained(toys.teacher).eval(), AutoTokenizer.from_pretrained(toys.teacher)
    texts = [json.loads(line)["text"] for line in Path(toys.files["train"]).read_text(encoding="utf-8").splitlines()]
    with torch.no_grad():
        return [teacher(**tokenizer(t, return_tensors="pt"), output_hidden_states=True).hidden_states for t in texts]


# ---- interruption --------------------------------------------------------------------------------------------------

_DO = """
    import json, os, resource, signal, sys
    from kd_train.training.bank import Bank
    from kd_train.study.study_file import read_study
    from kd_train.training.train_study import train_study
    step_of_bank = Bank.train_step
    def train_step(bank, micro_batches, step):
        if step == {step}:
            {what}
        return step_of_bank(bank, micro_batches, step)
    Bank.train_step = train_step
"""


def _in_a_process(study: Study, *, step: int, what: str, then: str) -> Ended:
    """Train in another process, in which something happens just before a step."""
    file = study.folder.with_suffix(".yaml")
    file.write_text(study.model_dump_json(), encoding="utf-8")  # JSON is YAML
    script = textwrap.dedent(_DO).format(step=step, what=what) + then.format(file=str(file))
    return in_processes(script)[0]


@pytest.mark.parametrize(
    "options",
    [
        {"patience": 3, "keep": "best", "optimizer": "adafactor"},
        {"lora": {"rank": 4, "dropout": 0.1}, "keep": "best", "learning_rate": 1e-2},
    ],
    ids=["changing", "adapters"],
)
def test_a_killed_run_goes_on_as_if_nothing_had_been(toys: Toys, tmp_path: Path, options: dict[str, Any]) -> None:
    """SIGKILL in mid-run, with maps that changed, and a student that was stopped before."""
    strategies = [*_CHANGING[:3], _CHANGING[4], WILD]
    whole, killed = (
        toys.study(tmp_path / n, *strategies, training=options | {"checkpoints": [0.5]}) for n in ("whole", "killed")
    )
    train_study(whole, device="cpu")
    assert (whole.folder / "students" / "wild-seed0" / "stopped.json").exists()
    train = "train_study(read_study({file!r}), device='cpu')"
    done = _in_a_process(killed, step=5, what="os.kill(os.getpid(), signal.SIGKILL)", then=train)
    assert done.code == -signal.SIGKILL, done.err
    (state,) = killed.folder.glob("resume/seed0/step-*")
    assert state.name == "step-4"
    assert (state / "wild-seed0" / "stopped.json").exists()
    train_study(killed, resume=True, device="cpu")
    _assert_same(killed, whole)


def test_students_with_adapters_are_ordinary_models(toys: Toys, tmp_path: Path) -> None:
    study = toys.study(tmp_path / "study", "forward", training={"lora": {"rank": 4}, "learning_rate": 1e-2})
    train_study(study, device="cpu")
    teacher = load_file(toys.teacher / "model.safetensors")
    student = load_file(study.folder / "students" / "forward-seed0" / "model.safetensors")
    first = load_file(study.folder / "students/forward-seed0/checkpoints/step-0/model.safetensors")
    assert student.keys() == first.keys() <= teacher.keys()
    assert torch.equal(
        first["bert.encoder.layer.1.output.dense.weight"], teacher["bert.encoder.layer.3.output.dense.weight"]
    )
    moved = {name for name in student if not torch.equal(student[name], first[name])}
    linears = {n for n in student if n.endswith("weight") and "LayerNorm" not in n and "embeddings" not in n}
    assert moved == linears | {"classifier.bias"}
    (_, *_, last) = open_student(study.folder / "students" / "forward-seed0").checkpoints()
    assert last.load_model().config.num_hidden_layers == 2


@pytest.mark.parametrize(
    ("limit", "step", "after"),
    [
        # The size that a file may have from a step on, in bytes: so much fits, and the next write does not.
        (200, 2, "metrics"),
        (20_000, 2, "checkpoint"),
        (150_000, 1, "state"),
    ],
)
def test_a_full_disk_ends_a_run_that_can_be_resumed(
    toys: Toys, calm: Study, tmp_path: Path, limit: int, step: int, after: str
) -> None:
    """The system refuses to write; the command says so, what was whole stays whole, and the run goes on later."""
    full = toys.study(tmp_path / "full", "none", "forward")
    what = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))"
    run = "sys.argv = ['layerangles', 'train', {file!r}]\nfrom layerangles_cli.main import run\nrun()\n"
    done = _in_a_process(full, step=step, what=what, then=run)
    assert done.code == 1, done.err
    assert "the disk is full: " in done.err
    assert f"Nothing half-written is left in {full.folder}" in done.err.replace("\n", "")
    assert "go on with --resume" in done.err
    assert "Traceback" not in done.err
    assert not [file for file in full.folder.rglob("*") if "partial" in file.name], after
    written = sorted(full.folder.rglob("model.safetensors"))
    students = [file.parent for file in written if "students" in file.parts]
    assert students
    for place in students:
        check_weights(place)
        assert open_student(place).load_model().config.num_hidden_layers == 2
        same = calm.folder / place.relative_to(full.folder)
        assert (same / "model.safetensors").read_bytes() == (place / "model.safetensors").read_bytes()
    train_study(full, resume=True, device="cpu")
    _assert_same(full, calm)


# ---- trackers ------------------------------------------------------------------------------------------------------


def test_trackers_get_what_the_metrics_file_gets(toys: Toys, tmp_path: Path) -> None:
    study = toys.study(tmp_path / "study", "forward", report_to=["tensorboard"])
    train_study(study, device="cpu")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: dict[tuple[str, int], float] = {}
    for file in (study.folder / "trackers").rglob("events.out.tfevents.*"):
        events = EventAccumulator(str(file)).Reload()
        found |= {(tag, e.step): e.value for tag in events.Tags()["scalars"] for e in events.Scalars(tag)}
    expected = {(f"{m.student}/{m.split}/{m.metric}", m.step): m.value for m in MetricsLog(study.folder).read()}
    assert found.keys() == expected.keys()
    assert all(found[key] == pytest.approx(value, rel=1e-6) for key, value in expected.items())


@pytest.mark.parametrize("tracker", ["wandb", "trackio"])
def test_a_tracker_that_is_not_installed(
    toys: Toys, tmp_path: Path, tracker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: Callable[[str], Any] = __import__("importlib.util").util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: None if name == tracker else found(name, *more))
    study = toys.study(tmp_path / "study", "forward", report_to=[tracker])
    with pytest.raises(
        InputError, match=f"report_to names {tracker}, which is not installed. Run: pip install {tracker}"
    ):
        train_study(study, device="cpu")
    assert not study.folder.exists()


def test_a_study_resumed_elsewhere_may_report_elsewhere(toys: Toys, tmp_path: Path) -> None:
    study = toys.study(tmp_path / "study", "none", training={"max_steps": 1, "checkpoints": []})
    train_study(study, device="cpu")
    again = study.model_copy(update={"report_to": ("tensorboard",)})
    assert train_study(again, resume=True, device="cpu") == study.folder
    assert read_study(study.folder).report_to == ("tensorboard",)
