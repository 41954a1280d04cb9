"""What a study compares: its cells, the strategies and draws in them, and the margin that it states."""

from pathlib import Path
from typing import Any

import pytest
from toys.training import toy_study

from kd_train.study.comparisons import arms_of, comparisons, margin_of
from kd_train.study.study_file import Study
from layerangles.equivalence import Margin
from layerangles.errors import InputError

FILES = {"train": "train.jsonl", "dev": "dev.jsonl"}


def _study(*strategies: Any, **changes: Any) -> Study:
    return toy_study(Path("run"), FILES, Path("base"), strategies=list(strategies), **changes)


def test_one_cell_bears_the_name_of_the_study() -> None:
    arms = arms_of(_study("none", "forward", {"kind": "random", "mapping_seed": 5}))
    assert [tuple(arm) for arm in arms] == [
        ("none", "toy", "none", 0, "none"),
        ("forward", "toy", "forward", 0, "matched"),
        ("random-draw5", "toy", "random", 5, "matched"),
    ]


def test_draws_of_a_random_map_are_one_strategy() -> None:
    arms = arms_of(
        _study("random", {"kind": "random", "mapping_seed": 3}, {"kind": "in_order_random", "mapping_seed": 3})
    )
    assert [(arm.strategy, arm.draw) for arm in arms] == [("random", 0), ("random", 3), ("in_order_random", 3)]
    (cell,) = comparisons(_study("random", {"kind": "random", "mapping_seed": 3}, "forward"))
    assert cell.strategies == {"random": 2, "forward": 1}


def test_controls_are_no_strategies() -> None:
    arms = arms_of(_study("forward", {"kind": "forward", "targets": "other_text"}))
    assert [(arm.strategy, arm.role) for arm in arms] == [("forward", "matched"), ("forward-other_text", "control")]
    (cell,) = comparisons(_study("forward", {"kind": "forward", "targets": "other_text"}))
    assert (cell.strategies, cell.controls, cell.none) == ({"forward": 1}, ("forward-other_text",), False)


def test_students_that_begin_otherwise_are_a_cell_of_their_own() -> None:
    scratch = {"student": {"init": "random"}}
    arms = arms_of(
        _study(
            "none",
            "forward",
            {"kind": "none", "name": "none-scratch", **scratch},
            {"kind": "forward", "name": "forward-scratch", "learning_rate": 0.01, **scratch},
        )
    )
    assert [(arm.label, arm.cell, arm.strategy) for arm in arms] == [
        ("none", "toy (init copied)", "none"),
        ("forward", "toy (init copied)", "forward"),
        ("none-scratch", "toy (init random)", "none"),
        ("forward-scratch", "toy (init random)", "forward"),
    ]


def test_none_belongs_to_every_weight_of_the_hidden_loss() -> None:
    strong = {"kind": "forward", "name": "strong", "loss": {"hidden_weight": 30}}
    arms = arms_of(_study("none", "forward", strong, loss={"hidden_weight": 3}))
    assert [(arm.label, arm.cell) for arm in arms] == [
        ("none", "toy (hidden weight 3.0)"),
        ("forward", "toy (hidden weight 3.0)"),
        ("none", "toy (hidden weight 30.0)"),
        ("strong", "toy (hidden weight 30.0)"),
    ]
    other_kl = {"kind": "forward", "name": "no-kl", "loss": {"kl_weight": 0}}
    cells = [(arm.label, arm.cell) for arm in arms_of(_study("none", "forward", other_kl))]
    assert ("none", "toy (kl weight 0.0)") not in cells


def test_a_study_may_say_itself_what_is_compared() -> None:
    deeper = {"kind": "forward", "name": "deeper", "student": {"layers": 3}, "cell": "all depths"}
    arms = arms_of(_study({"kind": "forward", "cell": "all depths"}, deeper, "reverse"))
    assert {arm.label: arm.cell for arm in arms} == {
        "forward": "all depths",
        "deeper": "all depths",
        "reverse": next(arm.cell for arm in arms if arm.label == "reverse"),
    }
    assert len({arm.cell for arm in arms}) == 2
    assert [arm.strategy for arm in arms[:2]] == ["forward", "deeper"]  # two forwards in one cell keep their names


def test_names_are_kept_where_one_cell_holds_all() -> None:
    arms = arms_of(_study("forward", {"kind": "forward", "name": "tinybert", "student": {"map": "learned"}}))
    assert [(arm.cell, arm.strategy) for arm in arms] == [("toy", "forward"), ("toy", "tinybert")]
    alone = arms_of(_study("forward", {"kind": "reverse", "name": "mine"}))
    assert [arm.strategy for arm in alone] == ["forward", "mine"]


@pytest.mark.parametrize(
    ("said", "margin"),
    [({}, None), ({"margin": 0.02}, Margin(0.02)), ({"margin_of_gain": 0.25}, Margin(0.25, of_gain=True))],
)
def test_the_margin_is_what_the_study_says(said: dict[str, float], margin: Margin | None) -> None:
    assert margin_of(_study("none", verdict=said)) == margin


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            {"margin": 0.01, "margin_of_gain": 0.2},
            "verdict: give either margin or margin_of_gain, not both: 0.01 and 0.2",
        ),
        ({"margin": 0}, "verdict.margin"),
        ({"metric": "bleu"}, "verdict.metric: bleu is not scored; scored are accuracy"),
    ],
)
def test_a_verdict_that_cannot_be(said: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        _study("none", verdict=said)
