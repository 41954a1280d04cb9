"""Validation errors of a study in the terms of its file: place, value received, values allowed."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from pydantic import AliasChoices, BaseModel, ValidationError
from pydantic.fields import FieldInfo

_Location = Sequence[int | str]

# pydantic names Python's types; a file has texts, numbers, lists and mappings.
_WORDS = {
    "tuple_type": "wanted a list, such as [a, b]",
    "list_type": "wanted a list, such as [a, b]",
    "dict_type": "wanted a mapping of keys to values",
    "model_type": "wanted a mapping of keys to values",
    "model_attributes_type": "wanted a mapping of keys to values",
    "string_type": "wanted a text",
    "bool_type": "wanted true or false",
    "bool_parsing": "wanted true or false",
    "int_type": "wanted a whole number",
    "int_parsing": "wanted a whole number",
    "int_parsing_size": "wanted a whole number of usual size",
    "int_from_float": "wanted a whole number",
    "float_type": "wanted a number",
    "float_parsing": "wanted a number",
    "finite_number": "wanted a finite number",
    "string_pattern_mismatch": "wanted letters, digits, '_', '.' and '-', a letter or digit first",
    "string_too_short": "wanted a text that is not empty",
}


def validation_errors(
    error: ValidationError, content: Any, root: type[BaseModel], tagged: Mapping[str, type[BaseModel]]
) -> Iterable[str]:
    """One line for every place in the file.

    Args:
        error: the error of ``root.model_validate(content)``.
        content: the content of the file.
        root: the model of the whole file.
        tagged: by tag, the alternative models of a section that has several.
    """
    details = [detail for detail in error.errors() if not _was_filled_in(detail["loc"], content)]
    by_place: dict[str, list[str]] = {}
    for detail in details:
        within = [d["loc"] for d in details if d["loc"][: len(detail["loc"])] == detail["loc"]]
        if detail["type"] == "too_short" and len(within) > 1:
            continue  # pydantic counts valid items only, and each invalid one is reported by itself
        place, message = _place(detail, content), _message(detail, root, tagged)
        named, separator, rest = message.partition(": ")
        if place == "study" and separator and " " not in named:  # the message begins with its place
            place, message = named, rest
        by_place.setdefault(place, []).append(message)
    for place, messages in by_place.items():
        # Where a value may have several types, an error inside one of them says more than a mismatch with the others.
        if any(other.startswith(f"{place}.") for other in by_place) and all(m.startswith("wanted") for m in messages):
            continue
        yield f"{place}: {', or '.join(dict.fromkeys(messages))}"


def _was_filled_in(location: _Location, content: Any) -> bool:
    """Whether the error is the study's own, repeated in a strategy that takes over the study's settings."""
    match location:
        case ("strategies", int(number), "student" | "loss" as section, str(key), *_):
            entry = content["strategies"][number]
            return not (isinstance(entry, dict) and isinstance(entry.get(section), dict) and key in entry[section])
    return False


def _message(detail: Any, root: type[BaseModel], tagged: Mapping[str, type[BaseModel]]) -> str:
    kind, location = detail["type"], detail["loc"]
    if kind == "extra_forbidden":
        fields = _fields_at(root, location[:-1], tagged)
        if present := _present_name(str(location[-1]), fields):
            return f"the former name of {present}, which is given, too. Give {present} alone"
        valid = sorted(fields)
        near = f" {did}" if (did := _did_you_mean(str(location[-1]), valid)) else ""
        return f"unknown key;{near} valid here: {', '.join(valid)}"
    if kind == "missing":
        return "missing"
    got = detail.get("input")
    if kind == "unknown_kind":
        got = got.get("kind") if isinstance(got, dict) else got
        near = f"; {did}" if (did := _did_you_mean(got, tagged)) else ""
        return f"{detail['msg']}{near} (got {got!r})"
    if kind == "too_short":
        message = f"wanted a list of at least {detail['ctx']['min_length']}"
    elif kind == "too_long":
        message = f"wanted a list of at most {detail['ctx']['max_length']}"
    else:
        message = _WORDS.get(kind, detail["msg"].removeprefix("Value error, "))
    if kind == "literal_error":
        allowed = [choice.strip(" '") for choice in detail["ctx"]["expected"].replace(" or ", ", ").split(",")]
        message += f"; {did}" if (did := _did_you_mean(got, allowed)) else ""
    return f"{message} (got {_shown(got)})" if kind != "value_error" or not isinstance(got, dict) else message


def _shown(got: Any, most: int = 80) -> str:
    if got is None:
        return "nothing: null"
    shown = repr(list(got) if isinstance(got, tuple) else got)
    return shown if len(shown) <= most else f"{shown[:most]}…"


def _present_name(key: str, fields: Mapping[str, FieldInfo]) -> str | None:
    """The present name of a key that had another name in earlier versions; None if it had none."""
    aliases = {name: field.validation_alias for name, field in fields.items()}
    return next((n for n, alias in aliases.items() if isinstance(alias, AliasChoices) and key in alias.choices), None)


def _did_you_mean(got: Any, choices: Iterable[str]) -> str:
    """The question whether the nearest choice was meant; empty if none is near."""
    near = difflib.get_close_matches(got, list(choices), n=1, cutoff=0.5) if isinstance(got, str) else []
    return f"did you mean {near[0]}?" if near else ""


def _place(detail: Any, content: Any) -> str:
    """Path of an error in the file, without the types and tags that pydantic's own location contains."""
    path: list[str] = []
    location = detail["loc"]
    for number, part in enumerate(location):
        inside = isinstance(content, dict) and part in content
        inside = inside or (isinstance(content, list | tuple) and isinstance(part, int) and part < len(content))
        if inside:
            content = content[part]
            path.append(str(part))
        elif number == len(location) - 1 and detail["type"] in ("missing", "extra_forbidden"):
            path.append(str(part))
    if detail["type"] == "unknown_kind":
        path.append("kind")
    return ".".join(path) or "study"


def _fields_at(
    model: type[BaseModel], location: _Location, tagged: Mapping[str, type[BaseModel]]
) -> Mapping[str, FieldInfo]:
    """The fields that are valid at a place of the study."""
    for part in location:
        if part in tagged:
            model = tagged[str(part)]
            continue
        if isinstance(part, int) or part not in model.model_fields:
            continue
        inner = _models_in(model.model_fields[part].annotation)
        model = inner[0] if inner else model
    return model.model_fields


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]
