"""Tables of scores become cells, or are refused with the row at fault."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from layerangles.equivalence.cells import Cell, cells_from_frame, read_scores
from layerangles.errors import InputError

TABLE = """\
# A comment, with a comma
cell,strategy,role,draw,seed,score,metric,higher_is_better
small,reverse,matched,0,1,0.71,accuracy,true
small,reverse,matched,0,0,0.70,accuracy,true
small,none,none,0,0,0.50,accuracy,true
small,none,none,0,1,0.52,accuracy,true
small,random,matched,2,0,0.60,accuracy,true
small,random,matched,0,0,0.62,accuracy,true
small,random,matched,2,1,0.64,accuracy,true
# Another
small,forward,matched,0,0,0.73,accuracy,true
small,forward,matched,0,1,0.75,accuracy,true
small,forward,matched,0,7,0.99,accuracy,true
small,shuffled,control,0,1,0.40,accuracy,true
large,a,matched,0,3,12.5,perplexity,False
large,b,matched,0,3,13.5,perplexity,False
"""


def _written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def cells(tmp_path: Path) -> list[Cell]:
    return read_scores(_written(tmp_path / "scores.csv", TABLE))


def _frame(**columns: object) -> pd.DataFrame:
    return pd.DataFrame({"cell": "c", "strategy": ["a", "b"], "seed": 0, "score": [0.5, 0.25]} | columns)


# --- what comes of a table ------------------------------------------------------------------------------------


def test_cells_in_the_order_of_the_table(cells: list[Cell]) -> None:
    small, large = cells
    assert (small.name, small.metric, small.higher_is_better) == ("small", "accuracy", True)
    assert (large.name, large.metric, large.higher_is_better) == ("large", "perplexity", False)
    assert small.examples is None
    assert small.scores.dims == ("strategy", "draw", "seed")
    assert small.scores["strategy"].values.tolist() == ["reverse", "none", "random", "forward", "shuffled"]
    assert small.scores.sel(strategy="random", draw=2, seed=1) == 0.64
    assert np.isnan(small.scores.sel(strategy="random", draw=0, seed=1))
    assert large.scores.values.ravel().tolist() == [12.5, 13.5]


def test_roles_keep_the_order_too(cells: list[Cell]) -> None:
    small, large = cells
    assert small.matched == ("reverse", "random", "forward")
    assert small.controls == ("shuffled",)
    assert small.none == "none"
    assert large.matched == ("a", "b")
    assert large.controls == ()
    assert large.none is None


def test_only_seeds_with_every_student_are_paired(cells: list[Cell]) -> None:
    small = cells[0]
    assert small.seeds == (0, 1)  # a control may be missing
    assert small.incomplete_seeds == (7,)
    assert cells[1].seeds == (3,)
    assert cells[1].incomplete_seeds == ()


def test_a_missing_none_leaves_a_seed_out() -> None:
    frame = pd.concat([_frame(), _frame(seed=1), _frame(strategy=["none", "c"]).iloc[:1]])
    cell = cells_from_frame(frame)[0]
    assert cell.none == "none"
    assert cell.seeds == (0,)
    assert cell.incomplete_seeds == (1,)


def test_scores_by_seed_are_averaged_over_draws(cells: list[Cell]) -> None:
    small = cells[0]
    found = small.by_seed(["random", "none"])
    assert found == pytest.approx(np.array([[0.61, 0.50], [0.64, 0.52]]))
    control = small.by_seed(["shuffled"])[:, 0]
    assert math.isnan(control[0])
    assert control[1] == 0.40


def test_draws_are_those_with_students(cells: list[Cell]) -> None:
    small = cells[0]
    assert small.draws("random") == (0, 2)
    assert small.draws("reverse") == (0,)


def test_optional_columns_have_defaults() -> None:
    cell = cells_from_frame(_frame(strategy=["none", "b"]), default_metric="f1")[0]
    assert cell.roles == {"none": "none", "b": "matched"}
    assert (cell.metric, cell.higher_is_better) == ("f1", True)
    assert cell.scores["draw"].values.tolist() == [0]
    assert cells_from_frame(_frame())[0].metric == "score"


def test_the_users_table_is_left_alone() -> None:
    frame = _frame(seed=["0", "0"], draw="0", index=[5, 9]).set_index("index")
    before = frame.copy()
    assert cells_from_frame(frame)[0].seeds == (0,)
    pd.testing.assert_frame_equal(frame, before)


def test_names_that_look_like_numbers_or_like_nothing_are_names(tmp_path: Path) -> None:
    text = "cell,strategy,seed,score\n1,1,0,0.5\n1,NA,0,0.6\n1,b#2,0,0.7\n1, None ,0,0.1\n"
    cell = read_scores(_written(tmp_path / "s.csv", text))[0]
    assert cell.name == "1"
    assert cell.matched == ("1", "NA", "b#2")
    assert cell.none == "None"
    assert cell.by_seed(cell.matched).tolist() == [[0.5, 0.6, 0.7]]


@pytest.mark.parametrize(("written", "meant"), [("TRUE", True), ("false", False), (" False ", False)])
def test_directions_are_read_in_any_case(tmp_path: Path, written: str, meant: bool) -> None:
    text = f"cell,strategy,seed,score,higher_is_better\nc,a,0,1,{written}\nc,b,0,2,{written}\n"
    assert read_scores(_written(tmp_path / "s.csv", text))[0].higher_is_better is meant
    assert cells_from_frame(_frame(higher_is_better=meant))[0].higher_is_better is meant


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    path = _written(tmp_path / "s.csv", "\ufeffcell,strategy,seed,score\nc,a,0,1\n")
    assert read_scores(path)[0].matched == ("a",)


# --- what is wrong with one -----------------------------------------------------------------------------------


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.csv does not exist\. Give a study's directory, or a CSV file"):
        read_scores(tmp_path / "nothing.csv")


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2,3\n1\n4,5,6,7,8\n", b"\xff\xfe\x00\x80"])
def test_a_file_that_is_not_csv_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"s\.csv is not a CSV file \("):
        read_scores(tmp_path / "s.csv")


def test_messages_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"s\.csv has no row"):
        read_scores(_written(tmp_path / "s.csv", "cell,strategy,seed,score\n"))


@pytest.mark.parametrize("column", ["cell", "strategy", "seed", "score"])
def test_a_missing_column_is_named(column: str) -> None:
    left = [name for name in ("cell", "strategy", "seed", "score") if name != column]
    message = (
        f"the table has no column {column}; its columns are {', '.join(left)}. Required are cell, strategy, seed and "
        "score; role, draw, metric, higher_is_better are optional."
    )
    with pytest.raises(InputError, match=message):
        cells_from_frame(_frame().drop(columns=column))


def test_a_table_without_rows_is_refused() -> None:
    with pytest.raises(InputError, match=r"the table has no row\. Give one row per student\."):
        cells_from_frame(_frame().iloc[:0])


@pytest.mark.parametrize("column", ["seed", "draw"])
@pytest.mark.parametrize("value", [-1, 0.5, "x", math.nan, math.inf])
def test_seeds_and_draws_that_are_not_whole_numbers_are_refused(column: str, value: object) -> None:
    message = rf"the table, row 2: {column} is {value!r}; allowed are whole numbers from 0\."
    with pytest.raises(InputError, match=message):
        cells_from_frame(_frame(**{column: [0, value]}))


@pytest.mark.parametrize("value", ["", "good", math.nan, math.inf, None])
def test_scores_that_are_not_finite_are_refused(value: object) -> None:
    message = (
        rf"the table, row 1: the score is {value!r}; allowed are finite numbers\. Leave out the rows of students that "
        r"have none\."
    )
    with pytest.raises(InputError, match=message):
        cells_from_frame(_frame(score=pd.Series([value, 0.5], dtype=object)))


@pytest.mark.parametrize("column", ["cell", "strategy", "role", "metric"])
@pytest.mark.parametrize("value", ["", " ", None, math.nan])
def test_empty_names_are_refused(column: str, value: object) -> None:
    message = rf"the table, row 2: {column} is empty\. Give every student one\."
    with pytest.raises(InputError, match=message):
        cells_from_frame(_frame(**{column: pd.Series(["matched", value], dtype=object)}))


def test_unknown_directions_are_refused() -> None:
    message = r"the table, row 2: higher_is_better is 'no'; allowed are true and false\."
    with pytest.raises(InputError, match=message):
        cells_from_frame(_frame(higher_is_better=["true", "no"]))


def test_unknown_roles_are_refused() -> None:
    with pytest.raises(InputError, match=r"has the role 'teacher'; allowed are none, matched, control\."):
        cells_from_frame(_frame(role=["matched", "teacher"]))


def test_two_scores_of_one_student_are_refused() -> None:
    message = (
        r"the table has two scores of the strategy a, draw 2, seed 3 in the cell c\. Leave one of them out, or give "
        r"them cells of their own\."
    )
    with pytest.raises(InputError, match=message):
        cells_from_frame(_frame(strategy="a", draw=2, seed=["3", 3]))


@pytest.mark.parametrize(
    ("column", "values", "shown"),
    [("metric", ["f1", "accuracy"], "f1 and accuracy"), ("higher_is_better", [True, False], "True and False")],
)
def test_a_cell_has_one_metric(column: str, values: list[object], shown: str) -> None:
    with pytest.raises(InputError, match=f"the table: the cell c mixes {column} {shown}. Make a cell of each."):
        cells_from_frame(_frame(**{column: values}))
    assert len(cells_from_frame(_frame(**{column: values}, cell=["c", "d"]))) == 2


def test_a_strategy_has_one_role() -> None:
    with pytest.raises(InputError, match="in the cell c, a has the roles matched and control"):
        cells_from_frame(_frame(strategy="a", seed=[0, 1], role=["matched", "control"]))


def test_a_cell_has_one_strategy_without_matching() -> None:
    with pytest.raises(InputError, match=r"in the cell c, a and b both have the role none\. Keep one\."):
        cells_from_frame(_frame(role="none"))
