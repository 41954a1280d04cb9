"""A small classification task, and studies of it, that train in a second."""

import json
import random
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    MPNetConfig,
    PretrainedConfig,
    PreTrainedModel,
    RobertaConfig,
)

from kd_train.batches.order import DataOrder, cut_by_length
from kd_train.matching.assignments import Assignment, Fixed, Redrawn
from kd_train.matching.losses import LossSpec
from kd_train.matching.strategies import Strategy, assign
from kd_train.optimizers import OptimizerSpec
from kd_train.students.construction import build_student
from kd_train.students.learned_maps import build_maps
from kd_train.students.lora import LoraSpec, add_adapters
from kd_train.students.student_plan import StudentPlan, plan_student
from kd_train.students.student_spec import StudentSpec
from kd_train.study.study_file import Study, parse_study
from kd_train.tasks.base import Feature, MicroBatch
from kd_train.tasks.classification import Classification
from kd_train.tasks.labelled import LabelledSplit
from kd_train.training.bank import Bank
from kd_train.training.member import Member
from layerangles.layers import LayerPair
from toys.models import WORDS, toy_bert, toy_tokenizer

LABELS = ("neg", "pos")
FORWARD = ((0, 0), (1, 2), (2, 4))
REVERSE = ((0, 0), (1, 4), (2, 2))
# The pairs of each draw of a redrawn map.
DRAWS = (FORWARD, REVERSE, ((0, 0), (1, 1), (2, 3)), ((0, 0), (1, 3), (2, 1)))

_COMMON = {
    "vocab_size": 30,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}
FAMILIES: dict[str, Callable[[], PretrainedConfig]] = {
    "bert": lambda: BertConfig(**_COMMON),
    "roberta": lambda: RobertaConfig(**_COMMON),
    "distilbert": lambda: DistilBertConfig(
        vocab_size=30, dim=32, n_layers=4, n_heads=4, hidden_dim=64, max_position_embeddings=40
    ),
    "electra": lambda: ElectraConfig(**_COMMON, embedding_size=16),
    "electra-of-one-width": lambda: ElectraConfig(**_COMMON, embedding_size=32),
    "mpnet": lambda: MPNetConfig(**_COMMON),
}


def toy_family(name: str) -> PreTrainedModel:
    """A random classifier of 4 blocks and width 32."""
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(FAMILIES[name]()).eval()


def toy_examples(n: int, *, seed: int) -> list[dict[str, str]]:
    """Random words, labelled by whether the first one is in the first half of the alphabet."""
    rng = random.Random(seed)  # noqa: S311
    texts = [rng.choices(WORDS, k=rng.randint(1, 10)) for _ in range(n)]
    return [{"text": " ".join(words), "label": LABELS[words[0] < "i"]} for words in texts]


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_task(folder: Path) -> dict[str, str]:
    """The task's files by split: 40 examples to train on, 20 and 10 to score on."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {"train": 40, "dev": 20, "test": 10}
    rows = {split: toy_examples(n, seed=i) for i, (split, n) in enumerate(sizes.items())}
    return {split: str(write_jsonl(folder / f"{split}.jsonl", rows[split])) for split in sizes}


def toy_study(folder: Path, files: dict[str, str], base: Path, **changes: Any) -> Study:
    """A study of two strategies: 6 steps of the teacher, 8 of its students, a state to resume from every 2."""
    content: dict[str, Any] = {
        "name": "toy",
        "output": str(folder),
        "task": {"files": files, "max_length": 16},
        "teacher": {
            "model": str(base),
            "finetune": {"max_steps": 6, "batch_size": 8, "micro_batches": 2, "learning_rate": 1e-3, "resume_every": 2},
        },
        "student": {"layers": 2},
        "strategies": ["none", "forward"],
        "training": {
            "max_steps": 8,
            "batch_size": 8,
            "micro_batches": 2,
            "learning_rate": 1e-3,
            "checkpoints": [0, 0.5],
            "evaluate_every": 3,
            "resume_every": 2,
        },
    }
    return parse_study(content | changes)


@cache
def toy_features(n: int = 20, *, seed: int = 0) -> tuple[Classification, list[Feature]]:
    """A loaded classification of random texts, and its examples in tokens."""
    examples = toy_examples(n, seed=seed)
    split = LabelledSplit(
        [example["text"] for example in examples], [LABELS.index(example["label"]) for example in examples]
    )
    task = Classification({"train": split}, ("accuracy",), 16, LABELS)
    return task, task.encode("train", toy_tokenizer(), toy_bert(layers=1).config)


def toy_micro_batches(step: int, *, n_micro_batches: int = 2, batch_size: int = 8, seed: int = 0) -> list[MicroBatch]:
    """The batch of a step of the toy task."""
    task, features = toy_features()
    rows = DataOrder(len(features), batch_size, seed).batch(step)
    return cut_by_length([features[i] for i in rows], task, toy_tokenizer(), n_micro_batches)


def toy_teacher(*, dropout: float = 0.1) -> PreTrainedModel:
    """A teacher of 4 blocks and width 32, with transformers' own initialization so that training is gentle."""
    return toy_bert(layers=4, seed=0, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)


