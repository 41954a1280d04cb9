"""The documentation site: its pages, its hooks, and the docstrings that it shows. CI builds the site itself."""

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import griffe
import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
MADE = {"choices.md", "commands.md", "study-file.md", "studies.md"}
PUBLIC = ("layerangles", "layerangles.figures", "layerangles.equivalence", "kd_train", "kd_train.data.embedded")

sys.path.insert(0, str(DOCS / "hooks"))  # as mkdocs does it
check, choices, pages, reference, roles = (
    importlib.import_module(name) for name in ("check", "choices", "pages", "reference", "roles")
)


def settings() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


def leaves(nav: Any) -> list[str]:
    match nav:
        case list():
            return [page for entry in nav for page in leaves(entry)]
        case dict():
            return [page for entry in nav.values() for page in leaves(entry)]
    return [str(nav)]


def shown() -> list[str]:
    """The names of the objects that the Python pages show."""
    return [n for page in (DOCS / "api").glob("*.md") for n in re.findall(r"^::: ([\w.]+)$", page.read_text(), re.M)]


@pytest.fixture(scope="module")
def packages() -> Any:
    """Both packages as griffe reads them, without importing them, with unchanged docstrings."""
    loader = griffe.GriffeLoader(search_paths=[ROOT], docstring_parser="google")
    for name in ("layerangles", "kd_train"):
        loader.load(name)
    loader.resolve_aliases()
    return loader.modules_collection


def objects(obj: griffe.Object) -> list[griffe.Object]:
    inner = [member for member in obj.members.values() if isinstance(member, griffe.Object)]
    return [obj, *(below for member in inner for below in objects(member))]


def found(packages: Any, name: str) -> Any:
    try:
        return packages[name]
    except KeyError:
        return None


# ---- pages ---------------------------------------------------------------------------------------------------------


def test_the_navigation_has_every_page_once():
    listed = leaves(settings()["nav"])
    notebooks = {f"notebooks/{path.name}" for path in (ROOT / "examples" / "notebooks").glob("*.ipynb")}
    written = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert len(notebooks) == 4
    assert sorted(listed) == sorted(notebooks | written | MADE)


def test_notebooks_and_generated_pages_are_added_to_the_site():
    from mkdocs.config import load_config
    from mkdocs.structure.files import Files

    config = load_config(str(ROOT / "mkdocs.yml"))
    files = config.plugins.on_files(Files([]), config=config)
    assert set(files.src_uris) > MADE
    notebook = files.src_uris["notebooks/01-first-angles.ipynb"]
    assert Path(notebook.abs_src_path) == ROOT / "examples" / "notebooks" / "01-first-angles.ipynb"
    assert not list(DOCS.rglob("*.ipynb"))
    assert config.theme["font"] is False  # or else it would be fetched from elsewhere


def test_links_out_of_docs_lead_to_pages_or_nowhere():
    text = (
        "[a](../examples/studies/sst2-bert.yaml), [b](../examples/notebooks/01-first-angles.ipynb), [c](../cli/draw.py)"
    )
    assert (
        pages.inside_links(text) == "[a](studies.md#sst2-bert), [b](notebooks/01-first-angles.ipynb), c (`cli/draw.py`)"
    )
    assert pages.inside_links("[a](../../examples/studies/x.yaml)", "../") == "[a](../studies.md#x)"
    assert pages.inside_links("[a](../verdict.md)", "../") == "[a](../verdict.md)"
    assert pages.inside_links("![a](../images/x.png)") == "![a](../images/x.png)"


def test_a_notebook_keeps_its_content_without_styles_of_jupyterlab():
    head = '<script src="https://elsewhere/mathjax.js"></script><style>everything</style>'
    body = (
        '<div class="jupyter-wrapper"><div class="highlight-ipynb hl-python">code</div>'
        '<div class="clipboard-copy-txt" id="cell-1">code again</div>'
        '<div class="jp-RenderedSVG jp-OutputArea-output " data-mime-type="image/svg+xml"><svg/></div>'
        '<a href="02-next.ipynb">next</a><style>of an output</style></div>'
    )
    assert pages.plain_notebook(head + body) == (
        '<div class="jupyter-wrapper"><div class="highlight hl-python">code</div>'
        '<div class="jp-RenderedSVG jp-OutputArea-output " data-search-exclude data-mime-type="image/svg+xml">'
        "<svg/></div>"
        '<a href="02-next.html">next</a><style>of an output</style></div>'
    )


def test_a_comparison_is_drawn_by_the_plotly_of_the_site():
    page = SimpleNamespace(file=SimpleNamespace(src_uri="notebooks/02-compare-checkpoints.ipynb"))
    plain = '<div class="jupyter-wrapper">{}</div>'
    comparison = '<div class="layerangles-compare"></div>'
    shown = pages.on_page_content(plain.format(comparison), page=page, config=None, files=None)
    assert shown == '<script src="../plotly.min.js"></script>' + plain.format(comparison)
    assert pages.on_page_content(plain.format(""), page=page, config=None, files=None) == plain.format("")


