"""Columns of texts and labels: from files, from the hub, from the embedded packages."""

import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kd_train import embedded
from layerangles.errors import InputError
from layerangles.texts import Text


class Table:
    """Columns of one split, wherever they come from."""

    def __init__(
        self, source: str, columns: Mapping[str, Sequence[Any]], label_names: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self.source, self.columns, self._label_names = source, columns, label_names or {}

    def label_names(self, column: str) -> tuple[str, ...] | None:
        """The names that the data set itself gives to the numbers of a column."""
        return tuple(self._label_names.get(column, ())) or None

    def column(self, name: str) -> Sequence[Any]:
        """The values of a column.

        Raises:
            InputError: there is no such column.
        """
        if name not in self.columns:
            raise InputError(
                f'{self.source} has no column "{name}"; its columns are {", ".join(map(str, self.columns))}. '
                "Name the right ones with task.text and task.label."
            )
        return self.columns[name]

    def texts(self, columns: str | tuple[str, str]) -> list[Text]:
        """The texts of a column, or the pairs of texts of two.

        Raises:
            InputError: no such column, or a text that is missing or blank.
        """
        parts = [list(self.column(name)) for name in ((columns,) if isinstance(columns, str) else columns)]
        for part in parts:
            for row, value in enumerate(part, start=1):
                if not isinstance(value, str) or not value.strip():
                    raise InputError(
                        f"{self.source}, example {row}: the text is {value!r}. Every text must be a string with "
                        "content; repair or remove this example."
                    )
        return parts[0] if len(parts) == 1 else list(zip(*parts, strict=True))

    def labels(self, name: str) -> list[Any]:
        """The values of a column of labels.

        Raises:
            InputError: no such column, or a label that is missing or blank.
        """
        labels = list(self.column(name))
        for row, value in enumerate(labels, start=1):
            is_nan = isinstance(value, float) and math.isnan(value)
            if value is None or is_nan or not str(value).strip():
                raise InputError(
                    f"{self.source}, example {row}: the label is {value!r}. Every example needs a label; repair or "
                    "remove this example."
                )
        return labels


def read_file(path: Path) -> Table:
    """The columns of a JSONL, CSV, TSV or Parquet file; of a text file, its lines as the column ``text``.

    Raises:
        InputError: no such file, an empty or a damaged one, or another ending.
    """
    import pandas as pd

    def separated(**options: Any) -> pd.DataFrame:
        # Left to itself, pandas takes the first fields of lines with more fields than the header for an index.
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame: pd.DataFrame = pd.read_csv(path, keep_default_na=False, index_col=False, low_memory=False, **options)
            return frame

    readers: dict[str, Callable[[], pd.DataFrame]] = {
        ".jsonl": lambda: pd.DataFrame(_json_lines(path), dtype=object),
        ".csv": separated,
        ".tsv": lambda: separated(sep="\t", quoting=3),
        ".parquet": lambda: pd.read_parquet(path),
        ".txt": lambda: pd.DataFrame({"text": path.read_text(encoding="utf-8").splitlines()}),
    }
    if path.suffix not in readers:
        raise InputError(f"{path} has the ending {path.suffix!r}; allowed are {', '.join(readers)}.")
    if not path.is_file():
        raise InputError(f"{path} does not exist. Relative paths in a study file start at its folder.")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty. Give a file with at least one example.")
    try:
        frame = readers[path.suffix]()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not in UTF-8 (byte {error.start}). Convert it, for example with iconv.") from error
    except (ValueError, OSError, pd.errors.ParserWarning) as error:  # pandas' and pyarrow's errors are ValueErrors
        raise InputError(
            f"{path} cannot be read as {path.suffix[1:]}: {str(error).strip()}. Repair or convert it."
        ) from error
    # Through lists, so that numbers become Python's own and missing values become visible.
    return Table(str(path), {str(name): frame[name].tolist() for name in frame.columns})


def _json_lines(path: Path) -> list[Any]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def read_embedded(dataset: str) -> dict[str, Table]:
    """The splits of a data set that a Python package ships, with the columns ``text`` and ``label``."""
    data = embedded.load_dataset(dataset)
    names = {"label": data.label_names}
    return {
        split: Table(f"{dataset} ({split})", {"text": part.texts, "label": part.labels}, names)
        for split, part in data.splits.items()
    }


def read_hub(name: str, subset: str | None = None) -> dict[str, Table]:
    """The splits of a data set of the hub, by its own names.

    Raises:
        InputError: it cannot be had.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        loaded = load_dataset(name, subset)
    except (DatasetsError, ConnectionError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f'the data set "{name}"{f" ({subset})" if subset else ""} cannot be had from the hub: {reason}. '
            "Check name and subset, go online, or give local files with task.files."
        ) from error
    return {
        split: Table(
            f"{name} ({split})",
            {column: part[column][:] for column in part.column_names},
            {column: feature.names for column, feature in part.features.items() if hasattr(feature, "names")},
        )
        for split, part in loaded.items()
    }
