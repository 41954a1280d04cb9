"""Pages generated from the code: the commands, the keys of a study file, the example studies."""

import importlib
import json
import re
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.main import get_command

# ---- commands ------------------------------------------------------------------------------------------------------


def commands_page() -> str:
    """Every command with its arguments, options and examples, from the command line itself."""
    group: Any = get_command(importlib.import_module("layerangles_cli.main").app)
    with group.context_class(group, info_name="layerangles") as context:
        parts = [
            "# Commands",
            group.help,
            "`layerangles COMMAND --help` prints the same. Nothing is overwritten without `--overwrite`. Exit codes: "
            "0; 2 for an error in what was given, with one message that says what is allowed; 1 for a failure while "
            "running; 130 for Ctrl-C. With `--json` a command prints JSON.",
            table(
                ("command", "what it does"),
                [(f"[`{name}`](#{name})", _first_line(command.help)) for name, command in group.commands.items()],
            ),
        ]
        for name, command in group.commands.items():
            with command.context_class(command, info_name=name, parent=context) as inner:
                parts += _command(name, command, inner)
    return "\n\n".join(parts) + "\n"


def _command(name: str, command: Any, context: Any) -> Iterator[str]:
    yield f"## {name} {{#{name}}}"
    paragraphs = [" ".join(paragraph.split()) for paragraph in command.help.split("\n\n")]
    yield "\n\n".join(escaped(p) for p in paragraphs if not p.startswith("Example: "))
    examples = [p.removeprefix("Example: ") for p in paragraphs if p.startswith("Example: ")]
    yield "\n".join(["```sh", *(examples or [f"layerangles {name}"]), "```"])
    records = [(param, param.get_help_record(context)) for param in command.get_params(context)]
    for kind, heading in (("argument", "argument"), ("option", "option")):
        rows = [
            _parameter(*record)
            for param, record in records
            if param.param_type_name == kind and record and param.name != "help"
        ]
        if rows:
            yield table((heading, "meaning", "default"), rows)


def _parameter(flags: str, meaning: str) -> tuple[str, str, str]:
    """One row of a table, from one entry of ``--help``."""
    notes = re.search(r"\s*\[([^\[\]]*(?:\[[^\]]*\])?[^\[\]]*)\]$", meaning)
    default, limits = "", ""
    if notes is not None and re.search(r"default: |required|[<>]=?", notes[1]):
        meaning = meaning[: notes.start()]
        for note in notes[1].split("; "):
            if note.startswith("default: "):
                default = f"`{note.removeprefix('default: ')}`"
            elif note == "required":
                default = "required"
            else:
                limits = f" {_range(note)}."
    return f"`{' '.join(flags.split())}`", escaped(" ".join(meaning.split()) + limits), default


def _range(note: str) -> str:
    """The bounds of a number in words; ``--help`` writes ``x>=2`` or ``0<=x<=65535``."""
    if both := re.fullmatch(r"(.+)<=x<=(.+)", note):
        return f"{both[1]} to {both[2]}"
    return re.sub(r"^x>=", "At least ", re.sub(r"^x>(?!=)", "Above ", note))


def _first_line(text: str) -> str:
    return escaped(" ".join(text.split("\n\n", 1)[0].split()))


# ---- the study file ------------------------------------------------------------------------------------------------


def study_page() -> str:
    """Every key of a study file, from the pydantic models that check it."""
    from kd_train.study.study_file import Study

    sections = list(_sections(Study))
    return "\n\n".join(
        [
            "# Study file",
            "A study is one YAML file. `layerangles plan FILE` checks it and prints what would be trained; all "
            "errors are reported at once, each with its place. Any value can be changed on the command line: "
            "`--set training.max_steps=100`. `study.resolved.yaml` in the study's directory has every key, with its "
            "value or default. A minimal study:",
            _MINIMAL,
            "[Example studies](studies.md) has larger ones; "
            "[the paper's page](paper.md#3-strategies-losses-maps-controls) defines strategies, losses and maps.",
            *sections,
        ]
    )


_MINIMAL = """```yaml
name: first
task: {dataset: embedded/movie-reviews}
teacher: {model: embedded/all-MiniLM-L6-v2, finetune: {}}
student: {layers: 3}
strategies: [none, forward]
```"""

# The place of each model in the file.
_PLACES = {
    "Study": "The whole file",
    "TeacherSpec": "teacher",
    "FinetuneSpec": "teacher.finetune",
    "StudentSpec": "student",
    "Variant": "strategies",
    "LossSpec": "loss",
    "StudentTraining": "training",
    "LoraSpec": "lora",
    "VerdictSpec": "verdict",
}


def _sections(root: type[BaseModel]) -> Iterator[str]:
    for model in models_below(root):
        yield f"## {_place(model)} {{#{_anchor(model)}}}"
        yield _docstring(model)
        rows = [
            (f"`{name}`", _takes(field.annotation, field.metadata), _default(field), _meaning(field))
            for name, field in model.model_fields.items()
        ]
        yield table(("key", "takes", "default", "meaning"), rows)


def models_below(root: type[BaseModel]) -> list[type[BaseModel]]:
    """The model of a file and those of its parts, each once, in order of appearance."""
    found = [root]
    for model in found:
        for field in model.model_fields.values():
            found += [part for part in _models_in(field.annotation) if part not in found]
    return found


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]


