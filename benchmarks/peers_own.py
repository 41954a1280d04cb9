"""The project's side of the comparison with its peers: kd_train's bank on their models and batches.

One variant a process; benchmarks/peers.py starts the processes and tells them when to run.

- ``one``: a bank of one student, batches padded as the peers' are.
- ``one_packed``: the same as the bank trains by itself, without padding.
- ``six``: a bank of all six strategies, without padding.

The bank pads and packs its batches within the time that is taken; the peers are given theirs.

Run by hand: python benchmarks/peers_own.py one --workload FOLDER, then type "run 3".
"""

import copy
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial

from accelerate import Accelerator
from peers_workload import LEARNING_RATE, MAX_GRAD_NORM, WEIGHT_DECAY, Gate, Workload, worker

from kd_train.batches.order import cut_by_length
from kd_train.data import embedded
from kd_train.matching.assignments import Fixed
from kd_train.optimizers import OptimizerSpec
from kd_train.tasks.classification import Classification
from kd_train.training.bank import Bank
from kd_train.training.member import Member
from layerangles.models.checkpoints import load_tokenizer


def own_step_function(workload: Workload, strategies: Sequence[str], pack: bool) -> Callable[[int], dict[str, float]]:
    """Train a bank of these strategies on the batch of a step; the total loss of each student."""
    tokenizer = load_tokenizer(embedded.model_path("all-MiniLM-L6-v2"))
    bank = Bank(
        [
            Member(kind, copy.deepcopy(workload.student), {"encoder": Fixed(tuple(workload.pairs[kind]))})
            for kind in strategies
        ],
        workload.teacher,
        optimizer=OptimizerSpec(
            learning_rate=LEARNING_RATE,
            weight_decay=WEIGHT_DECAY,
            max_grad_norm=MAX_GRAD_NORM,
            schedule="constant_with_warmup",
            warmup=0,
        ),
        total_steps=1000,
        seed=0,
        accelerator=Accelerator(cpu=True),
    )

    bank.packs = bank.packs and pack
    task = Classification({}, (), 128, ("0", "1"))

    def step(number: int) -> dict[str, float]:
        batch = number % len(workload.examples)
        features = [
            {"input_ids": ids, "token_type_ids": [0] * len(ids), "label": label}
            for ids, label in zip(workload.examples[batch], workload.labels[batch], strict=True)
        ]
        losses = bank.train_step(cut_by_length(features, task, tokenizer, 1), number)
        return {kind: terms["total"] for kind, terms in losses.items()}

    return step


def run(workload: Workload, chosen: Namespace, gate: Gate, *, pack: bool, together: bool = False) -> None:
    """Train at the gate's word."""
    step = own_step_function(workload, [*workload.pairs] if together else [chosen.strategy], pack)
    for number in gate.cycle(range(10**9)):
        gate.record(step(number)[chosen.strategy])


VARIANTS = {
    "one": partial(run, pack=False),
    "one_packed": partial(run, pack=True),
    "six": partial(run, pack=True, together=True),
}

if __name__ == "__main__":
    worker(__doc__ or "", VARIANTS)
