"""The study file: defaults, overrides, validation errors, and the resolved file."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from kd_train.study.specs import FinetuneSpec, RunSpec, StudentTraining
from kd_train.study.study_file import RESOLVED_FILE, Study, parse_study, read_study, study_of, write_resolved
from layerangles import InputError

MINIMAL = """
name: tiny
task: {files: {train: data/train.jsonl, dev: data/dev.csv}}
teacher: {model: some/teacher}
student: {layers: 2}
strategies: [forward, {kind: random, mapping_seed: 3}]
"""


def _content(**changes: Any) -> dict[str, Any]:
    return yaml.safe_load(MINIMAL) | changes


def _write(folder: Path, text: str = MINIMAL) -> Path:
    file = folder / "study.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def _mistakes(content: dict[str, Any]) -> list[str]:
    with pytest.raises(InputError) as caught:
        parse_study(content, source="tiny.yaml")
    head, *problems = str(caught.value).splitlines()
    n = len(problems)
    assert head == f"tiny.yaml has {n} mistake{'s' if n > 1 else ''}:"
    return [problem.removeprefix("  - ") for problem in problems]


def test_defaults_are_the_papers(tmp_path: Path) -> None:
    study = read_study(_write(tmp_path))
    assert study.folder == Path("runs/tiny")
    assert (study.seeds, study.embedding_pair, study.precision) == ((0,), True, "float32")
    assert [strategy.label for strategy in study.strategies] == ["forward", "random-draw3"]
    assert (study.loss.ce_weight, study.loss.kl_weight, study.loss.hidden_weight) == (1, 1, 3)
    assert study.teacher.finetune is None
    assert (study.training.batch_size, study.training.learning_rate) == (32, 5e-5)
    assert study.task.max_length == 128


def test_relative_files_start_at_the_study_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    _write(tmp_path)
    monkeypatch.chdir(tmp_path / "elsewhere")
    files = read_study("../study.yaml").task.files
    assert files == {"train": str(tmp_path / "data" / "train.jsonl"), "dev": str(tmp_path / "data" / "dev.csv")}


def test_absolute_files_are_kept(tmp_path: Path) -> None:
    file = _write(tmp_path, MINIMAL.replace("data/train.jsonl", "/somewhere/train.jsonl"))
    assert read_study(file).task.files["train"] == "/somewhere/train.jsonl"


@pytest.mark.parametrize(
    ("override", "read", "expected"),
    [
        ("training.max_steps=7", lambda s: s.training.max_steps, 7),
        ("training.learning_rate=3e-4", lambda s: s.training.learning_rate, 3e-4),
        ("teacher.finetune.epochs=2", lambda s: s.teacher.finetune.epochs, 2),
        ("seeds=[1, 2]", lambda s: s.seeds, (1, 2)),
        ("strategies=[none]", lambda s: [x.label for x in s.strategies], ["none"]),
        ("task.limit={train: 5}", lambda s: s.task.limit, {"train": 5}),
        ("name=other", lambda s: s.name, "other"),
        ("teacher.revision=a=b", lambda s: s.teacher.revision, "a=b"),
    ],
)
def test_overrides_change_any_value(tmp_path: Path, override: str, read: Any, expected: object) -> None:
    assert read(read_study(_write(tmp_path), overrides=[override])) == expected


def test_the_last_override_wins(tmp_path: Path) -> None:
    overrides = ["training.max_steps=7", "training.max_steps=8"]
    assert read_study(_write(tmp_path), overrides=overrides).training.max_steps == 8


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.max_steps", r"--set training.max_steps: wanted key=value"),
        ("=3", "--set =3: wanted key=value"),
        ("name.first=3", "name is not a mapping, so it has no key first"),
        ("strategies.0=none", "strategies is not a mapping, so it has no key 0"),
        ("seeds=[1", "the value is not valid YAML"),
        ("training.max_step=3", r"training\.max_step: unknown key; did you mean max_steps\?"),
    ],
)
def test_invalid_overrides_are_refused(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_study(_write(tmp_path), overrides=[override])


def test_all_mistakes_are_reported_at_once() -> None:
    content = _content(
        seed=[1],
        strategies=["fowrard", {"kind": "random", "teacher_layer": 3}],
        student={"layers": 0, "widht": 24},
        training={"learning_rte": 1e-4, "batch_size": "many"},
        teacher={},
    )
    assert sorted(_mistakes(content)) == [
        "seed: unknown key; did you mean seeds? valid here: compile, embedding_pair, loss, name, output, precision, "
        "report_to, schema_version, seeds, strategies, student, task, teacher, towers, training, verdict",
        "strategies.0: Input should be 'none', 'forward', 'reverse', 'all_to_one', 'random', 'in_order_random', "
        "'first', 'last', 'one_to_one', 'patient_skip', 'patient_last', 'attention', 'dynamic' or 'explicit'; "
        "did you mean forward? (got 'fowrard')",
        "strategies.1: teacher_layer belongs to all_to_one and one_to_one, not to random",
        "student.layers: Input should be greater than or equal to 1 (got 0)",
        "student.widht: unknown key; did you mean width? valid here: copied_decoder_layers, copied_layers, "
        "decoder_layers, embeddings, freeze_embeddings, init, layers, map, share_map, width",
        "teacher.model: missing",
        "training.batch_size: wanted a whole number (got 'many')",
        "training.learning_rte: unknown key; did you mean learning_rate? valid here: batch_size, checkpoints, epochs, "
        "evaluate_every, keep, learning_rate, lora, max_grad_norm, max_steps, micro_batches, min_micro_batches, "
        "optimizer, patience, resume_every, schedule, warmup, weight_decay",
    ]


@pytest.mark.parametrize(
    ("changes", "mistake"),
    [
        ({"teacher": {"model": "x", "finetune": {"max_step": 1}}}, "teacher.finetune.max_step: unknown key; did you"),
        ({"strategies": [{"kind": "all_to_one", "layer": 1}]}, "strategies.0.layer: unknown key; did you mean teacher"),
        ({"student": {"layers": 2, "xyzzy": 1}}, "student.xyzzy: unknown key; valid here: copied_decoder_layers"),
        ({"seeds": [1, 2, 1]}, "seeds: 1 occurs twice. Write it once"),
        ({"seeds": []}, "seeds: wanted a list of at least 1 (got [])"),
        ({"strategies": []}, "strategies: wanted a list of at least 1 (got [])"),
        (
            {"strategies": ["none", "none"]},
            "strategies.1: none occurs twice, first as strategies.0. Give one of them another name",
        ),
        (
            {"strategies": ["random", {"kind": "random", "mapping_seed": 0}]},
            "strategies.1: random occurs twice, first as strategies.0. Give one of them another name",
        ),
        ({"training": {"epochs": 1, "max_steps": 3}}, "training: give either epochs or max_steps"),
        ({"training": {"checkpoints": [0.5, 2]}}, "training: checkpoints are shares of all steps, from 0 to 1"),
        ({"training": {"min_micro_batches": 7}}, "training: min_micro_batches is 7, more than micro_batches, 6"),
        (
            {"loss": {"hidden": "paper_t5"}},
            "strategies.0: loss.hidden is paper_t5, which counts PAD, so a batch cannot be cut into micro-batches of "
            "like length: set training.micro_batches to 1 (it is 6)",
        ),
        (
            {
                "loss": {"hidden": "paper_qwen"},
                "training": {"micro_batches": 1},
                "strategies": [{"kind": "forward", "targets": "gaussian"}],
            },
            "strategies.0.targets: gaussian are made for valid tokens, and loss.hidden paper_qwen counts PAD",
        ),
        (
            {"training": {"batch_size": 1}, "strategies": [{"kind": "last", "targets": "other_text"}]},
            "strategies.0.targets: other_text needs another text in the batch: set training.batch_size to 2 or more",
        ),
        (
            {"strategies": [{"kind": "none", "targets": "gaussian"}]},
            "strategies.0: targets is gaussian, but the kind none matches no states",
        ),
        ({"training": {"parts": 0}}, "training.parts: Input should be greater than or equal to 1 (got 0)"),
        (
            {"training": {"min_parts": 2, "min_micro_batches": 3}},
            "training.min_parts: the former name of min_micro_batches, which is given, too",
        ),
        ({"name": "a/b"}, "name: wanted letters, digits, '_', '.' and '-', a letter or digit first (got 'a/b')"),
        ({"schema_version": 2}, "schema_version: Input should be 1 (got 2)"),
        ({"student": 3}, "student: wanted a mapping of keys to values (got 3)"),
        ({"task": {}}, "task: give either dataset or files"),
        ({"task": {"dataset": "a", "files": {"train": "a", "dev": "b"}}}, "task: give either dataset or files"),
        ({"task": {"files": {"train": "a"}}}, "task: files needs train and dev; got train"),
        ({"task": {"dataset": "glue/stsb"}}, "task: glue/stsb is a regression task"),
        ({"task": {"dataset": "glue/sst3"}}, "task: unknown GLUE task sst3; allowed are cola, mnli"),
        ({"task": {"dataset": "a", "metrics": ["acuracy"]}}, "task: unknown metric acuracy; allowed are accuracy, f1"),
        ({"task": {"dataset": "a", "metrics": []}}, "task: unknown metric"),
        ({"task": {"dataset": "embedded/nothing"}}, "task: "),
        ({"task": {"dataset": "a", "limit": {"train": 0}}}, "task.limit.train: Input should be greater than"),
        ({"precision": "float16"}, "precision: Input should be 'float32' or 'bfloat16'; did you mean bfloat16?"),
    ],
)
def test_a_mistake_is_reported_with_its_place(changes: dict[str, Any], mistake: str) -> None:
    (told,) = _mistakes(_content(**changes))
    assert told.startswith(mistake)


def test_a_strategys_settings_override_the_studys() -> None:
    wider = {"kind": "forward", "name": "wider", "student": {"width": 64, "init": "random"}, "learning_rate": 1e-3}
    cosine = {"kind": "last", "loss": {"hidden": "cosine"}, "targets": "gaussian"}
    study = parse_study(
        _content(
            student={"layers": 3, "freeze_embeddings": True},
            loss={"temperature": 2.0, "hidden": "unit"},
            strategies=["forward", wider, cosine],
        )
    )
    plain, first, second = study.strategies
    assert (plain.student, plain.loss, plain.learning_rate, plain.targets) == (None, None, None, "teacher")
    assert first.student is not None
    assert first.student.model_dump(exclude_defaults=True) == {
        "layers": 3, "freeze_embeddings": True, "width": 64, "init": "random",
    }  # fmt: skip
    assert first.loss is None
    assert second.loss is not None
    assert second.loss.model_dump(exclude_defaults=True) == {"temperature": 2.0, "hidden": "cosine"}
    assert [strategy.label for strategy in study.strategies] == ["forward", "wider", "last-gaussian"]


def test_the_keys_of_version_0_1_keep_their_meaning(tmp_path: Path) -> None:
    changes = {"training": {"parts": 3}, "teacher": {"model": "a", "finetune": {"parts": 5, "min_parts": 4}}}
    study = read_study(_write(tmp_path, yaml.safe_dump(_content(**changes))), overrides=["training.min_parts=2"])
    assert (study.training.micro_batches, study.training.min_micro_batches) == (3, 2)
    assert study.teacher.finetune is not None
    assert (study.teacher.finetune.micro_batches, study.teacher.finetune.min_micro_batches) == (5, 4)
    assert read_study(Path("examples/results/movie-reviews")).training.micro_batches == 6


def test_strategies_of_one_kind_may_have_names() -> None:
    study = parse_study(_content(strategies=["none", {"kind": "none", "name": "again"}]))
    assert [strategy.label for strategy in study.strategies] == ["none", "again"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", r"study\.yaml is not valid YAML"),
        ("- a\n- b\n", r"study\.yaml holds list, not a mapping of keys to values"),
        ("", r"study\.yaml holds NoneType, not a mapping"),
    ],
)
def test_files_without_a_study_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_study(_write(tmp_path, text))


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_bytes("name: café".encode("latin-1"))
    with pytest.raises(InputError, match="is not valid YAML"):
        read_study(tmp_path / "study.yaml")


@pytest.mark.parametrize("name", ["nowhere.yaml", "."])
def test_a_missing_study_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"does not exist. Give a study file \(YAML\)"):
        read_study(tmp_path / name)


def test_the_resolved_study_is_the_study(tmp_path: Path) -> None:
    study = read_study(_write(tmp_path), overrides=["strategies=[none, {kind: explicit, pairs: [[1, 4], [2, 1]]}]"])
    folder = tmp_path / "runs"
    write_resolved(study, folder)
    assert read_study(folder) == study.model_copy(update={"output": str(folder)})  # where it is now
    assert read_study(folder / RESOLVED_FILE) == study
    written = yaml.safe_load((folder / RESOLVED_FILE).read_text(encoding="utf-8"))
    assert set(written) == set(Study.model_fields)  # every default is on record
    assert written["training"]["warmup"] == 0.1


def test_the_study_of_a_student_is_found(tmp_path: Path) -> None:
    study = read_study(_write(tmp_path))
    student = tmp_path / "runs" / "students" / "forward-seed0"
    checkpoint = student / "checkpoints" / "step-4"
    checkpoint.mkdir(parents=True)
    assert study_of(student) is None
    write_resolved(study, tmp_path / "runs")
    here = study.model_copy(update={"output": str((tmp_path / "runs").resolve())})
    assert study_of(student) == study_of(checkpoint) == here


@pytest.mark.parametrize(
    ("run", "n_examples", "expected"),
    [
        ({}, 100, 12),  # three epochs of ceil(100 / 32) steps
        ({"epochs": 2, "batch_size": 10}, 100, 20),
        ({"epochs": 0.5, "batch_size": 10}, 100, 5),
        ({"epochs": 0.01, "batch_size": 100}, 100, 1),
        ({"max_steps": 7}, 100, 7),
    ],
)
def test_total_steps_follow_from_epochs_and_batches(run: dict[str, Any], n_examples: int, expected: int) -> None:
    assert RunSpec(learning_rate=1, **run).total_steps(n_examples) == expected


@pytest.mark.parametrize(
    ("shares", "total", "steps"),
    [
        ((0, 0.01, 0.1, 0.5), 1000, (0, 10, 100, 500)),
        ((0.5, 0, 0.5), 10, (0, 5)),
        ((0, 0.001, 1), 10, (0,)),  # the last step is the student itself
        ((), 10, ()),
    ],
)
def test_checkpoints_are_shares_of_all_steps(shares: tuple[float, ...], total: int, steps: tuple[int, ...]) -> None:
    assert StudentTraining(checkpoints=shares).checkpoint_steps(total) == steps


def test_teacher_and_students_have_different_learning_rates() -> None:
    assert (FinetuneSpec().learning_rate, StudentTraining().learning_rate) == (2e-5, 5e-5)


@pytest.mark.parametrize("example", sorted((Path(__file__).parents[2] / "examples" / "studies").glob("*.yaml")))
def test_every_example_is_a_valid_study(example: Path) -> None:
    assert read_study(example).name == example.stem
