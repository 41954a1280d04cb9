"""The base install holds what analysis needs, and a command that needs more says which extra to install."""

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from toys.command_line import Cli, refused

from layerangles.errors import InputError
from layerangles.extras import EXTRAS, as_missing_extra, require_extra

ROOT = Path(__file__).parents[1]
# Packages that are imported under another name.
MODULES = {"ipython": "IPython", "rouge-score": "rouge_score"}


def _names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=!~]", requirement)[0] for requirement in requirements}


@pytest.fixture
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_extras_of_messages_are_those_of_the_package(project: dict[str, Any]) -> None:
    for extra, modules in EXTRAS.items():
        packages = _names(project["optional-dependencies"][extra])
        assert {MODULES.get(package, package) for package in packages} - {"layerangles"} == set(modules), extra


def test_no_extra_repeats_what_the_base_install_has(project: dict[str, Any]) -> None:
    base = _names(project["dependencies"])
    for extra, requirements in project["optional-dependencies"].items():
        assert _names(requirements) & base == set(), extra


def test_the_developers_install_has_every_extra(project: dict[str, Any]) -> None:
    listed = next(r for r in project["optional-dependencies"]["dev"] if r.startswith("layerangles["))
    assert set(re.findall(r"[\w-]+", listed)[1:]) == set(project["optional-dependencies"]) - {"dev"}


def test_a_missing_module_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    require_extra("train", "training")
    for module in ("datasets", "peft"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError) as raised:
        require_extra("train", "training", alternative="train elsewhere")
    assert str(raised.value) == (
        "training needs datasets and peft, which are not installed. Install the extra 'train': "
        "pip install 'layerangles[train]'. Or train elsewhere."
    )


def test_only_modules_of_extras_are_explained() -> None:
    assert "layerangles[slurm]" in str(as_missing_extra(ModuleNotFoundError(name="submitit.core")))
    assert as_missing_extra(ModuleNotFoundError(name="torch")) is None
    assert as_missing_extra(ModuleNotFoundError("no name")) is None


def test_a_command_that_meets_a_missing_extra_names_it(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def imports_submitit() -> None:
        raise ModuleNotFoundError("No module named 'submitit'", name="submitit")

    monkeypatch.setattr("layerangles_cli.env._environment", imports_submitit)
    refused(cli("env"), "needs submitit", "pip install 'layerangles[slurm]'")


def test_every_sub_package_is_in_the_wheel() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    found = {
        ".".join(file.parent.relative_to(ROOT).parts)
        for package in ("layerangles", "kd_train")
        for file in (ROOT / package).rglob("*")
        if file.suffix in (".py", ".css", ".js")
    }
    assert sorted(listed) == sorted(found | {"layerangles_cli"})
