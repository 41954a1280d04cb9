"""Every command of README, the pages, --help, the notebooks and the example studies is valid as it is written there.

The commands of README run in their order, as do those of the other places that need neither hours, nor a hub, nor a
cluster; the rest is parsed by the real command line.
"""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from layerangles_cli.main import app
from toys.command_line import Cli
from toys.models import toy_bert, write_model
from toys.studies import ToyStudy
from toys.training import toy_study, write_task
from typer.main import get_command

ROOT = Path(__file__).parents[2]
GROUP: Any = get_command(app)
STUDY = "examples/studies/movie-reviews.yaml"

# Why a command is parsed and not run.
NOT_RUN = {
    r"^layerangles demo\b": "takes minutes; tests/cli/test_demo.py",
    r"^layerangles compare\b": "serves until Ctrl-C; tests/cli/test_compare_command.py",
    r"bert-base|google-bert": "needs the hub",
    r"--executor": "queues jobs; tests/jobs",
    r"examples/results|docs/images": "reads the committed study; tests/cli/test_draw.py and tests/outcome",
    r"examples/studies/(?!movie-reviews)|runs/movie-reviews-verdict|runs/pilot": "needs the hub, or hours",
    r"<\w+>": "has places to fill in",
    r"^(accelerate|torchrun)": "starts several processes; tests/training and tests/measurement",
}
# Options of other programs that pages name.
OF_OTHERS = {"--no-python", "--nproc-per-node", "--num_processes", "--me"}


class Written(NamedTuple):
    """A command and the place where it is written."""

    place: str
    command: str

    @property
    def arguments(self) -> list[str]:
        """What follows ``layerangles``, without a comment."""
        words = shlex.split(self.command, comments=True)
        launched = next(i for i, word in enumerate(words) if word in ("layerangles", "$(which layerangles)"))
        return words[launched + 1 :]


def _fenced(text: str) -> Iterator[str]:
    """The commands in the code blocks of a page, continued lines joined."""
    for block in re.findall(r"^ *```[^\n`]*\n.*?^ *```$", text, re.MULTILINE | re.DOTALL):
        language, _, code = block.strip().removeprefix("```").partition("\n")
        if language.strip() in ("", "sh", "bash"):
            yield from _lines(code)


def _lines(text: str) -> Iterator[str]:
    joined = re.sub(r"\\\n[#\s]*", "", text).replace("$(which layerangles)", "'$(which layerangles)'")
    for line in joined.splitlines():
        if re.match(r"\s*(layerangles [a-z]|(accelerate launch|torchrun) .*layerangles)", line):
            yield line.strip()


def _of_pages() -> Iterator[Written]:
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        for command in _fenced(page.read_text(encoding="utf-8")):
            yield Written(page.relative_to(ROOT).as_posix(), command)


def _of_help() -> Iterator[Written]:
    for name, command in GROUP.commands.items():
        for paragraph in (command.help or "").split("\n\n"):
            if paragraph.startswith("Example: "):
                yield Written(f"{name} --help", " ".join(paragraph.removeprefix("Example: ").split()))
    yield Written("--help", GROUP.epilog.removeprefix("Start with: "))


def _of_notebooks() -> Iterator[Written]:
    for file in sorted((ROOT / "examples" / "notebooks").glob("*.ipynb")):
        for cell in json.loads(file.read_text(encoding="utf-8"))["cells"]:
            text = "".join(cell["source"])
            found = _fenced(text) if cell["cell_type"] == "markdown" else _lines(re.sub(r"(?m)^[!%]+(sh )?", "", text))
            yield from (Written(file.name, command) for command in found)


def _of_studies() -> Iterator[Written]:
    for file in sorted((ROOT / "examples").rglob("*.yaml")):
        head = "".join(line for line in file.read_text(encoding="utf-8").splitlines(True) if line.startswith("#"))
        plain = re.sub(r"(?m)^#\s*((Launch|Then|or|on [^:\n]*):)?\s*", "", re.sub(r"\\\n#\s*", "", head))
        commands = (re.sub(r"\s+\(.*\)$", "", command) for command in _lines(plain))
        yield from (Written(file.relative_to(ROOT).as_posix(), command) for command in commands)


