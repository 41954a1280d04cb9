"""Metrics of labels against their definitions, and answers in batches."""

import math

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from toys.models import toy_bert
from toys.tasks import score

from kd_train.tasks.scoring.evaluation import over_batches
from kd_train.tasks.scoring.metrics import LABEL_METRICS, Metric, accuracy


def _only(name: str) -> dict[str, Metric]:
    return {name: LABEL_METRICS[name]}


def _counts(labels: list[int], given: list[int], label: int) -> tuple[int, int, int, int]:
    pairs = list(zip(labels, given, strict=True))
    true_positive = sum(y == label and a == label for y, a in pairs)
    false_positive = sum(y != label and a == label for y, a in pairs)
    false_negative = sum(y == label and a != label for y, a in pairs)
    return true_positive, false_positive, false_negative, len(pairs) - true_positive - false_positive - false_negative


def _f1(labels: list[int], given: list[int], label: int) -> float:
    tp, fp, fn, _ = _counts(labels, given, label)
    return 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 0.0


def _matthews(labels: list[int], given: list[int]) -> float:
    tp, fp, fn, tn = _counts(labels, given, 1)
    below = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return (tp * tn - fp * fn) / below if below else 0.0


@pytest.mark.parametrize("seed", range(4))
def test_metrics_equal_their_definitions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, given = rng.integers(0, 2, (2, 30))
    y, a = labels.tolist(), given.tolist()
    assert score(y, a, LABEL_METRICS) == pytest.approx(
        {
            "accuracy": sum(p == q for p, q in zip(y, a, strict=True)) / 30,
            "f1": _f1(y, a, 1),
            "f1_macro": (_f1(y, a, 0) + _f1(y, a, 1)) / 2,
            "matthews_correlation": _matthews(y, a),
        }
    )


def test_f1_macro_is_the_mean_over_three_labels() -> None:
    labels, given = [0, 1, 2, 2, 1, 0], [0, 2, 2, 1, 1, 0]
    expected = sum(_f1(labels, given, label) for label in range(3)) / 3
    assert score(labels, given, _only("f1_macro")) == {"f1_macro": pytest.approx(expected)}


@pytest.mark.parametrize("constant", [0, 1])
def test_a_constant_answer_has_a_score(constant: int) -> None:
    given = [constant] * 4
    scores = score([0, 1, 1, 0], given, LABEL_METRICS)
    assert scores["accuracy"] == 0.5
    assert scores["matthews_correlation"] == 0
    assert scores["f1"] == pytest.approx(constant * 2 / 3)
    assert score([0, 0], [0, 0], _only("f1")) == {"f1": 0.0}


def test_accuracy_compares_values_of_any_type() -> None:
    assert accuracy(["a", 1, (2, 3)], ["a", 2, (2, 3)]) == pytest.approx(2 / 3)
    assert Metric(accuracy).higher_is_better
    assert all(metric.higher_is_better for metric in LABEL_METRICS.values())


@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("training", [True, False])
def test_answers_are_in_the_order_of_the_examples(batch_size: int, training: bool) -> None:
    lengths = [5, 1, 4, 1, 3, 2, 6]
    model = toy_bert(layers=1).train(training)
    asked: list[list[int]] = []

    def answer(rows: list[int]) -> list[str]:
        assert not model.training
        assert torch.is_inference_mode_enabled()
        asked.append(rows)
        return [f"answer {row}" for row in rows]

    given = over_batches(lengths, answer, model, Accelerator(cpu=True), batch_size=batch_size)
    assert given == [f"answer {row}" for row in range(7)]
    assert model.training == training
    assert [len(rows) for rows in asked] == {1: [1] * 7, 3: [3, 3, 1], 64: [7]}[batch_size]
    in_order = [lengths[row] for rows in asked for row in rows]
    assert in_order == sorted(lengths)  # of like length in a batch


def test_too_few_answers_are_noticed() -> None:
    with pytest.raises(ValueError, match="zip"):
        over_batches([1, 2], lambda rows: [0], toy_bert(layers=1), Accelerator(cpu=True))
