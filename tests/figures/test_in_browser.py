"""Written pages opened from disk in a real browser, and static images made by one."""

import struct

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.support.ui import WebDriverWait
from toys.chromium import complaints, needs_browser, opened, requests
from toys.results import NAME, make_result

from layerangles.figures import comparison, heatmap, histogram, write_html, write_image
from layerangles.report.html_page import Section, write_page

pytestmark = needs_browser


def test_heat_map_is_drawn_from_disk_without_a_network(browser, tmp_path):
    opened(browser, write_html(heatmap(make_result((NAME,))), tmp_path / "map.html"), 1)
    assert browser.execute_script("return document.querySelectorAll('.js-plotly-plot .plot-container').length") == 1
    assert browser.execute_script("return document.querySelectorAll('.heatmaplayer .hm').length") == 3
    cells = browser.execute_script(
        "return [...document.querySelectorAll('.heatmaplayer image')].map(image => image.href.baseVal)"
    )
    assert len(cells) == 3
    assert all(cell.startswith("data:image/png") and len(cell) > 200 for cell in cells)
    values = browser.execute_script(
        "return [...document.querySelectorAll('.scatterlayer .textpoint')].map(t => t.textContent)"
    )
    assert len(values) == 3 * 12  # 4 × 4 cells without the diagonal
    assert f"{make_result().dataset['angle_deg'].values[0, 0, 0, 0, 1]:.1f}" in values
    assert browser.execute_script("return document.querySelectorAll('.scatterlayer .point').length") == 2
    assert browser.execute_script("return document.querySelector('.gtitle').textContent").endswith(NAME)
    assert complaints(browser) == []
    assert requests(browser) == []


def test_hovering_a_cell_and_a_blank_one(browser, tmp_path):
    opened(browser, write_html(heatmap(make_result((NAME,))), tmp_path / "map.html"), 1)
    panel = browser.find_elements("css selector", ".draglayer .nsewdrag")[1]
    cell = panel.size["width"] / 4

    def hover(layer_b: int, layer_a: int) -> str:
        x, y = (layer_b - 1.5) * cell, (1.5 - layer_a) * cell
        ActionChains(browser).move_to_element_with_offset(panel, round(x), round(y)).perform()
        text = "return [...document.querySelectorAll('.hoverlayer .hovertext')].map(t => t.textContent).join()"
        named = "no angle" if layer_a == layer_b else f"layers {layer_a} and {layer_b}"
        WebDriverWait(browser, 10).until(lambda b: named in b.execute_script(text))
        return str(browser.execute_script(text))

    shown = hover(3, 1)
    assert f"{NAME}, layer 1matched to teacher layer 2 in training" in shown
    assert "teacher layers 1 and 3mean angle" in shown
    assert "no angle with itself" in hover(2, 2)  # under the mark of the matched layer


def test_no_button_sends_the_data_away(browser, tmp_path):
    opened(browser, write_html(comparison(make_result(("a", "b"))), tmp_path / "map.html"), 1)
    buttons = browser.execute_script("return [...document.querySelectorAll('.modebar-btn')].map(b => b.dataset.title)")
    assert "Zoom" in buttons
    assert not [button for button in buttons if "loud" in button or "hare" in button]


@pytest.mark.parametrize("width", [1300, 400])
def test_page_is_drawn_and_never_wider_than_its_window(browser, tmp_path, width):
    result = make_result(("a", "b"))
    sections = [
        Section("Angles", ["Some words.", result.summary(), heatmap(result, "a"), comparison(result)]),
        Section("Cosines", [histogram(result, "b")]),
    ]
    opened(browser, write_page(tmp_path / "page.html", "A <title>", sections), 3, width)
    assert browser.execute_script("return document.querySelectorAll('.js-plotly-plot').length") == 3
    assert browser.execute_script("return document.querySelectorAll('.heatmaplayer .hm').length") == 9
    assert browser.execute_script("return document.querySelectorAll('.scatterlayer .js-line').length") == 3
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert complaints(browser) == []
    assert requests(browser) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_contrasts_with_the_page_in_light_and_dark(browser, tmp_path, scheme):
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    opened(browser, write_page(tmp_path / "page.html", "t", [Section("A", ["text", heatmap(make_result())])]), 1)
    styles = browser.execute_script(
        "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor,"
        " getComputedStyle(document.querySelector('figure')).backgroundColor]"
    )
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    ink, ground, figure = [sum(int(part) for part in text.strip("rgba()").split(",")[:3]) for text in styles]
    assert (ink > 500 > 200 > ground) if scheme == "dark" else (ink < 200 < 500 < ground)
    assert figure == 3 * 255


def test_static_images_are_what_they_say(tmp_path):
    figure = heatmap(make_result())
    png = write_image(figure, tmp_path / "map.png").read_bytes()
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", png[16:24]) == (2 * figure.layout.width, 2 * figure.layout.height)
    assert len(png) > 20_000
    svg = write_image(figure, tmp_path / "map.svg", width=500).read_text(encoding="utf-8")
    assert svg.startswith("<svg")
    assert 'width="500"' in svg
    assert "student layer 1 (matched to teacher 2)" in svg
    pdf = write_image(figure, tmp_path / "map.pdf").read_bytes()
    assert pdf.startswith(b"%PDF-")
    assert len(pdf) > 8_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.pdf", "map.png", "map.svg"]
