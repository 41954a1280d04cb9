"""The layer maps against the paper's figures and an exact computation."""

import math
from collections import Counter
from fractions import Fraction

import pytest

from kd_train.matching.strategies import STRATEGIES, Strategy, forward_targets, layer_pairs
from layerangles import InputError


def _targets(student_layers: int, teacher_layers: int, **strategy: object) -> tuple[int, ...]:
    """The teacher layers of the student's blocks, after a check that the blocks are counted 1, 2, …"""
    pairs = layer_pairs(Strategy(**strategy), student_layers, teacher_layers, embedding_pair=False)
    assert [student_layer for student_layer, _ in pairs] == list(range(1, student_layers + 1))
    return tuple(teacher_layer for _, teacher_layer in pairs)


@pytest.mark.parametrize(
    ("depth", "expected"),
    [
        (3, (4, 8, 12)),
        (6, (2, 4, 6, 8, 10, 12)),
        (9, (2, 3, 4, 6, 7, 8, 10, 11, 12)),
        (12, tuple(range(1, 13))),
        (1, (12,)),
    ],
)
def test_forward_is_that_of_the_paper(depth: int, expected: tuple[int, ...]) -> None:
    assert _targets(depth, 12, kind="forward") == expected


@pytest.mark.parametrize("teacher_layers", range(1, 37))
def test_forward_and_reverse_are_the_exact_formula(teacher_layers: int) -> None:
    for student_layers in range(1, teacher_layers + 1):
        exact = [math.ceil(Fraction(j * teacher_layers, student_layers)) for j in range(1, student_layers + 1)]
        assert list(forward_targets(student_layers, teacher_layers)) == exact
        assert list(_targets(student_layers, teacher_layers, kind="forward")) == exact
        reverse = [exact[student_layers + 1 - j - 1] for j in range(1, student_layers + 1)]  # m0(L_S + 1 - j)
        assert list(_targets(student_layers, teacher_layers, kind="reverse")) == reverse


def test_all_to_one_goes_to_the_middle_and_takes_the_embedding_along() -> None:
    assert layer_pairs(Strategy(kind="all_to_one"), 3, 12) == ((0, 6), (1, 6), (2, 6), (3, 6))
    assert layer_pairs(Strategy(kind="all_to_one"), 2, 12, embedding_pair=False) == ((1, 6), (2, 6))
    assert _targets(2, 28, kind="all_to_one") == (14, 14)
    assert layer_pairs(Strategy(kind="all_to_one", teacher_layer=9), 2, 12) == ((0, 9), (1, 9), (2, 9))
    assert _targets(1, 1, kind="all_to_one") == (1,)


def test_all_to_one_to_a_missing_layer_is_refused() -> None:
    with pytest.raises(InputError, match=r"teacher layer 13: the teacher has the layers 1 to 12\."):
        layer_pairs(Strategy(kind="all_to_one", teacher_layer=13), 3, 12)


@pytest.mark.parametrize("depth", [1, 3, 6, 9, 12])
def test_random_permutes_the_forward_targets(depth: int) -> None:
    for seed in range(20):
        assert sorted(_targets(depth, 12, kind="random", mapping_seed=seed)) == list(forward_targets(depth, 12))


def test_random_reaches_every_permutation_about_equally_often() -> None:
    drawn = Counter(_targets(3, 12, kind="random", mapping_seed=seed) for seed in range(600))
    assert len(drawn) == 6
    assert all(70 <= times <= 130 for times in drawn.values())  # 100 ± 3.3 standard deviations


def test_a_draw_follows_from_the_mapping_seed_alone() -> None:
    for kind in ("random", "in_order_random"):
        assert _targets(6, 12, kind=kind, mapping_seed=4) == _targets(6, 12, kind=kind, mapping_seed=4)
        assert _targets(6, 12, kind=kind) == _targets(6, 12, kind=kind, mapping_seed=0)
        assert len({_targets(6, 12, kind=kind, mapping_seed=seed) for seed in range(20)}) > 10


def test_in_order_random_draws_in_order_without_replacement_and_without_the_last() -> None:
    for depth in (1, 3, 6, 11):
        for seed in range(50):
            targets = _targets(depth, 12, kind="in_order_random", mapping_seed=seed)
            assert list(targets) == sorted(set(targets))
            assert set(targets) <= set(range(1, 12))


def test_in_order_random_draws_every_set_about_equally_often() -> None:
    drawn = Counter(_targets(2, 6, kind="in_order_random", mapping_seed=seed) for seed in range(1000))
    assert len(drawn) == math.comb(5, 2)
    assert all(70 <= times <= 130 for times in drawn.values())


