"""The command line run in the test process, and scripts loaded as modules."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType


@dataclass
class Outcome:
    code: int
    out: str
    err: str


Cli = Callable[..., Outcome]


def refused(outcome: Outcome, *parts: str) -> None:
    """Exit code 2, nothing on standard output, one message without a traceback that holds all parts."""
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    assert outcome.err.startswith("Error: ")
    assert outcome.err.count("Error: ") == 1
    assert "Traceback" not in outcome.err
    for part in parts:
        assert part in outcome.err


def script(path: Path) -> ModuleType:
    """A script that no package holds, as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