WRITTEN = [*_of_pages(), *_of_help(), *_of_notebooks(), *_of_studies()]


def _is_run(written: Written) -> bool:
    return not any(re.search(pattern, written.command) for pattern in NOT_RUN)


def test_commands_are_found_in_every_kind_of_place() -> None:
    places = [written.place for written in WRITTEN]
    assert len(places) > 60
    for kind in ("README.md", "docs/training.md", "docs/gallery.md", "angles --help", ".ipynb", "examples/studies/"):
        assert any(kind in place for place in places), kind
    assert {written.arguments[0] for written in WRITTEN if written.place.endswith("--help")} == set(GROUP.commands)


@pytest.mark.parametrize("written", WRITTEN, ids=lambda written: f"{written.place}: {written.command}"[:100])
def test_the_command_line_accepts_it(written: Written) -> None:
    name, *arguments = written.arguments
    with GROUP.context_class(GROUP, info_name="layerangles") as context:
        command = GROUP.get_command(context, name)
        assert command is not None, name
        command.make_context(name, list(arguments), parent=context)  # raises for an option that is not there
    for study in (word for word in arguments if word.startswith("examples/")):
        assert (ROOT / study).exists(), study


def test_every_option_named_in_prose_exists() -> None:
    known = {flag for command in GROUP.commands.values() for parameter in command.params for flag in parameter.opts}
    known |= {flag for command in GROUP.commands.values() for p in command.params for flag in p.secondary_opts}
    known |= OF_OTHERS | {"--help", "--version"}
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        text = page.read_text(encoding="utf-8")
        named = set(re.findall(r"(?<![\w-])--[a-z][\w-]+", " ".join(re.findall(r"`[^`\n]+`", text))))
        assert named - known == set(), page.name


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the example study is a toy, and that has what the commands read besides."""
    monkeypatch.chdir(tmp_path)
    base = write_model(tmp_path / "base", toy_bert(layers=4, seed=0))
    study = toy_study(
        tmp_path / "unused", write_task(tmp_path / "data"), base, strategies=["none", "forward", "reverse"]
    )
    content = study.model_dump(mode="json", exclude={"output"}) | {"name": "movie-reviews"}
    (tmp_path / STUDY).parent.mkdir(parents=True)
    (tmp_path / STUDY).write_text(yaml.safe_dump(content), encoding="utf-8")
    return tmp_path


def _run(cli: Cli, written: Written, *more: str) -> None:
    found: list[str] = []
    for word in written.arguments:
        found += sorted(map(str, Path().glob(word))) if "*" in word else [word]
    done = cli(*found, *more)
    assert done.code == 0, f"{written.command}\n{done.err}"


def test_the_commands_of_readme_run_in_their_order(cli: Cli, toys: Path) -> None:
    run = [written for written in WRITTEN if written.place == "README.md" and _is_run(written)]
    assert [written.arguments[0] for written in run] == ["train", "angles", "draw", "verdict"]
    for written in run:
        _run(cli, written)
    assert (toys / "runs/movie-reviews/angles/angles.nc").is_file()
    assert (toys / "heatmap.pdf").stat().st_size > 1_000


def test_the_commands_of_other_places_run(cli: Cli, toys: Path, study: ToyStudy) -> None:
    others = [written for written in WRITTEN if written.place != "README.md" and _is_run(written)]
    order = ("env", "plan", "train", "angles", "merge", "draw", "verdict", "report")
    assert set(order) == {written.arguments[0] for written in others}
    trained = False
    for written in sorted(others, key=lambda written: order.index(written.arguments[0])):
        if written.arguments[0] == "train":
            _run(cli, written, *(["--overwrite"] if trained else []), "--set", "training.max_steps=8")
            trained = True
        else:
            _run(cli, written, *(["--overwrite"] if written.arguments[0] not in ("env", "plan") else []))


def test_the_python_of_readme_and_the_first_page_runs(toys: Path) -> None:
    for page in ("README.md", "docs/index.md", "docs/measuring.md"):
        blocks = re.findall(
            r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
        )
        assert blocks, page
        for block in blocks:
            exec(compile(block, page, "exec"), {"__name__": "page"})  # noqa: S102
    assert (toys / "mine.nc").is_file()