def _place(model: type[BaseModel]) -> str:
    if "kind" in model.model_fields and model.__name__ not in _PLACES:
        return f"task, {model.model_fields['kind'].default}"
    return _PLACES[model.__name__]


def _anchor(model: type[BaseModel]) -> str:
    return re.sub(r"\W+", "-", _place(model).lower())


def _docstring(model: type[BaseModel]) -> str:
    lines = (model.__doc__ or "").strip().splitlines()
    return escaped("\n".join(line.strip() for line in lines))


def _meaning(field: FieldInfo) -> str:
    if field.description:
        return escaped(field.description)
    if get_origin(field.annotation) is Literal:  # the tag of a part that has several forms
        return f"this form of the {'task' if field.default else 'file'}"
    return "; ".join(f"[{_place(model)}](#{_anchor(model)})" for model in _models_in(field.annotation))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    if default is None or isinstance(default, BaseModel) or default in ({}, (), ""):
        return "–"
    return f"`{json.dumps(default)}`" if not isinstance(default, str) else f"`{default}`"


_WORDS = {str: "text", int: "whole number", float: "number", bool: "`true`, `false`"}


def _takes(annotation: Any, limits: Any = ()) -> str:
    """The allowed values, in the terms of YAML and not of Python."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = [part for limit in arguments[1:] for part in getattr(limit, "metadata", [limit])]
        words = _takes(arguments[0], inner)
    elif origin is Literal:
        words = ", ".join(f"`{choice}`" for choice in arguments)
    elif origin in (Union, types.UnionType):
        words = " or ".join(dict.fromkeys(_takes(a, limits) for a in arguments if a is not type(None)))
    elif origin is tuple and arguments[1:] == (Ellipsis,):
        words = f"list of {_plural(_takes(arguments[0]))}" + _limits(limits)
    elif origin is tuple:
        words = f"[{', '.join(_takes(argument) for argument in arguments)}]"
    elif origin is dict:
        words = f"mapping of {_takes(arguments[0])} to {_plural(_takes(arguments[1]))}"
    elif _models_in(annotation):
        words = "mapping"
    else:
        words = _WORDS[annotation] + _limits(limits)
    return words


def _plural(what: str) -> str:
    return re.sub(r"^(text|whole number|number|mapping)\b", r"\1s", what)


def _limits(limits: Any) -> str:
    words = []
    for limit in limits:
        match limit:
            case Ge():
                words.append(f"from {limit.ge:g}")
            case Gt():
                words.append(f"above {limit.gt:g}")
            case Le():
                words.append(f"to {limit.le:g}")
            case Lt():
                words.append(f"below {limit.lt:g}")
            case MinLen() if limit.min_length > 1:
                words.append(f"at least {limit.min_length}")
    return f" {' and '.join(words)}" if words else ""


# ---- the variables of a result -------------------------------------------------------------------------------------


def variables_tables() -> str:
    """The dimensions of a result's dataset and its variables, from the table that measurements read."""
    from layerangles.results.variables import DIMENSIONS, MEASURED

    dimensions = [(f"`{name}`", meaning) for name, meaning in DIMENSIONS.items()]
    rows = []
    for variable in MEASURED:
        ends = ", ".join(f"`{end}`" for end in variable.ends)
        names = f"`{variable.name}`" + (f" ({ends})" if ends else "")
        relatives = ", ".join(f"`{prefix}`" for prefix in variable.prefixes)
        meaning = "; ".join(filter(None, (variable.meaning, variable.condition)))
        dims = ", ".join(f"`{dim}`" for dim in variable.dims)
        rows.append((names, variable.unit.replace("°", "degrees"), dims, relatives, meaning))
    return "\n\n".join(
        [
            table(("dimension", "holds"), dimensions),
            "All variables have `student`, `step` and `tower` besides the dimensions named here, except that the top "
            "dimensions are the teacher's, and the hash is a student's.",
            table(("variable (ends of its interval)", "unit", "dimensions", "relatives", "meaning"), rows),
        ]
    )


# ---- the example studies -------------------------------------------------------------------------------------------


def studies_page(folder: Path) -> str:
    """The studies of examples/, verbatim."""
    parts = [
        "# Example studies",
        "The files of `examples/studies/`. Each says what it needs and how it is launched; `layerangles plan` prints "
        "what it would train, without training it.",
    ]
    for file in sorted(folder.glob("*.yaml")):
        text = file.read_text(encoding="utf-8")
        parts += [
            f"## {file.stem} {{#{file.stem}}}",
            f"`examples/studies/{file.name}`",
            f"```yaml\n{text.strip()}\n```",
        ]
    return "\n\n".join(parts) + "\n"


# ---- text ----------------------------------------------------------------------------------------------------------


def table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def escaped(text: str) -> str:
    """Text of the code as Markdown without HTML, links or emphasis; ``code`` stays code."""
    parts = re.split(r"(``?[^`]+``?)", text)
    return "".join(
        part if i % 2 else re.sub(r"([\[\]*_])", r"\\\1", part.replace("<", "&lt;")) for i, part in enumerate(parts)
    )
