"""Compiled blocks give the losses of uncompiled ones. Needs a C++ compiler and a minute or two (make test-long)."""

import shutil

import pytest
from accelerate import Accelerator
from toys.models import toy_bert
from toys.training import FORWARD, toy_member, toy_micro_batches

from kd_train.optimizers import OptimizerSpec
from kd_train.training.bank import Bank

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU"),
    pytest.mark.filterwarnings("default"),
]


def test_compiled_blocks_give_the_same_losses() -> None:
    losses = []
    for compiled in (False, True):
        # Without dropout, which the compiler draws by itself.
        teacher = toy_bert(layers=4, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        bank = Bank(
            [toy_member(teacher, "forward", FORWARD)],
            teacher,
            optimizer=OptimizerSpec(learning_rate=1e-4),
            total_steps=8,
            seed=0,
            accelerator=Accelerator(cpu=True),
            compiled=compiled,
        )
        assert bank.packs is not compiled
        losses.append([bank.train_step(toy_micro_batches(step), step)["forward"] for step in range(4)])
        names = set(bank.members[0].model.state_dict())
        assert not any("_orig_mod" in name for name in names)  # saved under the names that transformers reads
    for plain, compiled_terms in zip(*losses, strict=True):
        assert compiled_terms == pytest.approx(plain, rel=1e-4)
