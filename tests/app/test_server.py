"""The app's server: which requests it answers, and what it serves."""

import re

import pytest
from toys.app_browser import PLAN, Browser, texts_in

from layerangles.app.catalogue import Catalogue
from layerangles.app.server import create_app


@pytest.mark.parametrize("host", ["localhost", "localhost:8050", "127.0.0.1:1", "127.0.0.1", "[::1]:8050", "[::1]"])
def test_loopback_host_names_are_accepted(browser: Browser, host: str) -> None:
    assert browser.get("/", Host=host).status_code == 200
    assert browser.get("/", Host=host, Origin=f"http://{host}").status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8050", "localhost.evil.example", "127.0.0.1.nip.io:8050", "127.0.0.2"),
        *("0.0.0.1:8050", "192.168.0.7:8050", "[::2]:8050", "::1", "localhost:8050.evil.example"),
    ],
)
def test_foreign_host_names_are_refused_for_every_path(browser: Browser, host: str) -> None:
    for path in ("/", "/_dash-layout", "/_dash-dependencies", "/assets/compare.css"):
        answer = browser.get(path, Host=host, **{"X-Forwarded-Host": "localhost"})
        assert answer.status_code == 403
        assert "is not one that this app answers to" in answer.text
    answer = browser.post(browser.request("maps.figure"), Host=host)
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://localhost", "http://localhost:8051", "http://127.0.0.1:8050", "null", ""]
)
def test_requests_of_foreign_pages_are_refused(browser: Browser, origin: str) -> None:
    body = browser.request("maps.figure")
    answer = browser.post(body, Origin=origin)
    assert answer.status_code == 403
    assert "The request comes from another page" in answer.text
    assert browser.post(body, Origin="http://localhost:8050").status_code == 200


def test_the_host_name_given_is_accepted(catalogue: Catalogue) -> None:
    client = create_app(catalogue, PLAN, hosts=("localhost", "gpu-box")).server.test_client()
    status = {
        host: client.get("/", headers={"Host": host}).status_code
        for host in ("gpu-box", "gpu-box:8050", "localhost", "127.0.0.1", "other-box")
    }
    assert status == {"gpu-box": 200, "gpu-box:8050": 200, "localhost": 200, "127.0.0.1": 403, "other-box": 403}


def test_every_answer_has_a_policy_against_other_hosts(browser: Browser) -> None:
    for answer in (
        browser.get("/"),
        browser.get("/_dash-layout"),
        browser.get("/assets/compare.css"),
        browser.get("/", Host="evil.example"),
        browser.post(browser.request("maps.figure")),
    ):
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == policy["connect-src"] == "'self'"
        assert policy["base-uri"] == policy["form-action"] == "'none'"
        assert not [source for source in policy["script-src"].split() if "*" in source or "http" in source]
        assert set(policy["frame-ancestors"].split()) == {"'self'", "http://localhost:*", "http://127.0.0.1:*"}
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"


# What is served


def test_the_page_is_served_and_loads_nothing_from_elsewhere(browser: Browser) -> None:
    page = browser.get("/").text
    assert "<title>layerangles compare</title>" in page
    loaded = re.findall(r"""(?:src|href)=["']([^"']+)["']""", page)
    assert len(loaded) > 3
    assert [address for address in loaded if not address.startswith("/")] == []
    (style,) = (address for address in loaded if "compare.css" in address)
    assert "text/css" in browser.get(style).headers["Content-Type"]
    assert "study, course, 2 students" in " ".join(texts_in(browser.get("/_dash-layout").json))


def test_every_element_of_a_callback_exists(browser: Browser) -> None:
    there = {element for element, _ in browser.known}
    for callback in browser.get("/_dash-dependencies").json:
        outputs = callback["output"].strip(".").split("...")
        named = [*(name.rsplit(".", 1)[0] for name in outputs), *(i["id"] for i in callback["inputs"])]
        assert set(named) | {state["id"] for state in callback["state"]} <= there


@pytest.mark.parametrize(
    "path",
    [
        "/assets/../server.py",
        "/assets/..%2fserver.py",
        "/assets/%2e%2e/%2e%2e/result.py",
        "/assets//etc/passwd",
        "/etc/passwd",
        "/_dash-component-suites/dash/../../etc/passwd",
    ],
)
def test_only_the_apps_own_files_are_served(browser: Browser, path: str) -> None:
    answer = browser.get(path)
    assert "root:" not in answer.text
    assert "import" not in answer.text.splitlines()[0]
    # Whatever is no file of the app is the page itself, which reads nothing but the query.
    assert answer.status_code in (404, 500) or "<title>layerangles compare</title>" in answer.text
