"""Metrics of labels, numbers and likelihoods: functions of references and answers. Torch is not needed."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Metric(NamedTuple):
    """A metric of answers against references, and whether more of it is better.

    Attributes:
        compute: of all references and answers.
        by_example: what the metric is the mean of, one number an example; None where it is no such mean.
    """

    compute: Callable[[Sequence[Any], Sequence[Any]], float]
    higher_is_better: bool = True
    by_example: Callable[[Sequence[Any], Sequence[Any]], list[float]] | None = None


class Predictions(NamedTuple):
    """What a metric compares, one entry an example."""

    references: Sequence[Any]
    answers: Sequence[Any]


def right_answers(references: Sequence[Any], answers: Sequence[Any]) -> list[float]:
    """1 where the answer is right, 0 elsewhere."""
    return [float(r == a) for r, a in zip(references, answers, strict=True)]


def accuracy(references: Sequence[Any], answers: Sequence[Any]) -> float:
    """Share of right answers, 0 to 1."""
    return float(np.mean(right_answers(references, answers)))


def f1(labels: Sequence[int], answers: Sequence[int]) -> float:
    """F1 of label 1, of two, 0 to 1."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, answers, zero_division=0.0))


def f1_macro(labels: Sequence[int], answers: Sequence[int]) -> float:
    """Mean of the labels' F1, 0 to 1."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, answers, average="macro", zero_division=0.0))


def matthews_correlation(labels: Sequence[int], answers: Sequence[int]) -> float:
    """Matthews' correlation of answers and labels, −1 to 1."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(labels, answers))


LABEL_METRICS: Mapping[str, Metric] = {
    "accuracy": Metric(accuracy, by_example=right_answers),
    "f1": Metric(f1),
    "f1_macro": Metric(f1_macro),
    "matthews_correlation": Metric(matthews_correlation),
}


def pearson(numbers: Sequence[float], answers: Sequence[float]) -> float:
    """Pearson's correlation, −1 to 1; NaN where the answers (or the numbers) are all alike, or only one."""
    from scipy.stats import pearsonr

    return _correlation(pearsonr, numbers, answers)


def spearman(numbers: Sequence[float], answers: Sequence[float]) -> float:
    """Spearman's rank correlation, −1 to 1; NaN where the answers (or the numbers) are all alike, or only one."""
    from scipy.stats import spearmanr

    return _correlation(spearmanr, numbers, answers)


def _correlation(of: Callable[[Any, Any], Any], numbers: Sequence[float], answers: Sequence[float]) -> float:
    if len(numbers) < 2:
        return math.nan
    # scipy warns where it answers NaN; here that is an answer like any other, and stands in the metrics file as one.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="An input array is (nearly )?constant")
        return float(of(numbers, answers).statistic)


def mean_squared_error(numbers: Sequence[float], answers: Sequence[float]) -> float:
    """Mean of the squared differences, in the numbers' own unit squared; 0 is best."""
    return float(np.mean(squared_errors(numbers, answers)))


def squared_errors(numbers: Sequence[float], answers: Sequence[float]) -> list[float]:
    """The squared differences."""
    squares: list[float] = np.square(np.asarray(numbers, float) - np.asarray(answers, float)).tolist()
    return squares


NUMBER_METRICS: Mapping[str, Metric] = {
    "pearson": Metric(pearson),
    "spearman": Metric(spearman),
    "mean_squared_error": Metric(mean_squared_error, higher_is_better=False, by_example=squared_errors),
}


def perplexity(n_tokens: Sequence[int], negative_log_likelihoods: Sequence[float]) -> float:
    """``exp(Σ −log p / Σ n)`` over the predicted tokens of all examples, 1 at best; infinite where it overflows.

    Args:
        n_tokens: how many tokens are predicted, one number an example.
        negative_log_likelihoods: summed over these tokens, in nats, one number an example.
    """
    mean = math.fsum(negative_log_likelihoods) / sum(n_tokens)
    try:
        return math.exp(mean)
    except OverflowError:
        return math.inf
