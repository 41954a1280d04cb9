"""The workload on which the project and its peers are timed, and the control of timed processes.

Needs torch and transformers only: it is imported by the project's environment and by that of the peers. A workload is a
folder: teacher and student with their weights, the batches as token ids and labels, the matched layers, the optimizer.

A timed process calls one training loop once and never leaves it. Between two steps it stops and waits (`Gate`), so that
what is timed is the steady loop: neither its start nor the checkpoint it may write at its end.

Not a program: see benchmarks/peers.py.
"""

import json
import os
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file, save_file
from transformers import BertForSequenceClassification

HIDDEN_WEIGHT, LEARNING_RATE, WEIGHT_DECAY, MAX_GRAD_NORM = 3.0, 5e-5, 0.01, 1.0
STRATEGY = "forward"  # of the study of one student
Pairs = Sequence[tuple[int, int]]
T = TypeVar("T")


@dataclass(frozen=True)
class Workload:
    """The models, data and pairs ``(student layer, teacher layer)`` of a training; layer 0 is the embedding output."""

    teacher: BertForSequenceClassification
    student: BertForSequenceClassification
    pairs: dict[str, Pairs]
    examples: list[list[list[int]]]
    """Token ids: [batch][example][token]."""
    labels: list[list[int]]

    def save(self, folder: Path) -> None:
        """Write it to a folder."""
        self.teacher.save_pretrained(folder / "teacher")
        self.student.save_pretrained(folder / "student")
        (folder / "pairs.json").write_text(json.dumps(self.pairs))
        tensors = {}
        for number, (examples, labels) in enumerate(zip(self.examples, self.labels, strict=True)):
            tensors[f"{number}.tokens"] = torch.tensor([token for example in examples for token in example])
            tensors[f"{number}.lengths"] = torch.tensor([len(example) for example in examples])
            tensors[f"{number}.labels"] = torch.tensor(labels)
        save_file(tensors, folder / "batches.safetensors")

    @classmethod
    def load(cls, folder: Path, dropout: float) -> "Workload":
        """Read the files of `save`, and load the models with this dropout."""
        chosen = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout, "dtype": torch.float32}
        models = [
            BertForSequenceClassification.from_pretrained(folder / name, **chosen) for name in ("teacher", "student")
        ]
        tensors = load_file(folder / "batches.safetensors")
        numbers = range(len(tensors) // 3)
        examples = [
            [part.tolist() for part in tensors[f"{n}.tokens"].split(tensors[f"{n}.lengths"].tolist())] for n in numbers
        ]
        pairs = {
            kind: [(student, teacher) for student, teacher in pairs]
            for kind, pairs in json.loads((folder / "pairs.json").read_text()).items()
        }
        labels = [tensors[f"{n}.labels"].tolist() for n in numbers]
        return cls(models[0].eval(), models[1].train(), pairs, examples, labels)

    def padded(self) -> list[dict[str, torch.Tensor]]:
        """Every batch padded to its longest example, as the peers receive it."""
        batches = []
        for examples, labels in zip(self.examples, self.labels, strict=True):
            longest = max(map(len, examples))
            ids = torch.tensor([example + [0] * (longest - len(example)) for example in examples])
            mask = torch.tensor([[1] * len(example) + [0] * (longest - len(example)) for example in examples])
            batches.append(
                {
                    "input_ids": ids,
                    "token_type_ids": torch.zeros_like(ids),
                    "attention_mask": mask,
                    "labels": torch.tensor(labels),
                }
            )
        return batches


@dataclass(frozen=True)
class Answer:
    """The report of a process on its steps, with one loss per step."""

    wall: float
    cpu: float
    losses: list[float]


class Gate:
    """Lets a training loop run the requested number of steps, then reports their time.

    Each line ``run N`` on standard input is answered by an `Answer` as a line of JSON on standard output; at the end
    of the input the process ends. Whatever else is printed goes to standard error.
    """

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._left = 0
        self._losses: list[float] = []
        self._started = (0.0, 0.0)

    def wait(self) -> None:
        """Wait for the next command. To be called before the first step."""
        command = sys.stdin.readline().split()
        if not command:
            raise SystemExit(0)
        self._left, self._losses = int(command[1]), []
        self._started = time.perf_counter(), time.process_time()

    def record(self, loss: float) -> None:
        """Keep the loss of a step."""
        self._losses.append(loss)

    def step_done(self) -> None:
        """Count a step; answer and wait where it was the last."""
        self._left -= 1
        if self._left:
            return
        ended = time.perf_counter(), time.process_time()
        answer = Answer(ended[0] - self._started[0], ended[1] - self._started[1], self._losses)
        print(json.dumps(asdict(answer)), file=self._answers, flush=True)
        self.wait()

    def cycle(self, batches: Sequence[T]) -> Iterator[T]:
        """The batches again and again, for a loop that asks for a batch when it is done with the one before."""
        self.wait()
        while True:
            for batch in batches:
                yield batch
                self.step_done()


def worker(description: str, variants: Mapping[str, Callable[[Workload, Namespace, Gate], None]]) -> None:
    """The command line of a timed process: one variant, until its standard input ends."""
    parser = ArgumentParser(description=description)
    parser.add_argument("variant", choices=variants)
    parser.add_argument("--workload", type=Path, required=True)
    parser.add_argument("--strategy", default=STRATEGY)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    variants[chosen.variant](Workload.load(chosen.workload, chosen.dropout), chosen, Gate())
