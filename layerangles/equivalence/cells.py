"""Cells of scores, strategies × draws × seeds, from any table of scores."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from layerangles.errors import InputError

Role = Literal["none", "matched", "control"]
_OPTIONAL = ("metric", "higher_is_better")


@dataclass(frozen=True, eq=False)
class Cell:
    """The scores of one comparison: students that differ in strategy, draw of a random map, and seed alone.

    Attributes:
        name: identifies the cell, such as by the task and the students' initialisation.
        metric: the name of the score.
        higher_is_better: whether larger scores are better.
        scores: ``[strategy, draw, seed]``, in the metric's own unit. NaN if there is no such student: only random maps
            are drawn more than once, and a student may have failed.
        roles: by strategy, ``"none"`` for prediction matching alone (at most one), ``"matched"`` for compared
            strategies, ``"control"`` for students matched to anything but the teacher's states of the same text.
        examples: ``[strategy, draw, seed, example]``, a student's score on every test example, if the metric is their
            mean.
    """

    name: str
    metric: str
    higher_is_better: bool
    scores: xr.DataArray
    roles: Mapping[str, Role]
    examples: xr.DataArray | None = None

    @property
    def matched(self) -> tuple[str, ...]:
        """The strategies that are compared."""
        return self._of_role("matched")

    @property
    def controls(self) -> tuple[str, ...]:
        """The control strategies."""
        return self._of_role("control")

    @property
    def none(self) -> str | None:
        """The strategy without matching, if there is one."""
        return next(iter(self._of_role("none")), None)

    def _of_role(self, role: Role) -> tuple[str, ...]:
        return tuple(str(s) for s in self.scores["strategy"].values if self.roles[str(s)] == role)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds at which all compared strategies, and none, have a student: only these are paired."""
        complete = self._by_seed(self._compared).notnull().all("strategy")
        return tuple(int(seed) for seed in self.scores["seed"].values[complete.values])

    @property
    def incomplete_seeds(self) -> tuple[int, ...]:
        """The seeds left out for want of a student."""
        return tuple(int(seed) for seed in self.scores["seed"].values if int(seed) not in self.seeds)

    @property
    def _compared(self) -> tuple[str, ...]:
        return self.matched + ((self.none,) if self.none is not None else ())

    def _by_seed(self, strategies: Sequence[str]) -> xr.DataArray:
        return self.scores.sel(strategy=list(strategies)).mean("draw")

    def by_seed(self, strategies: Sequence[str]) -> Float[np.ndarray, "seed strategy"]:
        """Scores at the paired seeds, averaged over draws. NaN if a control has no student at a seed."""
        chosen = self._by_seed(strategies).sel(seed=list(self.seeds))
        return np.asarray(chosen.transpose("seed", "strategy").values, dtype=float)

    def draws(self, strategy: str) -> tuple[int, ...]:
        """The draws of a strategy that have students; ``(0,)`` for one that is not random."""
        present = self.scores.sel(strategy=strategy).notnull().any("seed")
        return tuple(int(draw) for draw in self.scores["draw"].values[present.values])


def cells_from_frame(frame: pd.DataFrame, *, source: str = "the table", default_metric: str = "score") -> list[Cell]:
    """The cells of a table with one row per student.

    Args:
        frame: the columns ``cell``, ``strategy``, ``seed`` and ``score``; optionally ``role`` (by default ``none`` for
            the strategy of that name, else ``matched``), ``draw`` (0), ``metric`` and ``higher_is_better`` (true).
        source: the table's name in messages.
        default_metric: the metric's name if there is no such column.

    Raises:
        InputError: a column is missing, a value is not allowed, or a student occurs twice.
    """
    missing = [column for column in ("cell", "strategy", "seed", "score") if column not in frame]
    if missing:
        raise InputError(
            f"{source} has no column {missing[0]}; its columns are {', '.join(map(str, frame.columns))}. "
            f"Required are cell, strategy, seed and score; {', '.join(('role', 'draw', *_OPTIONAL))} are optional."
        )
    if not len(frame):
        raise InputError(f"{source} has no row. Give one row per student.")
    whole = frame.copy()
    for column, default in (("draw", 0), ("metric", default_metric), ("higher_is_better", True)):
        if column not in whole:
            whole[column] = default
    if "role" not in whole:
        without = whole["strategy"].astype(str).str.strip().str.lower() == "none"
        whole["role"] = np.where(without, "none", "matched")
    _check_names(whole, source)
    _check_numbers(whole, source)
    return [_cell(str(name), rows, source) for name, rows in whole.groupby("cell", sort=False)]


