"""Metrics, and a model's answers to be scored."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from layerangles.texts import pad

IntArray = npt.NDArray[np.int64]
Features = list[dict[str, list[int]]]


def accuracy(labels: IntArray, answers: IntArray) -> float:
    """Share of right answers, 0 to 1."""
    return float((labels == answers).mean())


def f1(labels: IntArray, answers: IntArray) -> float:
    """F1 of label 1, of two, 0 to 1."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, answers, zero_division=0.0))


def f1_macro(labels: IntArray, answers: IntArray) -> float:
    """Mean of the labels' F1, 0 to 1."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, answers, average="macro", zero_division=0.0))


def matthews_correlation(labels: IntArray, answers: IntArray) -> float:
    """Matthews' correlation of answers and labels, −1 to 1."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(labels, answers))


METRICS: dict[str, Callable[[IntArray, IntArray], float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "f1_macro": f1_macro,
    "matthews_correlation": matthews_correlation,
}


def answers(
    model: PreTrainedModel,
    features: Features,
    tokenizer: PreTrainedTokenizerBase,
    accelerator: Accelerator,
    *,
    batch_size: int = 64,
) -> IntArray:
    """The label a classifier gives to every example, in the order of ``features``; in evaluation mode."""
    order = sorted(range(len(features)), key=lambda i: len(features[i]["input_ids"]))
    out = np.empty(len(features), dtype=np.int64)
    was_training = model.training
    model.train(False)
    with torch.inference_mode(), accelerator.autocast():
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            inputs = {k: v.to(accelerator.device) for k, v in pad(tokenizer, [features[i] for i in rows]).items()}
            out[rows] = model(**inputs).logits.argmax(dim=-1).cpu().numpy()
    model.train(was_training)
    return out


def score(labels: Sequence[int], given: IntArray, metrics: Sequence[str]) -> dict[str, float]:
    """Every metric of these answers."""
    return {name: METRICS[name](np.asarray(labels), given) for name in metrics}
