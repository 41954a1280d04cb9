"""Metrics against their definitions, and a model's answers one by one."""

import math

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from toys import toy_bert, toy_tokenizer
from toys_training import toy_features

from kd_train.evaluate import METRICS, answers, score


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
def test_metrics_are_their_definitions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, given = rng.integers(0, 2, (2, 30))
    y, a = labels.tolist(), given.tolist()
    assert score(y, given, list(METRICS)) == pytest.approx(
        {
            "accuracy": sum(p == q for p, q in zip(y, a, strict=True)) / 30,
            "f1": _f1(y, a, 1),
            "f1_macro": (_f1(y, a, 0) + _f1(y, a, 1)) / 2,
            "matthews_correlation": _matthews(y, a),
        }
    )


def test_f1_macro_of_three_labels() -> None:
    labels, given = [0, 1, 2, 2, 1, 0], [0, 2, 2, 1, 1, 0]
    expected = sum(_f1(labels, given, label) for label in range(3)) / 3
    assert score(labels, np.array(given), ["f1_macro"]) == {"f1_macro": pytest.approx(expected)}


@pytest.mark.parametrize("constant", [0, 1])
def test_a_constant_answer_has_a_score(constant: int) -> None:
    given = np.full(4, constant)
    scores = score([0, 1, 1, 0], given, list(METRICS))
    assert scores["accuracy"] == 0.5
    assert scores["matthews_correlation"] == 0
    assert scores["f1"] == pytest.approx(constant * 2 / 3)
    assert score([0, 0], np.zeros(2, dtype=np.int64), ["f1"]) == {"f1": 0.0}


@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("training", [True, False])
def test_answers_stand_in_the_order_of_the_examples(batch_size: int, training: bool) -> None:
    features, _ = toy_features(17)
    assert len({len(feature["input_ids"]) for feature in features}) > 5
    model = toy_bert(layers=2, seed=2).train(training)
    given = answers(model, features, toy_tokenizer(), Accelerator(cpu=True), batch_size=batch_size)
    assert model.training == training
    model.eval()
    with torch.no_grad():
        one_by_one = [
            int(model(**{name: torch.tensor([ids]) for name, ids in feature.items()}).logits.argmax())
            for feature in features
        ]
    assert given.tolist() == one_by_one
    assert len(set(one_by_one)) == 2