def read_scores(path: str | os.PathLike[str]) -> list[Cell]:
    """The cells of a CSV file of scores; see :func:`cells_from_frame`. Lines that begin with ``#`` are comments.

    Raises:
        InputError: no such file, not CSV, or not a table of scores.
    """
    return cells_from_frame(read_table(path), source=str(path))


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """The rows of a CSV file of scores, unchecked.

    Raises:
        InputError: no such file, or not CSV.
    """
    if not Path(path).is_file():
        raise InputError(f"{path} does not exist. Give a study's directory, or a CSV file with one row per student.")
    try:
        # A # elsewhere is part of a name; so are "None" and "NA", which pandas would read as missing values.
        lines = [line for line in Path(path).read_text("utf-8-sig").splitlines() if not line.startswith("#")]
        return pd.read_csv(StringIO("\n".join(lines)), skipinitialspace=True, keep_default_na=False)
    except ValueError as error:  # parser errors of pandas, and text that is not UTF-8
        raise InputError(f"{path} is not a CSV file ({error}).") from error


def _check_names(frame: pd.DataFrame, source: str) -> None:
    """Refuse empty names and unknown directions, so that no row is dropped or reversed silently."""
    for column in ("cell", "strategy", "role", "metric"):
        missing = frame[column].isna() | (frame[column].astype(str).str.strip() == "")
        if missing.any():
            raise InputError(f"{source}, row {int(np.argmax(missing)) + 1}: {column} is empty. Give every student one.")
        frame[column] = frame[column].astype(str).str.strip()
    better = frame["higher_is_better"].astype(str).str.strip().str.lower()
    known = better.isin(["true", "false"])
    if not known.all():
        row = int(np.argmin(known)) + 1
        raise InputError(
            f"{source}, row {row}: higher_is_better is {_shown(frame['higher_is_better'], row)}; allowed are true and "
            "false."
        )
    frame["higher_is_better"] = better == "true"


def _shown(column: "pd.Series[Any]", row: int) -> str:
    """A value as the user wrote it, without numpy's type name."""
    return repr(column.tolist()[row - 1])


def _check_numbers(frame: pd.DataFrame, source: str) -> None:
    for column in ("seed", "draw"):
        numbers = pd.to_numeric(frame[column], errors="coerce").astype(float)
        whole = np.isfinite(numbers) & (numbers >= 0) & (numbers == np.floor(numbers))
        if not whole.all():
            row = int(np.argmin(whole)) + 1
            raise InputError(
                f"{source}, row {row}: {column} is {_shown(frame[column], row)}; allowed are whole numbers from 0."
            )
        frame[column] = numbers.astype(int)
    scores = pd.to_numeric(frame["score"], errors="coerce")
    if not np.isfinite(scores).all():
        row = int(np.argmin(np.isfinite(scores).to_numpy())) + 1
        raise InputError(
            f"{source}, row {row}: the score is {_shown(frame['score'], row)}; allowed are finite numbers. Leave out "
            "the rows of students that have none."
        )
    frame["score"] = scores.astype(float)
    unknown = sorted(set(frame["role"]) - set(get_args(Role)))
    if unknown:
        raise InputError(f"{source} has the role {unknown[0]!r}; allowed are {', '.join(get_args(Role))}.")
    twice = frame.duplicated(["cell", "strategy", "draw", "seed"])
    if twice.any():
        student = frame[twice].iloc[0]
        raise InputError(
            f"{source} has two scores of the strategy {student['strategy']}, draw {student['draw']}, seed "
            f"{student['seed']} in the cell {student['cell']}. Leave one of them out, or give them cells of their own."
        )


def _cell(name: str, rows: pd.DataFrame, source: str) -> Cell:
    for column in ("metric", "higher_is_better"):
        if rows[column].nunique() > 1:
            raise InputError(
                f"{source}: the cell {name} mixes {column} {' and '.join(map(str, rows[column].unique()))}. "
                "Make a cell of each."
            )
    roles = rows.groupby("strategy", sort=False)["role"].unique()
    for strategy, of_one in roles.items():
        if len(of_one) > 1:
            raise InputError(f"{source}: in the cell {name}, {strategy} has the roles {' and '.join(of_one)}.")
    without = [str(strategy) for strategy, of_one in roles.items() if of_one[0] == "none"]
    if len(without) > 1:
        raise InputError(f"{source}: in the cell {name}, {' and '.join(without)} both have the role none. Keep one.")
    wide = rows.set_index(["strategy", "draw", "seed"])["score"].to_xarray()
    # Strategies in the order of the table, not of the alphabet.
    return Cell(
        name=name,
        metric=str(rows["metric"].iloc[0]),
        higher_is_better=bool(rows["higher_is_better"].iloc[0]),
        scores=wide.sel(strategy=list(dict.fromkeys(rows["strategy"]))).astype(float),
        roles={str(strategy): of_one[0] for strategy, of_one in roles.items()},
    )
