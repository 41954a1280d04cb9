"""The site's search finds words in pages that are opened from disk."""

import shutil
from pathlib import Path

import pytest
import yaml
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from toys.chromium import needs_browser, started

ROOT = Path(__file__).parents[2]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site of two pages with the theme, the search and the scripts of ours."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    ours = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    kept = {key: ours[key] for key in ("site_name", "theme", "extra", "use_directory_urls")}
    plugins = [plugin for plugin in ours["plugins"] if plugin in ("search", "offline")]
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(kept | {"plugins": plugins}), encoding="utf-8")
    pages = tmp_path / "docs"
    shutil.copytree(ROOT / "docs" / "javascripts", pages / "javascripts")
    (pages / "index.md").write_text("# Home\n\nNothing is here.\n", encoding="utf-8")
    (pages / "api").mkdir()
    (pages / "api" / "other.md").write_text("# Other\n\nA pterodactyl is here.\n", encoding="utf-8")
    build(load_config(str(tmp_path / "mkdocs.yml")))
    return tmp_path / "site"


@needs_browser
@pytest.mark.parametrize("page", ["index.html", "api/other.html"])
def test_a_word_is_found_from_disk(site: Path, page: str) -> None:
    with started() as browser:
        browser.get((site / page).as_uri())
        box = browser.find_element(By.CSS_SELECTOR, "input.md-search__input")
        box.click()
        box.send_keys("pterodactyl")
        links = WebDriverWait(browser, 20).until(lambda b: b.find_elements(By.CSS_SELECTOR, ".md-search-result__link"))
        assert "api/other.html" in str(links[0].get_attribute("href"))