def test_an_impossible_in_order_random_names_the_depths() -> None:
    with pytest.raises(InputError, match=r"draws 4 different teacher layers .* a teacher of 4 layers has only 3"):
        layer_pairs(Strategy(kind="in_order_random"), 4, 4)


def test_maps_of_at_most_one_pair_ignore_the_embedding_pair() -> None:
    assert layer_pairs(Strategy(kind="none"), 3, 12) == ()
    assert layer_pairs(Strategy(kind="first"), 3, 12) == ((1, 1),)
    assert layer_pairs(Strategy(kind="last"), 3, 12) == ((3, 12),)
    assert layer_pairs(Strategy(kind="one_to_one", student_layer=2, teacher_layer=7), 3, 12) == ((2, 7),)
    assert layer_pairs(Strategy(kind="one_to_one", student_layer=0, teacher_layer=0), 3, 12) == ((0, 0),)
    with pytest.raises(InputError, match=r"the pair \[4, 7\] names a layer that does not exist"):
        layer_pairs(Strategy(kind="one_to_one", student_layer=4, teacher_layer=7), 3, 12)


@pytest.mark.parametrize(
    ("kind", "student", "teacher", "expected"),
    [
        # Sun et al. (2019): of 12 layers, 6 are matched to {2, 4, 6, 8, 10} or to {7, 8, 9, 10, 11}.
        ("patient_skip", 6, 12, (2, 4, 6, 8, 10)),
        ("patient_last", 6, 12, (7, 8, 9, 10, 11)),
        ("patient_skip", 3, 12, (4, 8)),
        ("patient_last", 3, 12, (10, 11)),
        ("patient_skip", 5, 12, (2, 4, 6, 8)),  # every second: 12 / 5 does not divide
        ("patient_skip", 2, 2, (1,)),
    ],
)
def test_patient_maps_leave_the_last_student_layer_out(
    kind: str, student: int, teacher: int, expected: tuple[int, ...]
) -> None:
    assert layer_pairs(Strategy.model_validate(kind), student, teacher) == tuple(enumerate(expected, start=1))


@pytest.mark.parametrize("kind", ["patient_skip", "patient_last"])
def test_patient_maps_need_two_layers(kind: str) -> None:
    with pytest.raises(InputError, match="leaves the last student layer unmatched, so a student of 1 layer has none"):
        layer_pairs(Strategy.model_validate(kind), 1, 12)


def test_attention_weighs_all_pairs_and_dynamic_starts_from_forward() -> None:
    assert layer_pairs(Strategy(kind="attention"), 2, 3) == ((1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3))
    assert layer_pairs(Strategy(kind="dynamic"), 3, 12) == ((0, 0), (1, 4), (2, 8), (3, 12))


@pytest.mark.parametrize("kind", ["random", "in_order_random"])
def test_every_draw_and_every_tower_is_a_draw_of_its_own(kind: str) -> None:
    strategy = Strategy(kind=kind, mapping_seed=1)
    drawn = [
        layer_pairs(strategy, 6, 12, tower=tower, draw=draw) for tower in ("encoder", "decoder") for draw in range(5)
    ]
    assert len(set(drawn)) == 10
    assert drawn[0] == layer_pairs(strategy, 6, 12)
    assert drawn[7] == layer_pairs(strategy, 6, 12, tower="decoder", draw=2)


def test_explicit_pairs_may_differ_by_tower() -> None:
    strategy = Strategy(kind="explicit", pairs={"encoder": ((1, 2),), "decoder": ((2, 4), (1, 3))})
    assert layer_pairs(strategy, 2, 4, tower="encoder") == ((1, 2),)
    assert layer_pairs(strategy, 2, 4, tower="decoder") == ((1, 3), (2, 4))
    only = Strategy(kind="explicit", pairs={"decoder": ((1, 1),)})
    assert layer_pairs(only, 2, 4, tower="encoder") == ()


@pytest.mark.parametrize("kind", ["forward", "reverse", "random", "in_order_random"])
def test_the_embedding_pair_can_be_left_out(kind: str) -> None:
    strategy = Strategy.model_validate(kind)
    with_pair = layer_pairs(strategy, 3, 12)
    assert with_pair[0] == (0, 0)
    assert with_pair[1:] == layer_pairs(strategy, 3, 12, embedding_pair=False)