def toy_random_teacher() -> PreTrainedModel:
    """The network of a random-teacher control."""
    return toy_bert(layers=4, seed=7)


def toy_redrawn() -> Redrawn:
    """A map that is redrawn every second step."""
    return Redrawn(lambda number: DRAWS[number % len(DRAWS)], 2)


def toy_assignment(kind: str) -> Assignment:
    """The assignment of a strategy between 2 student and 4 teacher layers."""
    return assign(Strategy(kind=kind), 2, 4, tower="encoder", embedding_pair=True, steps_per_epoch=1)


def toy_plan(teacher: PreTrainedModel, **spec: Any) -> StudentPlan:
    return plan_student(StudentSpec(**{"layers": 2} | spec), teacher.config)


def toy_member(
    teacher: PreTrainedModel,
    name: str,
    pairs: tuple[LayerPair, ...] | Assignment,
    *,
    seed: int = 0,
    loss: LossSpec | None = None,
    targets: str = "teacher",
    **spec: Any,
) -> Member:
    """A student of 2 blocks, as a study would build it."""
    plan = toy_plan(teacher, **spec)
    assignment = pairs if isinstance(pairs, Assignment) else Fixed(pairs)
    maps = build_maps(plan, teacher.config.hidden_size, {"encoder": assignment.student_layers(0)}, seed=seed)
    model = build_student(teacher, plan, auto_model=AutoModelForSequenceClassification, seed=seed)
    return Member(name, model, {"encoder": assignment}, maps, loss or LossSpec(), targets)


def toy_adapted(member: Member, *, seed: int = 0, **lora: Any) -> Member:
    """The member with adapters, trained along with its head and maps only."""
    spec = LoraSpec(**{"rank": 4, "alpha": 8} | lora)
    member.adapters = add_adapters(member.model, spec, classifier=True, seed=seed)
    return member


def toy_bank(
    teacher: PreTrainedModel | None, members: Sequence[Member], *, total_steps: int = 8, seed: int = 0, **optimizer: Any
) -> Bank:
    """A bank; ``random_teacher`` is the network of random-teacher controls."""
    random_teacher = optimizer.pop("random_teacher", None)
    spec = OptimizerSpec(**{"learning_rate": 1e-3} | optimizer)
    return Bank(
        members,
        teacher,
        optimizer=spec,
        total_steps=total_steps,
        seed=seed,
        accelerator=Accelerator(cpu=True),
        random_teacher=random_teacher,
    )


def train(bank: Bank, steps: range, *, n_micro_batches: int = 2) -> list[dict[str, dict[str, float]]]:
    """Train a bank on the toy task; the losses of every step."""
    return [bank.train_step(toy_micro_batches(step, n_micro_batches=n_micro_batches), step) for step in steps]


def parameters_of(member: Member) -> dict[str, torch.Tensor]:
    """All parameters of a member, its maps' among them, by name."""
    named = [*member.model.named_parameters(), *((f"map.{k}", v) for k, v in member.maps.named_parameters())]
    return {name: parameter.detach().clone() for name, parameter in named}


def differing(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> set[str]:
    """The names of the tensors that are not bit-identical."""
    assert a.keys() == b.keys()
    return {name for name in a if not torch.equal(a[name], b[name])}
