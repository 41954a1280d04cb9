"""``layerangles``, ``--help`` and ``env``."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from layerangles_cli.output import print_table
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


def test_tables_show_numbers_that_programs_can_read(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(
        [
            {"angle °": -12.34, "interval": "[−13.0, ∞]", "tokens": 1234},
            {"angle °": math.nan, "interval": "–", "tokens": 5},
        ]
    )
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "-1" in line or "–" in line]
    assert rows == [["-12.3", "[-13.0,", "∞]", "1,234"], ["–", "–", "5"]]