def test_explicit_pairs_are_taken_as_they_are_by_student_layer() -> None:
    strategy = Strategy(kind="explicit", pairs=((3, 1), (0, 12), (1, 5), (1, 2)))
    assert layer_pairs(strategy, 3, 12) == ((0, 12), (1, 2), (1, 5), (3, 1))


@pytest.mark.parametrize("pair", [(4, 1), (1, 13), (-1, 1), (1, -1)])
def test_an_explicit_pair_with_a_missing_layer_is_refused(pair: tuple[int, int]) -> None:
    with pytest.raises(InputError) as caught:
        layer_pairs(Strategy(kind="explicit", pairs=((1, 1), pair)), 3, 12)
    assert str(list(pair)) in str(caught.value)
    assert "student layers 0 to 3 and teacher layers 0 to 12" in str(caught.value)


def test_a_repeated_explicit_pair_is_refused() -> None:
    with pytest.raises(InputError, match=r"\[\[1, 4\], \[1, 4\]\] name one pair twice"):
        layer_pairs(Strategy(kind="explicit", pairs=((1, 4), (1, 4))), 3, 12)


@pytest.mark.parametrize("kind", STRATEGIES)
@pytest.mark.parametrize(("student", "teacher"), [(5, 4), (0, 4)])
def test_impossible_depths_are_refused(kind: str, student: int, teacher: int) -> None:
    parameters = {"explicit": {"pairs": ((1, 1),)}, "one_to_one": {"student_layer": 1, "teacher_layer": 1}}
    strategy = Strategy(kind=kind, **parameters.get(kind, {}))
    with pytest.raises(InputError, match=rf"a student of {student} layers cannot be matched to a teacher of {teacher}"):
        layer_pairs(strategy, student, teacher)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"kind": "forward", "teacher_layer": 3}, "teacher_layer belongs to all_to_one and one_to_one, not to fo"),
        ({"kind": "reverse", "mapping_seed": 0}, "mapping_seed belongs to random and in_order_random, not to reverse"),
        ({"kind": "last", "pairs": [[1, 1]]}, "pairs belongs to explicit, not to last"),
        ({"kind": "forward", "redraw": "epoch"}, "redraw belongs to random and in_order_random, not to forward"),
        ({"kind": "last", "student_layer": 1}, "student_layer belongs to one_to_one, not to last"),
        ({"kind": "one_to_one", "student_layer": 1}, "one_to_one needs student_layer and teacher_layer"),
        ({"kind": "random", "redraw": 0}, "greater than 0"),
        ({"kind": "explicit"}, "explicit needs pairs"),
        ({"kind": "explicit", "pairs": []}, "explicit needs pairs"),
        ({"kind": "random", "mapping_seed": -1}, "greater than or equal to 0"),
        ({"kind": "all_to_one", "teacher_layer": 0}, "all_to_one needs a teacher_layer from 1; 0 is the embedding"),
        ({"kind": "forward", "name": "a/b"}, "String should match pattern"),
        ({"kind": "forward", "layer": 3}, "Extra inputs are not permitted"),
        ("forwards", "Input should be 'none', 'forward'"),
    ],
)
def test_invalid_parameters_of_a_kind_are_refused(content: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Strategy.model_validate(content)


@pytest.mark.parametrize(
    ("content", "label"),
    [
        ("forward", "forward"),
        ({"kind": "random"}, "random"),
        ({"kind": "random", "mapping_seed": 0}, "random"),
        ({"kind": "random", "mapping_seed": 5}, "random-draw5"),
        ({"kind": "in_order_random", "mapping_seed": 2}, "in_order_random-draw2"),
        ({"kind": "random", "mapping_seed": 5, "name": "mine"}, "mine"),
        ({"kind": "random", "redraw": "epoch"}, "random-every-epoch"),
        ({"kind": "random", "mapping_seed": 5, "redraw": 100}, "random-draw5-every-100"),
    ],
)
def test_labels_name_kind_draw_and_redraw(content: object, label: str) -> None:
    assert Strategy.model_validate(content).label == label


def test_exactly_the_changing_maps_say_how_they_change() -> None:
    fixed = {kind for kind in STRATEGIES if kind not in ("explicit", "one_to_one") and not Strategy(kind=kind).change}
    assert set(STRATEGIES) - fixed == {"attention", "dynamic", "explicit", "one_to_one"}
    assert not Strategy(kind="explicit", pairs=((1, 1),)).change
    assert Strategy(kind="random", redraw="epoch").change == "drawn anew every epoch"
    assert Strategy(kind="in_order_random", redraw=3).change == "drawn anew every 3 steps"
