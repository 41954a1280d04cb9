"""``layerangles compare``: refusals, host names, texts, and its end."""

import http.client
import importlib.util
import json
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dash import Dash
from toys.command_line import Cli, refused
from toys.models import write_student
from toys.studies import ToyStudy

from layerangles import AngleResult, InputError
from layerangles.app import server
from layerangles.app.catalogue import Catalogue
from layerangles.app.measuring import MeasuringPlan

RESULTS = Path(__file__).parents[2] / "examples" / "results" / "movie-reviews"


class Served:
    """What would be served, and the addresses that a browser was sent to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at: list[tuple[str, int]] = []
        self.opened: list[str] = []
        self.catalogue: Any = None
        self.plan: Any = None
        self.app: Any = None
        create = server.create_app

        def create_app(catalogue: Catalogue, plan: MeasuringPlan, **settings: Any) -> Dash:
            self.catalogue, self.plan, self.app = catalogue, plan, create(catalogue, plan, **settings)
            return self.app  # type: ignore[no-any-return]

        monkeypatch.setattr(server, "create_app", create_app)
        monkeypatch.setattr(server, "serve", lambda _app, host, port: self.at.append((host, port)))
        monkeypatch.setattr(webbrowser, "open", self.opened.append)

    def answers(self, *hosts: str) -> list[int]:
        client = self.app.server.test_client()
        return [client.get("/", headers={"Host": host}).status_code for host in hosts]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Served:
    return Served(monkeypatch)


# What is refused


@pytest.mark.parametrize("what", ["nowhere", "nowhere.nc", "empty", "teacher", "students"])
def test_what_cannot_be_compared(cli: Cli, served: Served, study: ToyStudy, tmp_path: Path, what: str) -> None:
    (tmp_path / "empty").mkdir()
    path = {"teacher": study.teacher, "students": study.root / "students"}.get(what, Path(what))
    refused(
        cli("compare", study.identity, path, "--port", "0"),
        f"{path} is nothing that can be compared. Give a study's directory (with study.resolved.yaml), a student's ",
        "(with matching.json), or a result file that `layerangles angles` wrote.",
    )
    assert served.app is None


def test_files_of_another_kind_are_refused(cli: Cli, served: Served, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no result")
    refused(cli("compare", "notes.txt", "--port", "0"), "notes.txt is damaged, or no netCDF file")


def test_a_study_without_students_is_refused(cli: Cli, served: Served, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    shutil.copy(RESULTS / "study.resolved.yaml", tmp_path / "run")
    refused(
        cli("compare", "run", "--port", "0"),
        "there is no student to compare in movie-reviews-verdict.",
        "a study must have a finished student or stored angles",
    )


def test_missing_paths_and_bad_options_are_refused(cli: Cli, served: Served, study: ToyStudy) -> None:
    for arguments in ((), (study.identity, "--texts", "1"), (study.identity, "--port", "70000")):
        outcome = cli("compare", *arguments)
        assert (outcome.code, outcome.out) == (2, "")
        assert "Traceback" not in outcome.err
    assert served.at == []


def test_a_port_in_use_is_refused(cli: Cli, served: Served, study: ToyStudy) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        refused(
            cli("compare", study.identity, "--port", port),
            f"nothing can be served at 127.0.0.1:{port} (Address already in use",
            "Choose another --port (0 takes a free one), or another --host.",
        )
    assert cli("compare", study.identity, "--port", port).code == 0


def test_a_foreign_address_is_refused(cli: Cli, served: Served, study: ToyStudy) -> None:
    refused(
        cli("compare", study.identity, "--host", "203.0.113.9", "--port", "0"), "203.0.113.9:0", "or another --host."
    )


@pytest.mark.parametrize(
    ("absent", "named"),
    [
        (("dash",), "dash, which is"),
        (("waitress",), "waitress, which is"),
        (("dash", "waitress"), "dash and waitress, which are"),
    ],
)
def test_a_missing_extra_says_what_to_install(
    cli: Cli, served: Served, study: ToyStudy, monkeypatch: pytest.MonkeyPatch, absent: tuple[str, ...], named: str
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr("layerangles.extras.find_spec", lambda name: None if name in absent else found(name))
    refused(
        cli("compare", study.identity, "--port", "0"),
        f"the app needs {named} not installed. Install the extra 'app': pip install 'layerangles[app]'.",
    )


# What is served


def test_the_default_is_loopback_and_an_open_browser(cli: Cli, served: Served, study: ToyStudy) -> None:
    outcome = cli("compare", study.identity, study.deeper, "--port", "0")
    assert outcome.code == 0
    ((host, port),) = served.at
    assert host == "127.0.0.1"
    assert port > 0
    assert served.opened == [f"http://127.0.0.1:{port}/"]
    assert outcome.out == f"2 students at http://127.0.0.1:{port}/ (Ctrl-C ends it)\n"
    assert served.answers("127.0.0.1", "localhost", "[::1]", "192.168.0.7", "gpu-box") == [200, 200, 200, 403, 403]
    assert served.plan == MeasuringPlan(n_texts=200, max_length=128, device="auto", trust_remote_code=False)


def test_a_given_host_name_is_accepted(cli: Cli, served: Served, study: ToyStudy) -> None:
    outcome = cli("compare", study.identity, "--host", "127.0.0.2", "--port", "0", "--no-browser")
    assert outcome.code == 0
    ((host, port),) = served.at
    assert host == "127.0.0.2"
    assert served.opened == []
    assert served.answers("127.0.0.2", f"127.0.0.2:{port}", "127.0.0.3") == [200, 200, 403]


def test_settings_reach_the_measuring(cli: Cli, served: Served, study: ToyStudy) -> None:
    options = ("--texts", 7, "--max-length", 9, "--device", "cpu", "--trust-remote-code", "--port", 0, "--no-browser")
    assert cli("compare", study.identity, *options).code == 0
    assert served.plan == MeasuringPlan(n_texts=7, max_length=9, device="cpu", trust_remote_code=True)


def test_studies_students_and_files_are_compared_together(
    cli: Cli, served: Served, study: ToyStudy, result: AngleResult, tmp_path: Path
) -> None:
    file = AngleResult(result.dataset.sel(student=["deeper"])).save(tmp_path / "angles.nc")
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(RESULTS / "study.resolved.yaml", run)
    inside = write_student(run / "students" / "forward-seed0", study.teacher)
    paths = (study.identity, run, file, inside, study.learned, study.identity)
    assert cli("compare", *paths, "--port", "0", "--no-browser").code == 0
    entries = served.catalogue.read().entries
    assert {key: entry.source.name for key, entry in entries.items()} == {
        "movie-reviews-verdict: forward-seed0": "movie-reviews-verdict",
        "deeper": "angles.nc",
        "identity": "2 students",
        "learned": "2 students",
        "forward-seed0: forward-seed0": "forward-seed0",
    }


def test_texts_come_from_the_students_study_or_the_file(
    cli: Cli, served: Served, study: ToyStudy, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(RESULTS / "study.resolved.yaml", run)
    inside = write_student(run / "students" / "mine", study.teacher)
    (tmp_path / "texts.txt").write_text("a b\nc d\n")

    def texts_of(name: str, *options: str) -> Any:
        assert cli("compare", inside, study.identity, *options, "--port", "0", "--no-browser").code == 0
        return served.catalogue.read().entries[name].source.texts()

    assert len(texts_of("mine")) == 300  # the dev split of the study
    with pytest.raises(InputError, match=r"this student belongs to no study\. Name a file of texts with --data\."):
        texts_of("identity")
    assert list(texts_of("mine", "--data", "texts.txt")) == ["a b", "c d"]
    assert list(texts_of("identity", "--data", "texts.txt")) == ["a b", "c d"]


# The process


@pytest.fixture(scope="module")
def process(study: ToyStudy, tmp_path_factory: pytest.TempPathFactory) -> Iterator["subprocess.Popen[str]"]:
    """The app on its own, with texts enough to measure on for minutes."""
    folder = tmp_path_factory.mktemp("process")
    student = write_student(folder / "students" / "mine", study.teacher)
    (folder / "texts.txt").write_text("\n".join(study.texts * 800))
    command = [str(Path(sys.executable).with_name("layerangles")), "compare", str(student)]
    with subprocess.Popen(
        [*command, "--data", str(folder / "texts.txt"), "--texts", "100000", "--port", "0", "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


def ask(port: int, path: str = "/", address: str = "127.0.0.1", body: Any = None, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address, port, timeout=30)
    try:
        sent = None if body is None else json.dumps(body)
        connection.request(
            "GET" if body is None else "POST", path, sent, {"Content-Type": "application/json"} | headers
        )
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def press_measure(port: int) -> None:
    """What a browser sends when the button is pressed."""
    body = {
        "output": "wanted.data",
        "outputs": {"id": "wanted", "property": "data"},
        "inputs": [{"id": "measure", "property": "n_clicks", "value": 1}],
        "state": [{"id": "query", "property": "data", "value": "?"}],
        "changedPropIds": ["measure.n_clicks"],
    }
    assert ask(port, "/_dash-update-component", body=body)[0] == 200


def test_a_started_app_answers_and_ends_quietly_during_a_measurement(
    process: "subprocess.Popen[str]",
) -> None:
    assert process.stdout is not None
    assert process.stderr is not None
    assert select.select([process.stdout], [], [], 60)[0]
    line = process.stdout.readline()
    found = re.fullmatch(r"1 students at http://127\.0\.0\.1:(\d+)/ \(Ctrl-C ends it\)\n", line)
    assert found is not None, line + process.stderr.read()
    port = int(found[1])
    end = time.monotonic() + 30
    while True:
        try:
            status, page = ask(port)
            break
        except ConnectionRefusedError:
            assert time.monotonic() < end
            time.sleep(0.05)
    assert status == 200
    assert b"layerangles compare" in page
    assert ask(port, Host="evil.example")[0] == 403
    with pytest.raises(ConnectionRefusedError):
        ask(port, address="127.0.0.2")  # it listens nowhere else
    press_measure(port)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")
