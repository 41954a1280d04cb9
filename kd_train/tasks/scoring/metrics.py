"""Metrics of labels, numbers and likelihoods, as functions of references and answers, without torch."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Metric(NamedTuple):
    """A metric of answers against references.

    Attributes:
        compute: value for all references and answers.
        higher_is_better: whether a higher value is better.
        by_example: values of the examples, of which the metric is the mean; None if it is not such a mean.
    """

    compute: Callable[[Sequence[Any], Sequence[Any]], float]
    higher_is_better: bool = True
    by_example: Callable[[Sequence[Any], Sequence[Any]], list[float]] | None = None


class Predictions(NamedTuple):
    """References and answers of a metric, with one entry per example."""

    references: Sequence[Any]
    answers: Sequence[Any]


def right_answers(references: Sequence[Any], answers: Sequence[Any]) -> list[float]:
    """1 for a correct answer, 0 for a wrong one, by example."""
    return [float(r == a) for r, a in zip(references, answers, strict=True)]


def accuracy(references: Sequence[Any], answers: Sequence[Any]) -> float:
    """Share of correct answers, 0 to 1."""
    return float(np.mean(right_answers(references, answers)))


def f1(labels: Sequence[int], answers: Sequence[int]) -> float:
    """F1 of label 1 of two labels, 0 to 1."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, answers, zero_division=0.0))


def f1_macro(labels: Sequence[int], answers: Sequence[int]) -> float:
    """Mean of the F1 of all labels, 0 to 1."""
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
    """Pearson's correlation, −1 to 1; NaN if all answers (or all numbers) are equal, or there is only one."""
    from scipy.stats import pearsonr

    return _correlation(pearsonr, numbers, answers)


def spearman(numbers: Sequence[float], answers: Sequence[float]) -> float:
    """Spearman's rank correlation, −1 to 1; NaN if all answers (or all numbers) are equal, or there is only one."""
    from scipy.stats import spearmanr

    return _correlation(spearmanr, numbers, answers)


def _correlation(of: Callable[[Any, Any], Any], numbers: Sequence[float], answers: Sequence[float]) -> float:
    if len(numbers) < 2:
        return math.nan
    # scipy warns when it returns NaN, which is a documented value here and is written to the metrics file.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="An input array is (nearly )?constant")
        return float(of(numbers, answers).statistic)


def mean_squared_error(numbers: Sequence[float], answers: Sequence[float]) -> float:
    """Mean of the squared differences, in the square of the numbers' unit; 0 is best."""
    return float(np.mean(squared_errors(numbers, answers)))


def squared_errors(numbers: Sequence[float], answers: Sequence[float]) -> list[float]:
    """Squared differences, by example."""
    squares: list[float] = np.square(np.asarray(numbers, float) - np.asarray(answers, float)).tolist()
    return squares


NUMBER_METRICS: Mapping[str, Metric] = {
    "pearson": Metric(pearson),
    "spearman": Metric(spearman),
    "mean_squared_error": Metric(mean_squared_error, higher_is_better=False, by_example=squared_errors),
}


def perplexity(n_tokens: Sequence[int], negative_log_likelihoods: Sequence[float]) -> float:
    """``exp(Σ −log p / Σ n)`` over the predicted tokens of all examples; 1 is best, infinity on overflow.

    Args:
        n_tokens: number of predicted tokens, by example.
        negative_log_likelihoods: sum over these tokens, in nats, by example.
    """
    mean = math.fsum(negative_log_likelihoods) / sum(n_tokens)
    try:
        return math.exp(mean)
    except OverflowError:
        return math.inf
