"""Heavy packages are imported late, by the commands that need them; cli → kd_train → layerangles, never back."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "examples" / "results" / "movie-reviews"
HEAVY = ("torch", "transformers", "plotly", "dash", "xarray", "pandas", "scipy", "datasets", "accelerate")


def _loaded_after(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after a statement."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(subprocess.check_output([sys.executable, "-W", "error", "-c", code], text=True, cwd=ROOT).split())


def _loaded_by(folder: Path, *arguments: object, code: int = 0) -> set[str]:
    """The top-level modules that a command has loaded when it ends, run by a fresh interpreter in a folder."""
    program = (
        "import sys, atexit\n"
        f"sys.argv = ['layerangles', *{[str(argument) for argument in arguments]!r}]\n"
        "atexit.register(lambda: print(*{n.partition('.')[0] for n in sys.modules}, file=open('loaded.txt', 'w')))\n"
        "import layerangles_cli.main\n"
        "layerangles_cli.main.run()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return set((folder / "loaded.txt").read_text(encoding="utf-8").split())


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


def test_the_exception_is_importable_without_anything_heavy() -> None:
    assert not _loaded_after("from layerangles import InputError") & set(HEAVY)


def test_a_result_is_read_without_torch() -> None:
    assert not _loaded_after("from layerangles import AngleResult") & {"torch", "transformers", "plotly"}


def test_figures_are_reached_through_the_package() -> None:
    assert "plotly" in _loaded_after("import layerangles; layerangles.figures.heatmap")


def test_measuring_never_imports_plotting_or_training() -> None:
    loaded = _loaded_after("from layerangles import measure_angles, open_student")
    assert "torch" in loaded
    assert not loaded & {"plotly", "kd_train", "layerangles_cli", "datasets"}


def test_the_analysis_imports_neither_training_nor_the_command_line() -> None:
    assert _importers("layerangles", "kd_train", "layerangles_cli", "cli") == []


def test_training_does_not_import_the_command_line() -> None:
    assert _importers("kd_train", "layerangles_cli", "cli") == []


def test_only_figures_report_and_app_plot() -> None:
    plotting = _importers("layerangles", "plotly", "kaleido", top_level_only=True)
    may = ("layerangles/figures/", "layerangles/report/", "layerangles/app/")
    assert [file for file in plotting if not file.startswith(may)] == []
    assert _importers("kd_train", "plotly", "kaleido") == []


@pytest.mark.parametrize(
    "command",
    [
        ("verdict", RESULTS),
        ("report", RESULTS, "-o", "report.html"),
        ("draw", "heatmap", RESULTS, "--student", "forward-seed0", "-o", "map.html"),
        ("draw", "forest", RESULTS, "--cell", "movie-reviews-verdict (init copied)", "-o", "forest.html"),
    ],
    ids=lambda command: " ".join(map(str, command[:2])),
)
def test_commands_that_read_results_import_neither_torch_nor_transformers(
    tmp_path: Path, command: tuple[object, ...]
) -> None:
    assert not _loaded_by(tmp_path, *command) & {
        "torch",
        "transformers",
        "accelerate",
        "statsmodels",
        "peft",
        "datasets",
    }


def test_the_app_serves_stored_results_without_torch(tmp_path: Path) -> None:
    served = f"""
import sys, layerangles.app.server
layerangles.app.server.serve = lambda app, host, port: app.server.test_client().get("/").get_data()
sys.argv = ["layerangles", "compare", {str(RESULTS)!r}, "--no-browser", "--port", "0"]
import layerangles_cli.main
try:
    layerangles_cli.main.run()
except SystemExit as left:
    assert not left.code, left.code
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", served], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "dash" in done.stdout.split()
    assert not {"torch", "transformers"} & set(done.stdout.split())


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    for command in ((), ("angles",), ("train",)):
        assert not _loaded_by(tmp_path, *command, "--help") & {*HEAVY, "numpy", "jaxtyping"}


def test_a_misspelt_key_of_a_study_is_answered_before_torch(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("name: x\nstudnet: {layers: 3}\n", encoding="utf-8")
    for command in ("plan", "train"):
        assert not _loaded_by(tmp_path, command, "study.yaml", code=2) & {"torch", "transformers", "pandas"}


def test_a_plan_imports_nothing_that_only_training_needs(tmp_path: Path) -> None:
    loaded = _loaded_by(tmp_path, "plan", ROOT / "examples" / "studies" / "movie-reviews.yaml")
    assert not loaded & {"peft", "datasets", "submitit", "sacrebleu", "sklearn", "plotly", "xarray"}


def test_every_public_name_can_be_imported() -> None:
    import layerangles

    for name in layerangles.__all__:
        assert getattr(layerangles, name) is not None
    with pytest.raises(AttributeError, match=r"'layerangles' has no attribute 'no_such_thing'"):
        layerangles.no_such_thing  # noqa: B018
