"""Options that several commands share, and those that derive from the settings of a measurement."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from layerangles.settings import DEFAULTS, SETTINGS

Margin = Annotated[float | None, typer.Option(help="The smallest difference that matters, in the metric's unit.")]
MarginOfGain = Annotated[
    float | None, typer.Option(help="The smallest difference that matters, as a share of the gain over none.")
]
Metric = Annotated[str | None, typer.Option(help="The studies' metric; by default the one they decide by.")]
Split = Annotated[str | None, typer.Option(help="The studies' split; by default test, else dev.")]
Image = Annotated[Path | None, typer.Option(help="Draw the heat maps into a static image (needs Chrome).")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Device = Annotated[str, typer.Option(help=SETTINGS["device"].help)]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code that comes with a model. Only if you trust it.")
]

# Settings whose option is not simply a value of the default's type: its name where that differs, its type, its default.
_SPECIAL: dict[str, tuple[tuple[str, ...], Any, Any]] = {
    "nulls": (("--null",), list[str] | None, None),
    "fit": ((), str | None, None),
    "steps": (("--steps/--no-steps",), bool | None, None),
    "until": ((), float | None, None),
    "shard": ((), str, "0/1"),
    "special_tokens": (("--special-tokens/--no-special-tokens",), bool, True),
}
_ONLY_IN_PYTHON = ("confidence", "students_per_pass")


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Replace a command's parameter ``**settings`` by one option per setting of a measurement."""
    signature = inspect.signature(command)
    own = [parameter for parameter in signature.parameters.values() if parameter.kind != parameter.VAR_KEYWORD]
    derived = []
    for name, setting in SETTINGS.items():
        if name in _ONLY_IN_PYTHON:
            continue
        flags, kind, default = _SPECIAL.get(name, ((), type(DEFAULTS[name]), DEFAULTS[name]))
        option = Annotated[kind, typer.Option(*flags, help=setting.help)]  # type: ignore[valid-type]
        derived.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=option))
    command.__signature__ = signature.replace(parameters=[*own, *derived])  # type: ignore[attr-defined]
    return command
