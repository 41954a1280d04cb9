"""Two processes that share the micro-batches of every batch train the students of one."""

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from toys.models import write_model
from toys.processes import in_processes
from toys.training import toy_study, toy_teacher, write_task

from kd_train.study.score_logs import MetricsLog
from kd_train.study.study_file import Study
from kd_train.training.train_study import train_study

# Every process: a study that is refused; then the study, stopped by an exception after a state was saved, and resumed.
# Records every file that a process opens, creates or renames within the study's folder.
SCRIPT = """
import json, os, sys
from accelerate import PartialState
from kd_train.training.bank import Bank
from kd_train.study.study_file import read_study
from kd_train.training.train_study import train_study
from layerangles import InputError

study, output = read_study({study!r}), {output!r}
writes, refused = [], ""

def hook(event, arguments):
    flags = os.O_WRONLY | os.O_RDWR | os.O_CREAT
    is_write = event == "open" and isinstance(arguments[2], int) and arguments[2] & flags
    if (is_write or event in ("os.mkdir", "os.rename", "os.remove", "shutil.rmtree")) and (
        str(arguments[0]).startswith(str(study.folder))
    ):
        writes.append((event, str(arguments[0])))

sys.addaudithook(hook)
try:
    alone = study.model_copy(update=dict(training=study.training.model_copy(update=dict(min_micro_batches=1))))
    train_study(alone, device="cpu")
except InputError as error:
    refused = str(error)
assert not writes, writes
step_of_bank = Bank.train_step

def train_step(bank, micro_batches, step):
    if step == 3:
        raise KeyboardInterrupt
    return step_of_bank(bank, micro_batches, step)

Bank.train_step = train_step
try:
    train_study(study, device="cpu")
except KeyboardInterrupt:
    Bank.train_step = step_of_bank
train_study(study, resume=True, device="cpu")
assert PartialState().num_processes == 2
found = dict(refused=refused, writes=writes)
with open(output + "-" + str(PartialState().process_index) + ".json", "w") as file:
    json.dump(found, file)
"""
Studies = tuple[Study, Study, list[dict[str, Any]]]
NARROW = {"width": 24, "init": "random"}
STRATEGIES: list[Any] = [
    "none",
    "forward",
    "attention",
    "dynamic",
    # Its maps get a gradient in the steps alone in which their layer is chosen.
    {"kind": "dynamic", "name": "dynamic-narrow", "student": NARROW},
    {"kind": "forward", "targets": "other_text"},
    {"kind": "forward", "targets": "gaussian"},
    {"kind": "forward", "name": "wild", "learning_rate": 1e25},
]


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Studies:
    """The study in one process and in two, with the reports of each of the two."""
    root = tmp_path_factory.mktemp("processes")
    base, files = write_model(root / "teacher", toy_teacher()), write_task(root / "task")
    training = {
        "max_steps": 7,
        "batch_size": 8,
        "micro_batches": 2,
        "min_micro_batches": 2,
        "learning_rate": 1e-3,
        "checkpoints": [0.5],
        "evaluate_every": 1,
        "resume_every": 2,
    }
    one, two = (
        toy_study(root / name, files, base, teacher={"model": str(base)}, strategies=STRATEGIES, training=training)
        for name in ("one", "two")
    )
    train_study(one, device="cpu")
    (root / "two.yaml").write_text(two.model_dump_json(), encoding="utf-8")
    script = SCRIPT.format(study=str(root / "two.yaml"), output=str(root / "report"))
    for ended in in_processes(script, n=2):
        assert ended.code == 0, ended.err[-3000:]
    reports = [json.loads((root / f"report-{rank}.json").read_text(encoding="utf-8")) for rank in range(2)]
    return one, two, reports


def test_two_processes_have_the_losses_and_the_scores_of_one(
    studies: Studies,
) -> None:
    ours, theirs = (
        {
            (m.student, m.step, m.split, m.metric): m.value
            for m in MetricsLog(study.folder).read()
            if m.metric != "seconds_per_step"
        }
        for study in studies[:2]
    )
    assert ours.keys() == theirs.keys()
    assert len(ours) > 100
    for key, value in ours.items():
        assert theirs[key] == pytest.approx(value, rel=1e-5, nan_ok=True), key


@pytest.mark.parametrize("name", ["none", "forward", "attention", "dynamic", "dynamic-narrow", "forward-other_text"])
def test_two_processes_give_the_students_of_one(name: str, studies: Studies) -> None:
    places = [study.folder / "students" / f"{name}-seed0" for study in studies[:2]]
    for inside in (".", "checkpoints/step-4"):
        for file in sorted(path.name for path in (places[0] / inside).glob("*.safetensors")):
            ours, theirs = (load_file(place / inside / file) for place in places)
            assert ours.keys() == theirs.keys()
            for key in ours:
                # Adam divides by the gradient's size: where it is rounding alone, its sign is random.
                if not key.endswith("key.bias"):
                    torch.testing.assert_close(ours[key], theirs[key], rtol=0, atol=1e-5, msg=lambda m, k=key: k + m)
        matchings = [json.loads((place / inside / "matching.json").read_text(encoding="utf-8")) for place in places]
        if name == "attention":  # its weights are compared below
            assert matchings[0].pop("changing").keys() == matchings[1].pop("changing").keys()
        assert matchings[0] == matchings[1]


def test_the_weights_of_attention_are_those_over_all_processes(
    studies: Studies,
) -> None:
    weights = [
        json.loads((study.folder / "students/attention-seed0/matching.json").read_text(encoding="utf-8"))["changing"]
        for study in studies[:2]
    ]
    ours, theirs = (torch.tensor(of["encoder"]["mean_weights"]) for of in weights)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_a_student_that_diverges_stops_in_all_processes(studies: Studies) -> None:
    stopped = [(s.folder / "students" / "wild-seed0" / "stopped.json").read_text(encoding="utf-8") for s in studies[:2]]
    assert json.loads(stopped[0])["step"] == json.loads(stopped[1])["step"]


def test_exactly_one_process_writes(studies: Studies) -> None:
    first, second = studies[2]
    assert len(first["writes"]) > 50
    assert second["writes"] == []


def test_more_processes_than_micro_batches_are_refused(studies: Studies) -> None:
    for report in studies[2]:
        assert report["refused"].startswith(
            "2 processes share the micro-batches of a batch, and training.min_micro_batches is 1"
        )
        assert "Set it to 2" in report["refused"]
