"""``layerangles``, ``--help`` and ``env``."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from toys.command_line import Cli


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, layerangles_cli.main; print([m for m in ('torch', 'transformers', 'plotly') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    "command", ["demo", "plan", "train", "angles", "compare", "draw", "merge", "verdict", "report", "env"]
)
def test_help_of_every_command_shows_an_example(cli: Cli, command: str) -> None:
    assert command in cli("--help").out
    assert "Example: layerangles " + command in cli(command, "--help").out


def test_an_installation_adds_no_package_named_cli(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-c", "import cli"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "No module named 'cli'" in done.stderr


def test_an_unknown_option_ends_with_exit_code_2(cli: Cli) -> None:
    assert cli("angles", "--no-such-option").code == 2


def test_env_says_what_is_installed(cli: Cli) -> None:
    content = json.loads(cli("env", "--json").out)
    assert content["torch"].startswith("2.")
    assert content["cores"] == str(os.cpu_count())
