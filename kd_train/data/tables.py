"""Tables of texts, labels and numbers, read from files, the hub, and packages."""

import json
import math
import string
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kd_train.data import embedded
from layerangles.errors import InputError

Text = str | tuple[str, str]
"""A text, or a pair of texts, as :func:`layerangles.measure_angles` takes them."""


class Table:
    """Columns of one split, from any source.

    Attributes:
        source: where the rows come from, for errors.
        columns: the values by column.
    """

    def __init__(
        self, source: str, columns: Mapping[str, Sequence[Any]], label_names: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self.source, self.columns, self._label_names = source, columns, label_names or {}

    def __len__(self) -> int:
        return min((len(values) for values in self.columns.values()), default=0)

    def head(self, n: int | None) -> "Table":
        """The first ``n`` rows; all rows for None."""
        return Table(self.source, {name: values[:n] for name, values in self.columns.items()}, self._label_names)

    def rows(self, numbers: Sequence[int]) -> "Table":
        """The rows with these numbers."""
        return Table(
            self.source,
            {name: [values[i] for i in numbers] for name, values in self.columns.items()},
            self._label_names,
        )

    def followed_by(self, other: "Table") -> "Table":
        """These rows followed by another table's, in the columns that both have."""
        columns = {n: [*values, *other.columns[n]] for n, values in self.columns.items() if n in other.columns}
        return Table(self.source, columns, self._label_names)

    def label_names(self, column: str) -> tuple[str, ...] | None:
        """The data set's own names for the numbers of a column; None if it has none."""
        return tuple(self._label_names.get(column, ())) or None

    def column(self, name: str) -> Sequence[Any]:
        """The values of a column; ``translation.en`` is the value of the key ``en`` in the column ``translation``.

        Raises:
            InputError: no such column, or no such key in one of its values.
        """
        if name in self.columns:
            return self.columns[name]
        outer, dot, key = name.partition(".")
        if not dot or outer not in self.columns:
            raise InputError(
                f'{self.source} has no column "{name}"; its columns are {", ".join(map(str, self.columns))}. '
                "Name the right ones in the study's task."
            )
        return [self._within(value, key.split("."), row, name) for row, value in enumerate(self.columns[outer], 1)]

    def _within(self, value: Any, keys: Sequence[str], row: int, name: str) -> Any:
        """The value at a path of keys; for a list, the values at this path in each of its items."""
        if not keys:
            return value
        if isinstance(value, list):
            return [self._within(item, keys, row, name) for item in value]
        if not isinstance(value, Mapping) or keys[0] not in value:
            held = f"the keys {', '.join(map(str, value))}" if isinstance(value, Mapping) else repr(value)
            raise InputError(
                f'{self.source}, example {row}: there is no "{name}"; where "{keys[0]}" should be, there is {held}. '
                "Name the right column in the study's task, or repair this example."
            )
        return self._within(value[keys[0]], keys[1:], row, name)

    def with_columns(self, columns: Mapping[str, Sequence[Any]]) -> "Table":
        """The same rows with columns added or replaced."""
        return Table(self.source, {**self.columns, **columns}, self._label_names)

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
            if value is None or _is_nan(value) or not str(value).strip():
                raise InputError(
                    f"{self.source}, example {row}: the label is {value!r}. Every example needs a label; repair or "
                    "remove this example."
                )
        return labels

    def numbers(self, name: str) -> list[float]:
        """The values of a column of numbers, which may be written as text.

        Raises:
            InputError: no such column, or a value that is not a finite number.
        """
        numbers = []
        for row, value in enumerate(self.column(name), start=1):
            try:
                number = math.nan if isinstance(value, bool) else float(value)
            except (TypeError, ValueError):
                number = math.nan
            if not math.isfinite(number):
                raise InputError(
                    f"{self.source}, example {row}: the number is {value!r}. Every example needs a finite number; "
                    "repair or remove this example."
                )
            numbers.append(number)
        return numbers

    def several_texts(self, name: str, *, least: int = 1) -> list[tuple[str, ...]]:
        """The lists of texts of a column; a single text counts as a list of one.

        Raises:
            InputError: no such column, fewer than ``least`` texts, or one that is missing or blank.
        """
        several = []
        for row, value in enumerate(self.column(name), start=1):
            texts = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else ()
            if len(texts) < least or not all(isinstance(text, str) and text.strip() for text in texts):
                wanted = "a string with content, or a list of such strings" if least == 1 else f"{least} or more texts"
                raise InputError(
                    f'{self.source}, example {row}: "{name}" is {value!r}. Allowed is {wanted}; repair or remove this '
                    "example."
                )
            several.append(texts)
        return several

    def filled(self, template: str) -> list[str]:
        """The texts of a column, or of a template such as ``"Review: {text}"`` filled with the columns of each row.

        Where the data set has names for the numbers of a column, the template gets the names.

        Raises:
            InputError: no such column, or an example without a text or without a value for the template.
        """
        if not is_template(template):
            return [str(text) for text in self.with_columns({template: self._named(template)}).texts(template)]
        columns = {name: self._named(name) for name in template_columns(template)}
        filled = []
        for row in range(len(self)):
            values = {name: values[row] for name, values in columns.items()}
            for name, value in values.items():
                if not isinstance(value, str | int | float) or _is_nan(value):
                    raise InputError(
                        f"{self.source}, example {row + 1}: {{{name}}} is {value!r}. A template takes texts and "
                        "numbers; repair or remove this example."
                    )
            filled.append(_Columns().vformat(template, (), values))
        return filled

    def _named(self, column: str) -> Sequence[Any]:
        values, names = self.column(column), self.label_names(column)
        if names is None:
            return values
        return [names[v] if isinstance(v, int) and 0 <= v < len(names) else v for v in values]


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


class _Columns(string.Formatter):
    """Fills a template with columns, whose names may contain dots."""

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> tuple[Any, str]:  # noqa: ARG002 (not ours)
        return kwargs[field_name], field_name


def is_template(text: str) -> bool:
    """Whether the text is a template with ``{column}`` in it, and not the name of a column."""
    return "{" in text


def template_columns(template: str) -> tuple[str, ...]:
    """The columns named by a template.

    Raises:
        ValueError: the template is not well formed, or names no columns.
    """
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise ValueError(f"the template {template!r} is not well formed: {error}. A brace itself is {{{{") from error
    if not fields or not all(fields):
        raise ValueError(f"the template {template!r} must name columns, such as {{text}}")
    return tuple(fields)


def read_file(path: Path) -> Table:
    """The table in a JSONL, CSV, TSV or Parquet file; the lines of a text file become the column ``text``.

    Raises:
        InputError: no such file, an empty or damaged file, or another suffix.
    """
    import pandas as pd

    def separated(**options: Any) -> pd.DataFrame:
        # By default, pandas turns the first fields of lines with more fields than the header into an index.
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
    # Converted to lists, so that numbers become Python's own and missing values become visible.
    return Table(str(path), {str(name): _plain(frame[name].tolist()) for name in frame.columns})


def _plain(value: Any) -> Any:
    """The value with lists in place of the arrays that pandas makes of nested columns."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, dict) else value


def _json_lines(path: Path) -> list[Any]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def read_embedded(dataset: str) -> dict[str, Table]:
    """The splits of a packaged data set: columns ``text`` and ``label``, or ``source`` and ``target``."""
    data = embedded.load_dataset(dataset)
    if isinstance(data, embedded.PairedData):
        return {
            split: Table(f"{dataset} ({split})", {"source": part.sources, "target": part.targets})
            for split, part in data.splits.items()
        }
    names = {"label": data.label_names}
    return {
        split: Table(f"{dataset} ({split})", {"text": part.texts, "label": part.labels}, names)
        for split, part in data.splits.items()
    }


def read_hub(name: str, subset: str | None = None, *, revision: str | None = None) -> dict[str, Table]:
    """The splits of a data set of the hub, under their own names; ``revision`` is a branch, tag or commit.

    Raises:
        InputError: the data set cannot be loaded.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        loaded = load_dataset(name, subset, revision=revision)
    except (DatasetsError, ConnectionError, OSError, ValueError, RuntimeError) as error:  # the last: it is a script
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
