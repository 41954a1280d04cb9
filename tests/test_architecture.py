"""Imports run one way: cli → kd_train → layerangles, and from later to earlier sub-packages within each."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# The sub-packages and top modules of each package; each may import those before it, lazily and for types included.
ORDER = {
    "layerangles": (
        *("errors", "extras", "files", "versions", "lazy", "layers", "notation", "geometry", "settings"),
        *("sums", "results", "models", "measurement", "equivalence", "figures", "report", "app"),
    ),
    "kd_train": (
        *("randomness", "optimizers"),
        *("data", "tasks", "batches", "matching", "students", "study", "training", "outcome", "jobs"),
    ),
}
MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 80
MOST_PARAMETERS = 12


def _files(*folders: str) -> list[Path]:
    files = sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))
    assert files
    return files


def _name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _imported(tree: ast.AST, modules: set[str]) -> Iterator[str]:
    """The modules that a file imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in modules else str(node.module)


def _graph(package: str) -> dict[str, set[str]]:
    """Module → the modules of its package that it imports."""
    by_name = {_name(file): file for file in _files(package)}
    graph = {}
    for name, file in by_name.items():
        if name == package:
            continue  # the package's front names what is inside
        imported = set(_imported(ast.parse(file.read_text(encoding="utf-8")), set(by_name)))
        graph[name] = {other for other in imported & set(by_name) if other != name}
    return graph


@pytest.mark.parametrize("package", ORDER)
def test_sub_packages_import_earlier_ones_alone(package: str) -> None:
    order = ORDER[package]
    place = {name: number for number, name in enumerate(order)}
    found = []
    for module, imported in _graph(package).items():
        here = module.split(".")[1]
        for other in imported:
            there = other.split(".")[1:2]
            assert there, f"{module} imports the front of its own package"
            if there[0] != here and place[there[0]] > place[here]:
                found.append(f"{module} imports {other}")
    assert found == []


@pytest.mark.parametrize("package", ORDER)
def test_no_import_goes_round_in_a_circle(package: str) -> None:
    try:
        TopologicalSorter(_graph(package)).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


@pytest.mark.parametrize("package", [*ORDER, "cli"])
def test_no_package_has_more_than_nine_modules_at_its_top(package: str) -> None:
    for folder in {file.parent for file in _files(package)}:
        modules = [file.name for file in folder.glob("*.py") if file.name != "__init__.py"]
        assert len(modules) <= (15 if package == "cli" else 9), f"{folder}: {modules}"


def test_no_file_is_too_long() -> None:
    long = [
        f"{_name(file)}: {n}"
        for file in _files(*ORDER, "cli", "tests", "benchmarks")
        if (n := len(file.read_text(encoding="utf-8").splitlines())) > MOST_LINES_OF_A_FILE
    ]
    assert long == []


def _lines_of_code(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Its lines without the docstring."""
    first = function.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def test_no_function_is_too_long_or_takes_too_much() -> None:
    found = []
    for file in _files(*ORDER, "cli"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                parameters = len(node.args.posonlyargs + node.args.args + node.args.kwonlyargs)
                if _lines_of_code(node) > MOST_LINES_OF_A_FUNCTION:
                    found.append(f"{_name(file)}.{node.name}: {_lines_of_code(node)} lines")
                if parameters > MOST_PARAMETERS and not _name(file).startswith("cli."):
                    found.append(f"{_name(file)}.{node.name}: {parameters} parameters")
    assert found == []


def test_no_test_imports_another_test() -> None:
    for file in _files("tests"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert not str(node.module).startswith(("test_", "conftest")), f"{_name(file)} imports {node.module}"


def test_no_file_name_stands_for_two_things() -> None:
    seen: dict[str, str] = {}
    for file in _files(*ORDER):
        if file.name == "__init__.py":
            continue
        other = seen.setdefault(file.name, _name(file))
        assert other == _name(file), f"{_name(file)} and {other}"


def test_no_class_name_stands_for_two_things() -> None:
    seen: dict[str, str] = {}
    for file in _files(*ORDER):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                name = node.name.lstrip("_")
                other = seen.setdefault(name, _name(file))
                assert other == _name(file), f"{node.name}: {_name(file)} and {other}"
