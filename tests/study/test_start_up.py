"""Imports before a study file is answered: neither torch, nor the hub's libraries, nor those of the metrics."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {
    *("torch", "transformers", "tokenizers", "accelerate", "peft", "datasets", "pandas", "scipy"),
    *("sklearn", "sacrebleu", "rouge_score", "rapidfuzz"),
}
REPORT = (
    "import atexit, sys\natexit.register(lambda: print('\\n', *{name.partition('.')[0] for name in sys.modules}))\n"
)


def _run(code: str, exit_code: int = 0) -> tuple[set[str], str]:
    """Top-level modules that a fresh interpreter has imported at the end of some code, and its standard error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", REPORT + code], check=False, capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == exit_code, done.stderr
    return set(done.stdout.splitlines()[-1].split()), done.stderr


def _command(*arguments: object) -> str:
    return f"from layerangles_cli.main import run\nsys.argv = {['layerangles', *map(str, arguments)]}\nrun()"


@pytest.mark.parametrize("module", ["study.study_file", "study.comparisons", "tasks.kinds", "data.embedded"])
def test_the_study_file_is_imported_without_torch(module: str) -> None:
    loaded, _ = _run(f"import kd_train.{module}")
    assert "kd_train" in loaded
    assert not loaded & HEAVY


def test_every_example_study_is_read_without_torch() -> None:
    loaded, _ = _run(
        "from pathlib import Path\nfrom kd_train.study.study_file import read_study\n"
        "assert len([read_study(file) for file in Path('examples/studies').glob('*.yaml')]) > 10"
    )
    assert not loaded & HEAVY


@pytest.mark.parametrize("command", ["plan", "train"])
def test_a_misspelt_key_is_answered_before_torch_is_imported(command: str, tmp_path: Path) -> None:
    recipe = (ROOT / "examples" / "studies" / "movie-reviews.yaml").read_text(encoding="utf-8")
    study = tmp_path / "study.yaml"
    study.write_text(recipe.replace("strategies:", "strategeis:"), encoding="utf-8")
    loaded, message = _run(_command(command, study), exit_code=2)
    assert "strategeis: unknown key; did you mean strategies?" in message
    assert not loaded & HEAVY


def test_plan_imports_no_adapters_data_frames_or_metrics() -> None:
    loaded, _ = _run(_command("plan", "examples/studies/movie-reviews.yaml"))
    assert {"torch", "transformers"} <= loaded
    assert not loaded & {"peft", "datasets", "pandas", "xarray", "sacrebleu", "rouge_score", "rapidfuzz"}
