"""Gradients against backward() in float64, written from the definition; and what must leave their angles alone."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from toys.models import N_TOKENS_IN_VOCABULARY, toy_bert
from transformers import BertForSequenceClassification

from layerangles.geometry.gradients import (
    _NUMBERS_PER_CHUNK,
    MatchingBatch,
    _GradientSums,
    gradient_cosines,
    gradient_products,
)
from layerangles.geometry.maps import MatchingMap

Maps = Mapping[int, MatchingMap | None]
N_TEACHER = 4  # 3 blocks and the embedding output


@dataclass(frozen=True)
class Case:
    """A student of 2 blocks, its maps into the space of a teacher of width 16, and two padded batches."""

    student: BertForSequenceClassification
    maps: Maps
    batches: list[MatchingBatch]

    def products(
        self,
        *,
        maps: Maps | None = None,
        batches: Sequence[MatchingBatch] | None = None,
        parameters: Sequence[nn.Parameter] | None = None,
    ) -> Tensor:
        return gradient_products(
            _states_of(self.student),
            list(self.student.parameters()) if parameters is None else parameters,
            self.maps if maps is None else maps,
            lambda: self.batches if batches is None else batches,
        )


def _states_of(student: BertForSequenceClassification) -> Callable[[dict[str, Tensor]], Sequence[Tensor]]:
    return lambda inputs: student(**inputs, output_hidden_states=True).hidden_states


def _batch(ids: Tensor, lengths: Tensor, teacher: BertForSequenceClassification) -> MatchingBatch:
    """The first ``lengths`` tokens of every row; all but the last of them count."""
    position = torch.arange(int(lengths.max()))
    inputs = {
        "input_ids": ids[:, : len(position)],
        "attention_mask": (position < lengths[:, None]).long(),
    }
    valid = position < lengths[:, None] - 1
    with torch.no_grad():
        targets = torch.stack([state[valid] for state in _states_of(teacher)(inputs)])
    return MatchingBatch(inputs, targets, valid)


def _case(kind: str, dtype: torch.dtype = torch.float64) -> Case:
    generator = torch.Generator().manual_seed(7)
    width = 16 if kind == "identity" else 12
    student = toy_bert(layers=2, width=width, seed=1).to(dtype)
    maps: dict[int, MatchingMap | None] = dict.fromkeys((2, 0, 1))
    if kind == "learned":
        for layer in maps:
            weight = torch.randn(16, width, generator=generator).to(dtype) / 3
            maps[layer] = MatchingMap(weight, torch.randn(16, generator=generator).to(dtype))
    teacher = toy_bert(layers=N_TEACHER - 1, width=16, seed=2).to(dtype)
    # The last words of the vocabulary occur in the second batch alone.
    ids = torch.randint(0, N_TOKENS_IN_VOCABULARY - 6, (2, 3, 7), generator=generator)
    ids[1] += 6
    lengths = torch.tensor([[5, 3, 4], [2, 7, 6]])
    return Case(student, maps, [_batch(i, n, teacher) for i, n in zip(ids, lengths, strict=True)])


def _reference_products(case: Case) -> Tensor:
    """One loss and one ``backward()`` for every student layer, teacher layer and batch; all in float64."""
    student = copy.deepcopy(case.student).double()
    gradients = []
    for layer in sorted(case.maps):
        for i in range(N_TEACHER):
            student.zero_grad()
            for inputs, targets, valid in case.batches:
                state = student.bert(**inputs, output_hidden_states=True).hidden_states[layer]
                loss = torch.zeros((), dtype=torch.float64)
                rows = iter(targets[i].double())
                for example in range(len(valid)):
                    for position in range(valid.shape[1]):
                        if valid[example, position]:
                            vector = state[example, position]
                            if (m := case.maps[layer]) is not None:
                                assert m.bias is not None
                                vector = (m.weight.double() * vector).sum(dim=1) + m.bias.double()
                            loss = loss + 0.5 * ((vector - next(rows)) ** 2).sum()
                loss.backward()
                assert next(rows, None) is None
            flat = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in student.parameters()]
            gradients.append(torch.cat([g.flatten() for g in flat]))
    by_layer = torch.stack(gradients).unflatten(0, (len(case.maps), N_TEACHER))
    views = [*by_layer, by_layer.sum(dim=0)]
    return torch.stack([torch.stack([(g * g[i]).sum(dim=1) for i in range(N_TEACHER)]) for g in views])


def _assert_same(got: Tensor, expected: Tensor, tolerance: float = 1e-11) -> None:
    """Every product, relative to the two lengths."""
    length = expected.diagonal(dim1=1, dim2=2).sqrt()
    error = (got - expected).abs() / (length[:, :, None] * length[:, None])
    assert error.max() < tolerance  # false for NaN


@pytest.fixture(params=["identity", "learned"])
def case(request: pytest.FixtureRequest) -> Case:
    return _case(request.param)


# --- against the definition ---------------------------------------------------------------------------------------


def test_products_are_those_of_the_definition(case: Case) -> None:
    products = case.products()
    assert products.dtype == torch.float64
    assert products.shape == (4, N_TEACHER, N_TEACHER)
    _assert_same(products, _reference_products(case))


@pytest.mark.parametrize("kind", ["identity", "learned"])
def test_float32_is_close_to_the_definition(kind: str) -> None:
    case = _case(kind, torch.float32)
    expected = _reference_products(case)
    products = case.products()
    assert products.dtype == torch.float64
    _assert_same(products, expected, 5e-6)
    assert (gradient_cosines(products) - gradient_cosines(expected)).abs().max() < 5e-6


def test_whole_student_is_the_gradient_of_the_summed_loss() -> None:
    # Of one layer it is that layer; of two it is not the sum of their products, for gradients add before they multiply.
    case = _case("learned")
    one = case.products(maps={1: case.maps[1]})
    assert one.shape == (2, N_TEACHER, N_TEACHER)
    assert torch.equal(one[0], one[1])
    two = case.products(maps={layer: case.maps[layer] for layer in (2, 1)})
    assert torch.equal(two[0], one[0])
    reference = _reference_products(Case(case.student, {layer: case.maps[layer] for layer in (1, 2)}, case.batches))
    _assert_same(two, reference)
    assert (two[2] - two[0] - two[1]).abs().max() > 0.01 * two[2].abs().max()


def test_cosines_are_products_over_lengths(case: Case) -> None:
    products = case.products()
    cosines = gradient_cosines(products)
    for view in range(len(products)):
        for i in range(N_TEACHER):
            for j in range(N_TEACHER):
                lengths = products[view, i, i].item() ** 0.5 * products[view, j, j].item() ** 0.5
                assert cosines[view, i, j].item() == pytest.approx(products[view, i, j].item() / lengths, abs=1e-14)
    assert (cosines.diagonal(dim1=1, dim2=2) == 1).all()
    # Rounding does not leave the range of a cosine.
    assert gradient_cosines(torch.tensor([[[1.0, 1 + 1e-15], [1 + 1e-15, 1.0]]], dtype=torch.float64)).max() == 1


def test_nothing_is_left_behind_in_the_student() -> None:
    case = _case("identity")
    with torch.no_grad():  # as measurements are made; gradients are taken all the same
        products = case.products()
    assert not products.requires_grad
    assert all(parameter.grad is None for parameter in case.student.parameters())


# --- degenerate gradients ------------------------------------------------------------------------------------------


def test_a_target_that_the_student_meets_has_no_direction(case: Case) -> None:
    batches = []
    for inputs, targets, valid in case.batches:
        with torch.no_grad():
            state = _states_of(case.student)(inputs)[1][valid]
            met = state if (m := case.maps[1]) is None else m.apply(state)
        batches.append(MatchingBatch(inputs, torch.stack([targets[0], met, targets[2]]), valid))
    products = case.products(batches=batches)
    assert (products[1, 1] == 0).all()
    assert (products[1, :, 1] == 0).all()
    nan = gradient_cosines(products).isnan()
    expected = torch.zeros(4, 3, 3, dtype=torch.bool)
    expected[1, 1] = expected[1, :, 1] = True  # student layer 1 alone, and not the whole student
    assert torch.equal(nan, expected)


# --- what must not matter, and where gradients are --------------------------------------------------------------------


def test_batches_may_be_split_in_any_way(case: Case) -> None:
    # Both batches as one: the shorter one gets more padding.
    n_positions = max(batch.valid.shape[1] for batch in case.batches)

    def padded(tensor: Tensor) -> Tensor:
        return nn.functional.pad(tensor, (0, n_positions - tensor.shape[1]))

    together = MatchingBatch(
        {name: torch.cat([padded(b.inputs[name]) for b in case.batches]) for name in case.batches[0].inputs},
        torch.cat([b.targets for b in case.batches], dim=1),
        torch.cat([padded(b.valid) for b in case.batches]),
    )
    products = case.products()
    _assert_same(case.products(batches=[together]), products)
    _assert_same(case.products(batches=case.batches[::-1]), products)


def test_the_embedding_output_has_gradients_in_the_embeddings_alone(case: Case) -> None:
    embeddings = list(case.student.bert.embeddings.parameters())
    others = [*case.student.bert.encoder.parameters(), *case.student.classifier.parameters()]
    everywhere, below, above = (case.products(parameters=p) for p in (None, embeddings, others))
    assert (above[0] == 0).all()
    assert (above[1:].diagonal(dim1=1, dim2=2) > 0).all()
    assert torch.equal(below[0], everywhere[0])
    _assert_same(below + above, everywhere)


def test_a_rotation_of_teacher_space_changes_nothing(case: Case) -> None:
    rotation = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(3)).double()).Q
    maps = {
        layer: MatchingMap(rotation) if m is None else MatchingMap(rotation @ m.weight, rotation @ m.bias)
        for layer, m in case.maps.items()
    }
    batches = [batch._replace(targets=batch.targets @ rotation.T) for batch in case.batches]
    _assert_same(case.products(maps=maps, batches=batches), case.products())


# --- sums in few rows ----------------------------------------------------------------------------------------------


def test_only_rows_that_had_a_gradient_are_held() -> None:
    generator = torch.Generator().manual_seed(5)
    dense = torch.zeros(2, 100, 3)  # two teacher layers
    sums = _GradientSums(nn.Parameter(torch.zeros(100, 3)), 2)
    for rows, layer in (([4, 90], 0), ([90, 7], 1), ([7, 8], 0), ([], 1)):
        gradient = torch.zeros(100, 3)
        gradient[rows] = torch.randn(len(rows), 3, generator=generator) * (1e-30 if rows == [7, 8] else 1)
        sums.add(layer, gradient)
        dense[layer] += gradient
    assert sums.held.shape == (2, 4, 3)  # row 8 too, whose squares are 0 in float32
    flat = dense.flatten(1).double()
    assert torch.allclose(sums.products(), flat @ flat.T, rtol=1e-12)


def test_gradients_of_half_precision_are_summed_in_float32() -> None:
    sums = _GradientSums(nn.Parameter(torch.zeros(1, dtype=torch.bfloat16)), 1)
    for number in (256, 1):  # 257 is no number of bfloat16
        sums.add(0, torch.tensor([number], dtype=torch.bfloat16))
    assert sums.products().item() == 257**2


def test_products_are_summed_in_float64_over_all_chunks() -> None:
    numbers = torch.zeros(2 * _NUMBERS_PER_CHUNK + 1)
    numbers[[0, _NUMBERS_PER_CHUNK, -1]] = torch.tensor([4096.0, 1.0, 2.0])
    sums = _GradientSums(nn.Parameter(torch.zeros_like(numbers)), 1)
    sums.add(0, numbers)
    assert sums.products().item() == 4096**2 + 1 + 4  # no number of float32


# --- what was given wrong ------------------------------------------------------------------------------------------


def _detached(inputs: dict[str, Tensor]) -> list[Tensor]:
    return [torch.zeros(1, 2, 4)]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"maps": {}}, "maps names no student layer; give at least one"),
        ({"parameters": []}, "at least one, and all of them trainable; got 0, of which 0"),
        ({"parameters": [nn.Parameter(torch.zeros(2), requires_grad=False)]}, "got 1, of which 1 do not require"),
        ({"maps": {1: None}}, "names student layer 1; this student has the layers 0 .* to 0"),
        ({"maps": {-1: None}}, "names student layer -1"),
        ({"valid": torch.ones(2, 1, dtype=torch.bool)}, r"positions, \(1, 2\); got the shape \(2, 1\)"),
        ({"maps": {0: MatchingMap(torch.zeros(4, 5))}}, "layer 0 must take the student's 4 dimensions; got .* takes 5"),
        ({"maps": {0: MatchingMap(torch.zeros(6, 4))}}, r"2 valid tokens and 6 dimensions .* shape \(3, 2, 4\)"),
        ({"targets": torch.zeros(3, 1, 4)}, r"2 valid tokens and 4 dimensions .* shape \(3, 1, 4\)"),
        ({"targets": torch.zeros(2, 4)}, r"2 valid tokens and 4 dimensions .* shape \(2, 4\)"),
        ({"targets": torch.full((3, 2, 4), torch.nan)}, r"gradients of the student layers \[0\] are not finite"),
        ({"student_states": _detached}, "student layer 0 depends on no parameter that requires a gradient"),
        ({"more": [MatchingBatch({}, torch.zeros(5, 2, 4), torch.ones(1, 2).bool())]}, "got 3 and then 5"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(changed: dict[str, object], message: str) -> None:
    point = nn.Parameter(torch.ones(1, 2, 4))
    right = {
        "student_states": lambda inputs: [point],
        "parameters": [point],
        "maps": {0: None},
        "targets": torch.zeros(3, 2, 4),
        "valid": torch.ones(1, 2, dtype=torch.bool),
        "more": [],
    }
    given = right | changed
    batch = MatchingBatch({}, given.pop("targets"), given.pop("valid"))
    batches = [batch, *given.pop("more")]
    with pytest.raises(ValueError, match=message):
        gradient_products(**given, batches=lambda: batches)


def test_batches_that_are_used_up_are_refused() -> None:
    point = nn.Parameter(torch.ones(1, 1, 2))
    once = iter([MatchingBatch({}, torch.zeros(1, 1, 2), torch.tensor([[True]]))])
    with pytest.raises(ValueError, match=r"gave no batch for the student layers \[0\].* once a view"):
        gradient_products(lambda inputs: [point], [point], {0: None}, lambda: once)
