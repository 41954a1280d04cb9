"""What may import what: heavy things late, and cli → kd_train → layerangles, never back."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "plotly", "dash", "xarray", "pandas", "scipy", "datasets", "accelerate")


def _loaded_after(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after a statement."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(subprocess.check_output([sys.executable, "-W", "error", "-c", code], text=True, cwd=ROOT).split())


def _imports(file: Path, *, top_level_only: bool = False) -> Iterator[str]:
    """The absolute names that a file imports; what is imported for the type checker alone does not run."""

    def visit(node: ast.AST) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            match child:
                case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                    for other in child.orelse:
                        yield from visit(other)
                case ast.Import():
                    yield from (alias.name for alias in child.names)
                case ast.ImportFrom(module=module, level=level):
                    assert level == 0, f"{file}: imports are absolute"
                    yield from (f"{module}.{alias.name}" for alias in child.names)
                case ast.FunctionDef() | ast.AsyncFunctionDef() if top_level_only:
                    pass
                case _:
                    yield from visit(child)

    yield from visit(ast.parse(file.read_text(encoding="utf-8")))


def _files(package: str) -> list[Path]:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    return files


def _importers(package: str, *targets: str, top_level_only: bool = False) -> list[str]:
    return [
        file.relative_to(ROOT).as_posix()
        for file in _files(package)
        if any(name.partition(".")[0] in targets for name in _imports(file, top_level_only=top_level_only))
    ]


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert not _loaded_after("import layerangles; layerangles.__version__; dir(layerangles)") & set(HEAVY)


def test_the_exception_is_there_without_anything_heavy() -> None:
    assert not _loaded_after("from layerangles import InputError") & set(HEAVY)


def test_a_result_is_read_without_torch() -> None:
    assert not _loaded_after("from layerangles import AngleResult") & {"torch", "transformers", "plotly"}


def test_figures_are_reached_through_the_package() -> None:
    assert "plotly" in _loaded_after("import layerangles; layerangles.figures.heatmap")


def test_measuring_never_imports_plotting_or_training() -> None:
    loaded = _loaded_after("from layerangles import measure_angles, open_student")
    assert "torch" in loaded
    assert not loaded & {"plotly", "kd_train", "layerangles_cli", "datasets"}


def test_the_analysis_knows_nothing_of_training_or_of_the_command_line() -> None:
    assert _importers("layerangles", "kd_train", "layerangles_cli", "cli") == []


def test_the_training_knows_nothing_of_the_command_line() -> None:
    assert _importers("kd_train", "layerangles_cli", "cli") == []


def test_only_figures_report_and_app_plot() -> None:
    plotting = _importers("layerangles", "plotly", "kaleido", top_level_only=True)
    may = ("layerangles/figures/", "layerangles/report/", "layerangles/app/")
    assert [file for file in plotting if not file.startswith(may)] == []
    assert _importers("kd_train", "plotly", "kaleido") == []


def test_what_the_package_names_is_there() -> None:
    import layerangles

    for name in layerangles.__all__:
        assert getattr(layerangles, name) is not None
    with pytest.raises(AttributeError, match=r"'layerangles' has no attribute 'no_such_thing'"):
        layerangles.no_such_thing  # noqa: B018
