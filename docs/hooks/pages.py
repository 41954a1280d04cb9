"""Hooks of mkdocs: generated pages, the notebooks of examples/, links that leave docs/, checks of the built site."""

import logging
import re
from pathlib import Path

import check  # beside this file, which mkdocs puts on the path while it loads it
import choices
import reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from plotly.offline import get_plotlyjs

TUTORIALS = "notebooks"
STUDIES_PAGE = "studies.md"
PLOTLY = "plotly.min.js"

# A warning of this logger ends a strict build.
_log = logging.getLogger("mkdocs.plugins.layerangles")


# Before mkdocs-jupyter's own, which takes what is a notebook by then.
@event_priority(100)
def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the notebooks from examples/, and the pages generated from the code."""
    root = Path(config.config_file_path).parent
    for notebook in sorted((root / "examples" / "notebooks").glob("*.ipynb")):
        # As if examples/ were a second docs/: mkdocs-jupyter needs the directory and ignores an explicit path.
        file = File(f"{TUTORIALS}/{notebook.name}", str(root / "examples"), config.site_dir, config.use_directory_urls)
        files.append(file)
    files.append(File.generated(config, "commands.md", content=reference.commands_page()))
    files.append(File.generated(config, "choices.md", content=choices.choices_page()))
    files.append(File.generated(config, "study-file.md", content=reference.study_page()))
    files.append(File.generated(config, STUDIES_PAGE, content=reference.studies_page(root / "examples" / "studies")))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Insert the tables generated from the code, and turn links to files of the repository into links of the site.

    Where no page shows a file, its path replaces the link.
    """
    if page.file.src_uri == "formats.md":
        markdown = markdown.replace("<!-- variables -->", reference.variables_tables())
    return inside_links(markdown, "../" * page.file.src_uri.count("/"))


def inside_links(markdown: str, up: str = "") -> str:
    """Turn a page's links out of docs/ into links within the site.

    Args:
        markdown: the page.
        up: the relative path from the page's folder to the site's, such as ``"../"``.
    """

    def replaced(link: re.Match[str]) -> str:
        text, path = link["text"], link["path"]
        if study := re.fullmatch(r"examples/studies/([\w-]+)\.yaml", path):
            return f"[{text}]({up}{STUDIES_PAGE}#{study[1]})"
        if notebook := re.fullmatch(r"examples/notebooks/([\w-]+\.ipynb)", path):
            return f"[{text}]({up}{TUTORIALS}/{notebook[1]})"
        return f"{text} (`{path}`)"

    return re.sub(rf"(?<!!)\[(?P<text>[^\]]*)\]\({re.escape(up)}\.\./(?P<path>[^)#]+)(?:#[^)]*)?\)", replaced, markdown)


def on_page_content(html: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Give a notebook the style of the site, and the site's plotly.js if it holds a comparison."""
    if not page.file.src_uri.endswith(".ipynb"):
        return html
    plotly = f'<script src="../{PLOTLY}"></script>' if 'class="layerangles-compare"' in html else ""
    return plotly + plain_notebook(html)


def plain_notebook(html: str) -> str:
    """The HTML of mkdocs-jupyter without JupyterLab's styles and scripts.

    These are 600 kB of styles per page that ignore the dark palette, and scripts from other hosts that the notebooks do
    not need, since figures are stored as SVG and formulas as text. Code takes the site's colours, drawings are left out
    of the search, and links to other notebooks lead to their pages.
    """
    html = html[html.index('<div class="jupyter-wrapper">') :]
    html = html.replace("highlight-ipynb", "highlight")
    html = re.sub(r'<div (?:id="[^"]*" )?class="clipboard-copy-txt"[^>]*>.*?</div>', "", html, flags=re.DOTALL)
    html = re.sub(r'<div class="zeroclipboard-container">.*?</clipboard-copy>\s*</div>', "", html, flags=re.DOTALL)
    html = re.sub(
        r'(<div class="[^"]*jp-Rendered(?:SVG|HTMLCommon jp-RenderedHTML)\b[^"]*")', r"\1 data-search-exclude", html
    )
    return re.sub(r'href="([\w-]+)\.ipynb"', r'href="\1.html"', html)


def on_post_build(*, config: MkDocsConfig) -> None:
    """Add plotly.js to the site, and check all pages for what mkdocs itself does not check."""
    (Path(config.site_dir) / PLOTLY).write_text(get_plotlyjs(), encoding="utf-8")
    for problem in check.problems(Path(config.site_dir)):
        _log.warning(problem)
