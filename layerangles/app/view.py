"""What is being looked at: two checkpoints and how they are shown; as a link's query, and back."""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any
from urllib.parse import parse_qs, urlencode

Pair = tuple[int, int]

_LARGEST = 999_999_999
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class View:
    """One state of the page. Whatever is None is for the page to choose.

    Attributes:
        first, second: the students' keys in the catalogue.
        step: of the slider; both checkpoints follow it, unless they are fixed to a step of their own.
        first_step, second_step: those.
        layer: of the students; 0 is the embedding output.
        tower: encoder or decoder.
        way: the space, and what else is not as usual.
        null: over which the excess is shown; None for the angle itself.
        aggregation: over tokens.
        low, high: the pair of teacher layers whose tokens are shown.
    """

    first: str | None = None
    second: str | None = None
    step: int | None = None
    first_step: int | None = None
    second_step: int | None = None
    layer: int | None = None
    tower: str | None = None
    way: str | None = None
    null: str | None = None
    aggregation: str | None = None
    low: int | None = None
    high: int | None = None

    def query(self) -> str:
        """As the query of a link, beginning with a question mark."""
        return "?" + urlencode({key: value for key, value in asdict(self).items() if value is not None})

    @classmethod
    def from_query(cls, query: str) -> "View":
        """From a link's query; what is not understood is left out, and for the page to choose."""
        given = {key: values[-1] for key, values in parse_qs(query.removeprefix("?")).items()}
        return cls.from_mapping(given)

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> "View":
        """From values as a browser sends them."""
        kinds: dict[str, Callable[[Any], Any]] = {
            field.name: _whole if "int" in str(field.type) else _text for field in fields(cls)
        }
        return cls(**{name: kind(given.get(name)) for name, kind in kinds.items()})


def _whole(value: Any) -> int | None:
    """A whole number from 0 on, or None.

    >>> _whole("12"), _whole(3), _whole("-1"), _whole("x"), _whole(True), _whole("²")
    (12, 3, None, None, None, None)
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value if 0 <= value <= _LARGEST else None
    is_whole = isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10
    return int(value) if is_whole else None


def _text(value: Any) -> str | None:
    """A text that can stand in a link, or None: half a surrogate pair, which JSON may hold, cannot."""
    is_text = isinstance(value, str) and value and not _SURROGATE.search(value)
    return value if is_text else None
