"""docs/errors.md has every message that the code can raise, and none that it cannot."""

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from kd_train.study.validation_errors import _WORDS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "errors.md"
PACKAGES = ("layerangles", "kd_train", "cli")
RAISED = ("InputError", "RunError", "ValueError")
ANYTHING = "…"

# Raised with nothing but messages from elsewhere, which are on the page by themselves.
PASSED_ON = {("cli/train.py", "_options")}


class Raise(NamedTuple):
    """One ``raise``, with what it may print: its literal parts, and … for each of the others."""

    place: str
    function: str
    patterns: frozenset[str]


class _Module:
    """A file, with its functions by name, so that messages made by a helper are found in it."""

    def __init__(self, file: Path, root: Path) -> None:
        self.place = file.relative_to(root).as_posix()
        self.tree = ast.parse(file.read_text(encoding="utf-8"))
        self.functions = {node.name: node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef)}


def collect(root: Path) -> list[Raise]:
    modules = [_Module(file, root) for name in PACKAGES for file in sorted((root / name).rglob("*.py"))]
    found = []
    for module in modules:
        for function, node in _raises(module.tree, "<module>"):
            call = node.exc
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in RAISED:
                (message,) = call.args
                patterns = _patterns(message, module) | set(_listed(message, module, function))
                if isinstance(message, ast.Name) and _takes(module.functions.get(function), message.id):
                    patterns = set(_given_for(message.id, function, modules))
                known = frozenset(normal(pattern) for pattern in patterns) - {ANYTHING, ""}
                found.append(Raise(f"{module.place}:{node.lineno}", function, known))
    return found


def _raises(tree: ast.AST, function: str) -> Iterator[tuple[str, ast.Raise]]:
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.Raise):
            yield function, child
        yield from _raises(child, child.name if isinstance(child, ast.FunctionDef) else function)


def _takes(function: ast.FunctionDef | None, name: str) -> bool:
    return function is not None and name in [argument.arg for argument in function.args.args]


def _given_for(parameter: str, function: str, modules: list[_Module]) -> Iterator[str]:
    """What callers give for a parameter that is the whole message."""
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) == function:
                home = next(m for m in modules if function in m.functions)
                position = [argument.arg for argument in home.functions[function].args.args].index(parameter)
                given = {k.arg: k.value for k in node.keywords} | dict(enumerate(node.args))
                yield from _patterns(given.get(position, given.get(parameter)), module)


def _listed(message: ast.expr, module: _Module, function: str) -> Iterator[str]:
    """What a function puts into a list, where the list joined is the whole message."""
    match message:
        case ast.Call(func=ast.Attribute(value=ast.Constant(), attr="join"), args=[ast.Name(id=name)]):
            for node in ast.walk(module.functions[function]):
                match node:
                    case ast.Assign(targets=[ast.Name(id=given)], value=value) if given == name:
                        whole = [e for part in ast.walk(value) if isinstance(part, ast.List) for e in part.elts]
                        yield from (pattern for element in whole for pattern in _patterns(element, module))
                    case ast.Call(func=ast.Attribute(value=ast.Name(id=given), attr="append"), args=[element]) if (
                        given == name
                    ):
                        yield from _patterns(element, module)


def _patterns(node: ast.expr | None, module: _Module) -> set[str]:
    match node:
        case ast.Constant(value=str(text)):
            return {text}
        case ast.JoinedStr(values=parts):
            return {"".join(_patterns(p, module).pop() if isinstance(p, ast.Constant) else ANYTHING for p in parts)}
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            return {a + b for a, b in itertools.product(_patterns(left, module), _patterns(right, module))}
        case ast.BoolOp(values=values):
            return set().union(*(_patterns(value, module) for value in values))
        case ast.IfExp(body=body, orelse=other):
            return _patterns(body, module) | _patterns(other, module)
        case ast.Call(
            func=ast.Attribute(value=ast.Constant(value=str(between)), attr="join"), args=[ast.List(elts=elts)]
        ):
            choices = itertools.product(*(_patterns(e, module) for e in elts))
            return {between.join(choice) for choice in choices}
        case ast.Call(func=ast.Name(id=name)) if name in module.functions:
            returned = [n.value for n in ast.walk(module.functions[name]) if isinstance(n, ast.Return)]
            return set().union(*(_patterns(value, module) for value in returned))
    return {ANYTHING}


def normal(pattern: str) -> str:
    return re.sub(f"{ANYTHING}+", ANYTHING, " ".join(pattern.split()))


def on_the_page(text: str) -> list[str]:
    """The messages of the page: its headings of the fourth level."""
    return [
        normal(message) for message in re.findall(r"^#### (?:`` ?|`)(.*?)(?: ?``|`)(?: \{#.*\})?$", text, re.MULTILINE)
    ]


@pytest.fixture(scope="module")
def raised() -> list[Raise]:
    return collect(ROOT)


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_the_collector_reduces_messages_to_their_literal_parts(tmp_path):
    code = tmp_path / "layerangles" / "one.py"
    code.parent.mkdir()
    code.write_text(
        """
def fails(n, message, names):
    if n:
        raise InputError(f"got {n}{n} of\\n  {names!r}: " + "none " + ("left" if n else "right"))
    if names:
        raise RunError("\\n - ".join(["these:", *names])) from None
    raise InputError(message)

def helped(what):
    fails(1, f"no {what}", [])
    fails(1, message="said", names=[])
    raise ValueError(_text(what))

def _text(what):
    return f"made of {what}"

def gathers(n):
    wrong = [] if n else [f"few: {n}"]
    if n > 9:
        wrong.append("many")
    if wrong:
        raise InputError(" ".join(wrong))
"""
    )
    assert [(r.function, sorted(r.patterns)) for r in collect(tmp_path)] == [
        ("fails", ["got … of …: none left", "got … of …: none right"]),
        ("fails", ["these: - …"]),
        ("fails", ["no …", "said"]),
        ("helped", ["made of …"]),
        ("gathers", ["few: …", "many"]),
    ]


def test_every_raise_has_a_message(raised):
    without = {(r.place.partition(":")[0], r.function) for r in raised if not r.patterns}
    assert len(raised) > 300
    assert without == PASSED_ON


def test_the_page_has_every_message(raised, page):
    there = set(on_the_page(page))
    missing = [f"{r.place}: {pattern}" for r in raised for pattern in sorted(r.patterns - there)]
    assert not missing, "docs/errors.md lacks\n" + "\n".join(missing)


def test_the_page_has_no_message_that_nothing_raises(raised, page):
    possible = {pattern for r in raised for pattern in r.patterns}
    assert [message for message in on_the_page(page) if message not in possible] == []


def test_every_message_stands_once_with_cause_and_cure(page):
    messages = on_the_page(page)
    assert sorted(set(messages)) == sorted(messages)
    entries = re.split(r"^#### ", page, flags=re.MULTILINE)[1:]
    assert len(entries) == len(messages)
    for entry in entries:
        lines = entry.splitlines()
        assert lines[1] == ""
        assert re.fullmatch(r"- \*Cause:\* .{12,}\.", lines[2]), entry
        assert re.fullmatch(r"- \*Cure:\* .{5,}\.", lines[3]), entry


def test_what_is_said_of_a_value_of_the_wrong_kind_is_explained(page):
    assert [words for words in set(_WORDS.values()) if f"`{words}`" not in page] == []