def test_problems_of_a_built_site_are_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<h2 id="here">A</h2><a href="#here">1</a><a href="b.html#there">2</a><a href="https://elsewhere/">3</a>'
        '<a href="b.html#nowhere">4</a><a href="none.html">5</a><img src="https://elsewhere/x.png">'
        "<p>:func:`x`</p><pre>:class:`y`</pre>"
    )
    (tmp_path / "b.html").write_text('<p id="there">B</p><link rel="stylesheet" href="//elsewhere/x.css">')
    assert list(check.problems(tmp_path)) == [
        "a.html: the link b.html#nowhere leads to no anchor",
        "a.html: the link none.html leads to no file",
        "a.html: https://elsewhere/x.png would be fetched from another host",
        "a.html: :func: is shown as written in the docstring",
        "b.html: //elsewhere/x.css would be fetched from another host",
    ]


# ---- pages generated from the code ----------------------------------------------------------------------------


def test_the_commands_page_has_every_command_and_option():
    from layerangles_cli.main import app
    from typer.main import get_command

    text = reference.commands_page()
    for name, command in get_command(app).commands.items():
        section = re.split(r"^## ", text.split(f"\n## {name} {{#{name}}}\n")[1], flags=re.MULTILINE)[0]
        flags = [max(parameter.opts, key=len) for parameter in command.params if parameter.name != "help"]
        assert [flag for flag in flags if flag not in section] == []
        assert f"layerangles {name}" in section
    assert "| `--split <str>` | Which split of the study's data. | `dev` |" in text


def test_the_study_page_has_every_key_with_its_meaning():
    from kd_train.study.study_file import Study

    text = reference.study_page()
    keys = [name for model in reference.models_below(Study) for name in model.model_fields]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \| (.*) \|$", text, re.MULTILINE)
    assert [key for key, *_ in rows] == keys
    assert [row for row in rows if not all(cell.strip() for cell in row)] == []
    assert ("seeds", "list of whole numbers from 0", "`[0]`") in [row[:3] for row in rows]
    assert ("temperature", "number above 0", "`1.0`") in [row[:3] for row in rows]
    pairs = next(row for row in rows if row[0] == "pairs")
    assert pairs[1].startswith("list of [whole number, whole number] or mapping of `encoder`, `decoder` to list")
    minimal = yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1])
    assert Study.model_validate(minimal).student.layers == 3


def test_the_studies_page_has_every_example():
    folder = ROOT / "examples" / "studies"
    text = reference.studies_page(folder)
    assert all(f"{{#{file.stem}}}" in text and file.read_text().strip() in text for file in folder.glob("*.yaml"))


# ---- docstrings ----------------------------------------------------------------------------------------------------


def test_roles_become_links_to_full_names(packages):
    result = packages["layerangles.results.angle_result.AngleResult"]
    assert roles.as_markdown("What :meth:`save` wrote.", result["load"]) == (
        'What <autoref identifier="layerangles.results.angle_result.AngleResult.save" optional>'
        "<code>save</code></autoref> wrote."
    )
    assert roles.full_name("InputError", result) == "layerangles.errors.InputError"
    assert roles.full_name(
        "AngleResult.merge_shards", packages["layerangles.measurement.measure_angles.measure_angles"]
    ) == ("layerangles.results.angle_result.AngleResult.merge_shards")
    assert roles.full_name("layerangles.figures.heatmap", result) == "layerangles.figures.heatmap.heatmap"
    assert roles.full_name("layerangles.geometry.nulls", result) == "layerangles.geometry.nulls"
    assert roles.as_markdown("One.\n\nExample:\n    >>> 1\n", result) == "One.\n\nExamples:\n    >>> 1\n"


def test_every_role_names_something_that_exists(packages):
    named = [
        (obj.path, roles.full_name(role["target"], obj))
        for package in ("layerangles", "kd_train")
        for obj in objects(packages[package])
        if obj.docstring is not None
        for role in roles._ROLE.finditer(obj.docstring.value)
    ]
    assert len(named) > 80
    assert [(where, target) for where, target in named if found(packages, target) is None] == []


def test_every_public_object_is_documented(packages):
    names = shown()
    assert sorted(set(names)) == sorted(names)
    assert [name for name in names if found(packages, name) is None] == []
    covered = {packages[name].canonical_path for name in names}
    for package in map(importlib.import_module, PUBLIC):
        for name in package.__all__:
            thing = getattr(package, name)
            module = getattr(thing, "__module__", "builtins")
            if isinstance(thing, ModuleType):
                assert thing.__name__ in PUBLIC
            elif module.partition(".")[0] in ("layerangles", "kd_train"):
                assert {f"{module}.{thing.__qualname__}", module} & covered, name
            elif name != "__version__":  # an alias or a constant, which does not know where it comes from
                assert packages[f"{package.__name__}.{name}"].canonical_path in covered, name


def test_docstrings_describe_every_parameter(packages):
    """Args, Returns and Raises are read as such, and Args have every parameter."""
    documented = [
        below
        for name in shown()
        for below in objects(packages[name].final_target if packages[name].is_alias else packages[name])
    ]
    seen = 0
    for obj in documented:
        if obj.docstring is None or (obj.name.startswith("_") and obj.name != "__init__"):
            continue
        sections = obj.docstring.parse("google", warnings=False)
        plain = "\n".join(s.value for s in sections if s.kind is griffe.DocstringSectionKind.text)
        assert not re.search(
            r"^\s*(Args|Arguments|Attributes|Parameters|Raises|Returns|Yields):", plain, re.MULTILINE
        ), obj.path
        for section in sections:
            if section.kind is griffe.DocstringSectionKind.parameters and obj.is_function:
                seen += 1
                theirs = [p.name for p in obj.parameters if p.name not in ("self", "cls")]
                assert [p.name.lstrip("*") for p in section.value] == theirs, obj.path
    assert seen > 40
