"""A byte tokenizer, a short training, and silence, for tests of tasks."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from kd_train.tasks.base import IGNORED, MicroBatch
from kd_train.tasks.scoring.metrics import Metric

END, BEGIN = 256, 257
N_BYTE_TOKENS = 261


def byte_tokenizer(*, begins: bool = False) -> PreTrainedTokenizerBase:
    """One token per byte, and one for " a", " b", " c", as GPT-2 joins words with the space before them."""
    vocabulary = {byte: i for i, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocabulary |= {"<end>": END, "<begin>": BEGIN}
    vocabulary |= {f"Ġ{letter}": BEGIN + 1 + i for i, letter in enumerate("abc")}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("Ġ", letter) for letter in "abc"]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if begins:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<begin> $A", special_tokens=[("<begin>", BEGIN)]
        )
    roles = {"eos_token": "<end>", "bos_token": "<begin>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles)


def score(references: Sequence[Any], answers: Sequence[Any], metrics: Mapping[str, Metric]) -> dict[str, float]:
    """Values of all metrics for these answers."""
    return {name: metric.compute(references, answers) for name, metric in metrics.items()}


def teach(model: PreTrainedModel, micro_batch: MicroBatch, *, steps: int) -> None:
    """Train a model on the labelled positions of one micro-batch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        logits = model(**micro_batch.inputs).logits
        loss = functional.cross_entropy(logits.flatten(0, 1), micro_batch.labels.flatten(), ignore_index=IGNORED)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@contextmanager
def silence() -> Iterator[None]:
    """Suppress warnings and log messages of transformers."""
    said: list[logging.LogRecord] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = said.append  # type: ignore[method-assign]
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    finally:
        logger.removeHandler(handler)
    assert not said, [record.getMessage() for record in said]
