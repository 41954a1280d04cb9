"""Every loss against a naive version from its definition, in Python floats, over a padded batch."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from kd_train.batches.token_choice import chosen_tokens
from kd_train.matching.losses import (
    DIVERGENCES,
    HIDDEN_LOSSES,
    Divergence,
    HiddenLoss,
    LossSpec,
    hidden_loss,
    label_loss,
    over_pairs,
    prediction_divergence,
)

LENGTHS = (3, 1, 5, 2)
LONGEST = max(LENGTHS)
DIM = 6
# Kinds that do not see PAD, and whose micro_batches add up to the batch.
BLIND_TO_PAD = tuple(kind for kind in HIDDEN_LOSSES if kind not in ("paper_t5", "paper_qwen"))


def _padded_states(seed: int, *, filler: float = 1e6) -> Tensor:
    """``[example, position, dim]``, with nonsense at PAD."""
    states = torch.randn(len(LENGTHS), LONGEST, DIM, generator=torch.Generator().manual_seed(seed)).double()
    for example, length in enumerate(LENGTHS):
        states[example, length:] = filler * (seed + 1)
    return states


def _mask() -> Tensor:
    return torch.arange(LONGEST) < torch.tensor(LENGTHS)[:, None]


def _loss(kind: HiddenLoss, student: Tensor, teacher: Tensor, rows: slice = slice(None)) -> Tensor:
    """The loss as the bank computes it, of some examples of the batch."""
    spec = LossSpec(hidden=kind)
    mask = _mask()
    at = chosen_tokens(mask[rows], spec.matched_tokens)
    return hidden_loss(
        kind,
        student[rows][at],
        teacher[rows][at],
        n_tokens=int(chosen_tokens(mask, spec.averaged_tokens).sum()),
        n_examples=len(LENGTHS),
        valid=mask[rows].flatten() if spec.matched_tokens == "all" else None,
    )


def _standardized(values: Sequence[float]) -> list[float]:
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    return [(value - mean) / math.sqrt(variance + 1e-5) for value in values]  # 1e-5 as in every layer norm


def _unit(values: Sequence[float]) -> list[float]:
    norm = math.sqrt(sum(value**2 for value in values))
    return [value / norm for value in values]


def _squared(a: Sequence[float], b: Sequence[float]) -> float:
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def _naive_hidden_loss(kind: HiddenLoss, student: Tensor, teacher: Tensor) -> float:
    valid = [(example, position) for example, length in enumerate(LENGTHS) for position in range(length)]
    every = [(example, position) for example in range(len(LENGTHS)) for position in range(LONGEST)]
    s = {place: student[place].tolist() for place in every}
    t = {place: teacher[place].tolist() for place in every}
    if kind == "mse" or kind == "paper_bart":
        return sum(_squared(s[p], t[p]) / DIM for p in valid) / len(valid)
    if kind == "layer_norm":
        return sum(_squared(_standardized(s[p]), _standardized(t[p])) / DIM for p in valid) / len(valid)
    if kind == "unit":
        return sum(_squared(_unit(s[p]), _unit(t[p])) for p in valid) / len(valid)
    if kind == "cosine":
        return sum(1 - sum(a * b for a, b in zip(_unit(s[p]), _unit(t[p]), strict=True)) for p in valid) / len(valid)
    if kind == "patient":
        return sum(_squared(_unit(s[e, 0]), _unit(t[e, 0])) for e in range(len(LENGTHS))) / len(LENGTHS)
    if kind == "paper_bert":
        return sum(_squared(s[p], t[p]) for p in valid) / len(valid) / len(LENGTHS)
    if kind == "paper_qwen":
        return sum(_squared(_unit(s[p]), _unit(t[p])) for p in every) / len(every)
    assert kind == "paper_t5"
    all_s, all_t = (_standardized([value for p in every for value in of[p]]) for of in (s, t))
    at_valid = [i * DIM + k for i, place in enumerate(every) if place in valid for k in range(DIM)]
    return sum((all_s[i] - all_t[i]) ** 2 for i in at_valid) / len(at_valid)


@pytest.mark.parametrize("kind", HIDDEN_LOSSES)
def test_hidden_losses_are_their_definitions(kind: HiddenLoss) -> None:
    # States at PAD are small where they count, or they would dominate the loss.
    filler = 1e6 if kind in BLIND_TO_PAD else 0.5
    student, teacher = _padded_states(0, filler=filler), _padded_states(1, filler=-filler)
    expected = _naive_hidden_loss(kind, student, teacher)
    assert float(_loss(kind, student, teacher)) == pytest.approx(expected, rel=1e-12)
    assert expected > 0.01


@pytest.mark.parametrize("kind", HIDDEN_LOSSES)
def test_states_at_pad_matter_only_for_losses_that_count_pad(kind: HiddenLoss) -> None:
    losses = []
    for filler in (0.5, 7.0):
        student, teacher = _padded_states(0, filler=filler), _padded_states(1, filler=-1.0)
        student[:, :, 0][~_mask()] += 1
        losses.append(_loss(kind, student, teacher))
    assert torch.equal(*losses) == (kind in BLIND_TO_PAD)


@pytest.mark.parametrize("kind", BLIND_TO_PAD)
def test_micro_batches_add_up_to_the_batch(kind: HiddenLoss) -> None:
    student, teacher = _padded_states(0), _padded_states(1)
    micro_batches = [_loss(kind, student, teacher, rows) for rows in (slice(0, 1), slice(1, 3), slice(3, 4))]
    assert float(sum(micro_batches)) == pytest.approx(float(_loss(kind, student, teacher)), rel=1e-12)
    assert all(float(micro_batch) > 0 for micro_batch in micro_batches)


@pytest.mark.parametrize("kind", HIDDEN_LOSSES)
def test_a_student_in_its_target_has_no_loss(kind: HiddenLoss) -> None:
    states = _padded_states(0)
    assert float(_loss(kind, states, states.clone())) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("kind", HIDDEN_LOSSES)
def test_normalized_losses_ignore_the_length_of_states(kind: HiddenLoss) -> None:
    student, teacher = _padded_states(0, filler=0.5), _padded_states(1, filler=-0.5)
    is_same = torch.allclose(_loss(kind, 3 * student, teacher), _loss(kind, student, teacher), rtol=1e-3)
    assert is_same == (kind in ("layer_norm", "unit", "cosine", "patient", "paper_t5", "paper_qwen"))


@pytest.mark.parametrize("kind", ["unit", "patient", "paper_qwen"])
def test_a_state_of_length_zero_stays_zero(kind: HiddenLoss) -> None:
    """The embedding of PAD is 0 in many models: a division by its length would be NaN."""
    student = _padded_states(0, filler=0.0).requires_grad_()
    loss = _loss(kind, student * (torch.arange(LONGEST) > 0)[:, None], _padded_states(1))
    loss.backward()
    assert loss.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("kind", HIDDEN_LOSSES)
def test_pairs_are_averaged_or_added(kind: HiddenLoss) -> None:
    losses = [torch.tensor(value) for value in (1.0, 2.0, 6.0)]
    added = kind in ("patient", "paper_bart", "paper_t5")
    assert float(over_pairs(kind, losses)) == (9.0 if added else 3.0)


@pytest.mark.parametrize("kind", HIDDEN_LOSSES)
def test_every_loss_states_its_tokens(kind: HiddenLoss) -> None:
    spec = LossSpec(hidden=kind)
    matched = {"patient": "first", "paper_t5": "all", "paper_qwen": "all"}.get(kind, "valid")
    assert (spec.matched_tokens, spec.averaged_tokens) == (matched, "valid" if kind == "paper_t5" else matched)
    if matched == "valid":
        chosen = LossSpec(hidden=kind, tokens="first")
        assert (chosen.matched_tokens, chosen.averaged_tokens) == ("first", "first")
    else:
        with pytest.raises(ValueError, match=f"tokens cannot be chosen for {kind}, which is defined on {matched}"):
            LossSpec(hidden=kind, tokens="first")


@pytest.mark.parametrize("padding_side", ["right", "left"])
def test_tokens_are_chosen_among_the_valid_ones(padding_side: str) -> None:
    valid = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]]).bool()
    if padding_side == "left":
        valid = valid.flip(1)
    assert torch.equal(chosen_tokens(valid, "valid"), valid)
    assert chosen_tokens(valid, "all").all()
    first = [[0, 0], [1, 0]] if padding_side == "right" else [[0, 1], [1, 3]]
    assert chosen_tokens(valid, "first").nonzero().tolist() == first


def _softmax(logits: Sequence[float], temperature: float = 1.0) -> list[float]:
    exponentials = [math.exp(value / temperature) for value in logits]
    return [value / sum(exponentials) for value in exponentials]


def _logits(seed: int, n_predictions: int = 7, n_labels: int = 3) -> Tensor:
    return torch.randn(n_predictions, n_labels, generator=torch.Generator().manual_seed(seed)).double()


def test_cross_entropy_is_its_definition() -> None:
    logits, labels = _logits(0), [0, 2, 1, 1, 0, 2, 2]
    expected = -sum(math.log(_softmax(row)[y]) for row, y in zip(logits.tolist(), labels, strict=True)) / 9
    got = label_loss(logits, torch.tensor(labels), 9)
    assert float(got) == pytest.approx(expected, rel=1e-12)


def test_regression_loss_is_the_mean_squared_error() -> None:
    logits, labels = _logits(0, n_labels=1), [0.5, -1.0, 2.0, 3.0, 0.0, 1.0, 1.5]
    expected = sum((row[0] - y) ** 2 for row, y in zip(logits.tolist(), labels, strict=True)) / 7
    got = label_loss(logits, torch.tensor(labels).double(), 7)
    assert float(got) == pytest.approx(expected, rel=1e-12)


def _kl(p: Sequence[float], q: Sequence[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def _naive_divergence(kind: Divergence, student: Tensor, teacher: Tensor, temperature: float) -> float:
    total = 0.0
    for s_row, t_row in zip(student.tolist(), teacher.tolist(), strict=True):
        s, t = _softmax(s_row, temperature), _softmax(t_row, temperature)
        mixture = [(a + b) / 2 for a, b in zip(s, t, strict=True)]
        total += {
            "forward_kl": _kl(t, s),
            "reverse_kl": _kl(s, t),
            "jensen_shannon": (_kl(s, mixture) + _kl(t, mixture)) / 2,
        }[kind]
    return temperature**2 * total / len(student)


@pytest.mark.parametrize("kind", DIVERGENCES)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_divergences_are_their_definitions(kind: Divergence, temperature: float) -> None:
    student, teacher = _logits(0), _logits(1)
    spec = LossSpec(divergence=kind, temperature=temperature)
    got = float(prediction_divergence(student, teacher, spec, 7))
    assert got == pytest.approx(_naive_divergence(kind, student, teacher, temperature), rel=1e-12)
    swapped = float(prediction_divergence(teacher, student, spec, 7))
    assert (got == pytest.approx(swapped, rel=1e-3)) == (kind == "jensen_shannon")
    assert float(prediction_divergence(student, student, spec, 7)) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("kind", DIVERGENCES)
def test_the_divergence_of_certain_predictions_is_finite(kind: Divergence) -> None:
    student, teacher = torch.tensor([[200.0, 0.0]]), torch.tensor([[0.0, 200.0]])
    loss = prediction_divergence(student, teacher, LossSpec(divergence=kind), 1)
    assert float(loss) == pytest.approx(math.log(2) if kind == "jensen_shannon" else 200, rel=1e-6)


@pytest.mark.parametrize("kind", DIVERGENCES)
def test_regression_divergence_is_the_mean_squared_difference_at_any_temperature(kind: Divergence) -> None:
    student, teacher = _logits(0, n_labels=1), _logits(1, n_labels=1)
    got = prediction_divergence(student, teacher, LossSpec(divergence=kind, temperature=3.0), 7)
    expected = sum((s[0] - t[0]) ** 2 for s, t in zip(student.tolist(), teacher.tolist(), strict=True)) / 7
    assert float(got) == pytest.approx(expected, rel=1e-12)


def test_predictions_in_micro_batches_add_up_to_the_batch() -> None:
    student, teacher, labels = _logits(0), _logits(1), torch.tensor([0, 2, 1, 1, 0, 2, 2])
    spec = LossSpec(temperature=2.0)
    micro_batches = (slice(0, 2), slice(2, 7))
    assert float(sum(label_loss(student[p], labels[p], 7) for p in micro_batches)) == pytest.approx(
        float(label_loss(student, labels, 7)), rel=1e-12
    )
    assert float(sum(prediction_divergence(student[p], teacher[p], spec, 7) for p in micro_batches)) == pytest.approx(
        float(prediction_divergence(student, teacher, spec, 7)), rel=1e-12
    )


def test_the_weights_are_those_of_the_paper() -> None:
    spec = LossSpec()
    assert (spec.ce_weight, spec.kl_weight, spec.hidden_weight, spec.temperature) == (1, 1, 3, 1)
    assert (spec.hidden, spec.divergence, spec.tokens) == ("mse", "forward_kl", None)


@pytest.mark.parametrize("change", [{"ce_weight": -1}, {"temperature": 0}, {"hidden": "l1"}, {"margin": 1}])
def test_an_invalid_loss_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="1 validation error"):
        LossSpec.model_validate(change)
