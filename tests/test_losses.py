"""Every loss against a naive one written from its definition, in float64, over a padded batch."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from kd_train.losses import BatchCounts, HiddenLoss, LossSpec, cross_entropy, hidden_loss, prediction_divergence
from layerangles.states import counted_states

LENGTHS = (3, 1, 5, 2)
COUNTS = BatchCounts(examples=len(LENGTHS), tokens=sum(LENGTHS))
DIM = 6
KINDS: tuple[HiddenLoss, ...] = ("mse", "paper_bert", "unit", "cosine")


def _padded_states(seed: int) -> Tensor:
    """``[example, position, dim]``, with nonsense at PAD."""
    states = torch.randn(len(LENGTHS), max(LENGTHS), DIM, generator=torch.Generator().manual_seed(seed)).double()
    for example, length in enumerate(LENGTHS):
        states[example, length:] = 1e6 * (seed + 1)
    return states


def _mask() -> Tensor:
    return torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]


def _naive_hidden_loss(kind: HiddenLoss, student: Tensor, teacher: Tensor) -> float:
    """From the definitions, in Python's own floats."""
    per_token = []
    for example, length in enumerate(LENGTHS):
        for position in range(length):
            s: list[float] = student[example, position].tolist()
            t: list[float] = teacher[example, position].tolist()
            squared = sum((a - b) ** 2 for a, b in zip(s, t, strict=True))
            dot = sum(a * b for a, b in zip(s, t, strict=True))
            cosine = dot / math.sqrt(sum(a * a for a in s)) / math.sqrt(sum(b * b for b in t))
            value = {"mse": squared / DIM, "paper_bert": squared, "unit": 2 * (1 - cosine), "cosine": 1 - cosine}
            per_token.append(value[kind])
    mean = sum(per_token) / len(per_token)
    return mean / len(LENGTHS) if kind == "paper_bert" else mean


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_losses_are_their_definitions(kind: HiddenLoss) -> None:
    student, teacher = _padded_states(0), _padded_states(1)
    valid = [counted_states([states], _mask())[0] for states in (student, teacher)]
    got = hidden_loss(kind, *valid, COUNTS)
    assert float(got) == pytest.approx(_naive_hidden_loss(kind, student, teacher), rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_at_pad_does_not_enter(kind: HiddenLoss) -> None:
    losses = []
    for filler in (0.0, 7.0):
        student, teacher = _padded_states(0), _padded_states(1)
        student[~_mask()], teacher[~_mask()] = filler, -filler
        losses.append(hidden_loss(kind, *(counted_states([s], _mask())[0] for s in (student, teacher)), COUNTS))
    assert torch.equal(*losses)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_add_up_to_the_batch(kind: HiddenLoss) -> None:
    student, teacher = (counted_states([_padded_states(seed)], _mask())[0] for seed in (0, 1))
    parts = [hidden_loss(kind, student[i:j], teacher[i:j], COUNTS) for i, j in ((0, 4), (4, 5), (5, COUNTS.tokens))]
    assert float(sum(parts)) == pytest.approx(float(hidden_loss(kind, student, teacher, COUNTS)), rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_in_its_target_has_no_loss(kind: HiddenLoss) -> None:
    states = counted_states([_padded_states(0)], _mask())[0]
    assert float(hidden_loss(kind, states, states.clone(), COUNTS)) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_unit_losses_are_blind_to_length(kind: HiddenLoss) -> None:
    student, teacher = (counted_states([_padded_states(seed)], _mask())[0] for seed in (0, 1))
    is_same = torch.allclose(
        hidden_loss(kind, 3 * student, teacher, COUNTS), hidden_loss(kind, student, teacher, COUNTS)
    )
    assert is_same == (kind in ("unit", "cosine"))


def _softmax(logits: Sequence[float], temperature: float = 1.0) -> list[float]:
    exponentials = [math.exp(value / temperature) for value in logits]
    return [value / sum(exponentials) for value in exponentials]


def _logits(seed: int, n_examples: int = 7, n_labels: int = 3) -> Tensor:
    return torch.randn(n_examples, n_labels, generator=torch.Generator().manual_seed(seed)).double()


def test_cross_entropy_is_its_definition() -> None:
    logits, labels = _logits(0), [0, 2, 1, 1, 0, 2, 2]
    expected = -sum(math.log(_softmax(row)[y]) for row, y in zip(logits.tolist(), labels, strict=True)) / 7
    got = cross_entropy(logits, torch.tensor(labels), BatchCounts(examples=7, tokens=99))
    assert float(got) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_prediction_divergence_is_its_definition(temperature: float) -> None:
    student, teacher = _logits(0), _logits(1)
    expected = 0.0
    for s_row, t_row in zip(student.tolist(), teacher.tolist(), strict=True):
        p, q = _softmax(t_row, temperature), _softmax(s_row, temperature)
        expected += temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / 7
    got = prediction_divergence(student, teacher, temperature, BatchCounts(examples=7, tokens=99))
    assert float(got) == pytest.approx(expected, rel=1e-12)
    assert float(got) != pytest.approx(
        float(prediction_divergence(teacher, student, temperature, BatchCounts(examples=7, tokens=99))), rel=1e-3
    )


def test_predictions_in_parts_add_up_to_the_batch() -> None:
    student, teacher, labels = _logits(0), _logits(1), torch.tensor([0, 2, 1, 1, 0, 2, 2])
    counts = BatchCounts(examples=7, tokens=99)
    parts = (slice(0, 2), slice(2, 7))
    assert float(sum(cross_entropy(student[p], labels[p], counts) for p in parts)) == pytest.approx(
        float(cross_entropy(student, labels, counts)), rel=1e-12
    )
    assert float(sum(prediction_divergence(student[p], teacher[p], 2.0, counts) for p in parts)) == pytest.approx(
        float(prediction_divergence(student, teacher, 2.0, counts)), rel=1e-12
    )


def test_the_weights_are_those_of_the_paper() -> None:
    spec = LossSpec()
    assert (spec.ce_weight, spec.kl_weight, spec.hidden_weight, spec.temperature) == (1, 1, 3, 1)


@pytest.mark.parametrize("change", [{"ce_weight": -1}, {"temperature": 0}, {"hidden": "l1"}, {"margin": 1}])
def test_a_loss_that_makes_no_sense_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="1 validation error"):
        LossSpec.model_validate(change)
