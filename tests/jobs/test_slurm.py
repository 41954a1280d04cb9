"""Jobs on Slurm, played by scripts, and on a real Slurm."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from layerangles_cli.main import run
from toys.jobs import Trained, a_study, claimed, play, states, trained
from toys.trained_studies import assert_same_study

from kd_train.jobs.job_options import JobOptions
from kd_train.jobs.submission import submit
from kd_train.training.train_study import train_study
from layerangles import InputError
from layerangles.errors import RunError

SLURM_SCRIPTS = Path(__file__).parent / "slurm"


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that train nothing."""
    play(monkeypatch)


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.mktemp("cluster"))


# ---- played by scripts --------------------------------------------------------------------------------------

FAKES = {
    "sbatch": """
        [ ! -f "$FAKE/refuse" ] || { cat "$FAKE/refuse" >&2; exit 1; }
        number=$(( $(ls "$FAKE" | grep -c '^script-') + 11 ))
        cp "$1" "$FAKE/script-$number"
        env > "$FAKE/environment-$number"
        echo "Submitted batch job $number"
    """,
    "squeue": """
        [ ! -f "$FAKE/down" ] || { cat "$FAKE/down" >&2; exit 1; }
        [ -f "$FAKE/queue" ] || { echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1; }
        cat "$FAKE/queue"
    """,
    "sacct": '[ ! -f "$FAKE/accounts" ] || cat "$FAKE/accounts"',
    "srun": "exit 1",
}


@dataclass(frozen=True)
class FakeSlurm:
    """The answers and records of scripts in place of Slurm."""

    folder: Path

    def says(self, **queue: str) -> None:
        """Set the answer of squeue, by job: ``job12="RUNNING|None"``."""
        lines = [f"{job.removeprefix('job')}|{state}\n" for job, state in queue.items()]
        (self.folder / "queue").write_text("".join(lines))

    @property
    def scripts(self) -> dict[int, list[str]]:
        """The scripts that sbatch received, by job."""
        files = sorted(self.folder.glob("script-*"))
        return {int(file.name.removeprefix("script-")): file.read_text().splitlines() for file in files}

    def flags(self, job: int) -> dict[str, str]:
        lines = [line.removeprefix("#SBATCH --") for line in self.scripts[job] if line.startswith("#SBATCH")]
        return {key: value for key, _, value in (line.partition("=") for line in lines)}


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stand_in: None) -> FakeSlurm:
    folder, tools = tmp_path / "fake", tmp_path / "bin"
    folder.mkdir()
    tools.mkdir()
    for name, script in FAKES.items():
        (tools / name).write_text("#!/bin/sh\n" + script)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(folder))
    return FakeSlurm(folder)


def test_slurm_gets_one_job_for_each_teacher_and_seed(
    slurm: FakeSlurm, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    more = {"qos": "low", "exclusive": True}
    options = JobOptions(cpus=4, gpus=1, minutes=90, memory_gb=1.5, partition="gpu", account="lab", slurm=more)
    studies = [a_study(tmp_path / "a", name="first"), a_study(tmp_path / "b", name="second", seeds=[7])]
    found = submit(studies, executor="slurm", options=options)
    assert [(s.name, s.state, s.job_id) for s in found] == [
        ("teacher", "submitted", "11"), ("teacher", "submitted", "12"),
        ("seed0", "submitted", "13"), ("seed1", "submitted", "14"), ("seed7", "submitted", "15"),
    ]  # fmt: skip
    logs = tmp_path / "a" / "jobs" / "logs" / "seed0-1"
    assert slurm.flags(13) == {
        "job-name": "first-seed0",
        "comment": "'first seed0'",
        "time": "90",
        "mem": "1536M",
        "nodes": "1",
        "cpus-per-task": "4",
        "gpus-per-node": "1",
        "partition": "gpu",
        "account": "lab",
        "qos": "low",
        "exclusive": "",
        "requeue": "",
        "dependency": "afterok:11",
        "kill-on-invalid-dep": "yes",
        "signal": "USR2@90",
        "open-mode": "append",
        "output": f"{logs}/%j_0_log.out",
    }
    assert [slurm.flags(job).get("dependency") for job in (11, 12, 14, 15)] == [None, None, "afterok:11", "afterok:12"]
    (started,) = [line for line in slurm.scripts[13] if line.startswith("srun")]
    assert "--cpus-per-task=4" in started
    assert started.endswith(f"{sys.executable} -u -m submitit.core._submit {logs}")
    assert found[2].log == logs / "13_0_log.out"
    assert json.loads((tmp_path / "a/jobs/seed0.json").read_text())["job"] == "13"
    assert capfd.readouterr() == ("", "")


def test_jobs_active_on_slurm_are_left_alone(slurm: FakeSlurm, tmp_path: Path) -> None:
    study = a_study(tmp_path / "study", seeds=[0, 1, 2])
    submit([study], executor="slurm")
    slurm.says(job11="RUNNING|None", job12="PENDING|Dependency", job13="COMPLETING|None", job14="PENDING|Priority")
    found = submit([study], executor="slurm")
    assert states(found) == [("teacher", "running"), ("seed0", "queued"), ("seed1", "running"), ("seed2", "queued")]
    assert len(slurm.scripts) == 4
    with pytest.raises(InputError, match=r"toy teacher is running and would lose its directory.*scancel 11"):
        submit([study], executor="slurm", overwrite=True)
    with pytest.raises(InputError, match=r"toy teacher is running and would be trained twice.*scancel 11"):
        submit([study], executor="local")


def test_failed_jobs_are_submitted_again(slurm: FakeSlurm, tmp_path: Path) -> None:
    study = a_study(tmp_path / "study")
    (log,) = [s.log for s in submit([study], executor="slurm") if s.name == "teacher"]
    assert log is not None
    log.write_text("step 1\nRuntimeError: out of luck\nsrun: error: node7: task 0: Exited with exit code 1\n\n")
    slurm.says(job11="FAILED|NonZeroExitCode", job12="PENDING|DependencyNeverSatisfied", job13="CANCELLED|Dependency")
    looked = submit([study], executor="slurm", dry_run=True)
    assert states(looked) == [("teacher", "failed"), ("seed0", "failed"), ("seed1", "failed")]
    assert [s.why for s in looked] == [
        "FAILED: RuntimeError: out of luck", "its teacher failed: no log", "CANCELLED: no log"
    ]  # fmt: skip
    found = submit([study], executor="slurm")
    assert [(s.state, s.job_id, s.why) for s in found] == [
        ("submitted", job, s.why) for job, s in zip(("14", "15", "16"), looked, strict=True)
    ]
    assert slurm.flags(16)["dependency"] == "afterok:14"


def test_finished_jobs_are_not_submitted(slurm: FakeSlurm, tmp_path: Path) -> None:
    study = a_study(tmp_path / "study")
    folder = claimed(study)
    (folder / "done-teacher").touch()
    (folder / "done-seed0").touch()
    found = submit([study], executor="slurm")
    assert states(found) == [("teacher", "done"), ("seed0", "done"), ("seed1", "submitted")]
    assert "dependency" not in slurm.flags(11)


def test_at_once_limits_the_parallel_jobs_on_slurm(slurm: FakeSlurm, tmp_path: Path) -> None:
    submit([a_study(tmp_path / "study", seeds=[0, 1, 2])], executor="slurm", options=JobOptions(at_once=2))
    named = [(slurm.flags(job)["job-name"], slurm.flags(job)["dependency"]) for job in slurm.scripts]
    assert named == [
        ("layerangles-lane0", "singleton"),
        ("layerangles-lane1", "afterok:11,singleton"),
        ("layerangles-lane0", "afterok:11,singleton"),
        ("layerangles-lane1", "afterok:11,singleton"),
    ]


def test_sacct_knows_jobs_that_squeue_forgot(slurm: FakeSlurm, tmp_path: Path) -> None:
    study = a_study(tmp_path / "study", seeds=[0])
    submit([study], executor="slurm")
    (slurm.folder / "accounts").write_text("11|CANCELLED by 1000\n12|RUNNING\n")
    assert [s.why for s in submit([study], executor="slurm", dry_run=True)] == ["CANCELLED: no log", "ended: no log"]


def test_nothing_is_submitted_if_slurm_does_not_answer(slurm: FakeSlurm, tmp_path: Path) -> None:
    study = a_study(tmp_path / "study")
    submit([study], executor="slurm")
    (slurm.folder / "down").write_text("slurm_load_jobs error: Unable to contact slurm controller")
    with pytest.raises(RunError, match=r"none is submitted: .*Unable to contact"):
        submit([study], executor="slurm")
    assert len(slurm.scripts) == 3


def test_a_refused_job_is_reported_and_those_queued_before_stay_on_record(slurm: FakeSlurm, tmp_path: Path) -> None:
    first, second = a_study(tmp_path / "a"), a_study(tmp_path / "b")
    submit([first], executor="slurm")
    (slurm.folder / "refuse").write_text("sbatch: error: invalid partition specified: gpus")
    with pytest.raises(InputError, match=r"refused the job of toy teacher: .*invalid partition specified: gpus"):
        submit([second], executor="slurm")
    assert not (second.folder / "jobs" / "teacher.json").exists()


def test_jobs_submitted_from_within_a_job_do_not_inherit_its_limits(
    slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "10")
    monkeypatch.setenv("SLURM_CONF", "/there")
    monkeypatch.setenv("SBATCH_ACCOUNT", "mine")
    submit([a_study(tmp_path / "study", seeds=[0])], executor="slurm")
    told = (slurm.folder / "environment-11").read_text().splitlines()
    assert {"SLURM_CONF=/there", "SBATCH_ACCOUNT=mine"} <= set(told)
    assert not [line for line in told if line.startswith("SLURM_MEM_PER_CPU")]
    assert os.environ["SLURM_MEM_PER_CPU"] == "10"
    assert os.environ["SBATCH_ACCOUNT"] == "mine"


def test_a_foreign_record_is_refused(slurm: FakeSlurm, tmp_path: Path) -> None:
    study = a_study(tmp_path / "study")
    submit([study], executor="slurm")
    file = study.folder / "jobs" / "seed0.json"
    file.write_text(file.read_text().replace('"12"', '"12 --help"'))
    with pytest.raises(InputError, match=r"seed0\.json is not what this command wrote"):
        submit([study], executor="slurm")


def test_a_machine_without_slurm_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stand_in: None) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"no Slurm here \(sbatch, squeue, srun not found\).*--executor local"):
        submit([a_study(tmp_path / "study")], executor="slurm")


def test_the_command_queues_jobs_and_says_how_to_continue(
    slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / f"{name}.yaml" for name in ("a", "b")]
    for file in files:
        file.write_text(a_study(file.with_suffix(""), seeds=[0]).model_dump_json(), encoding="utf-8")

    def train_them(*arguments: object) -> tuple[str, str]:
        command = ["layerangles", "train", *files, "--executor", "slurm", *arguments]
        monkeypatch.setattr(sys, "argv", [str(part) for part in command])
        with pytest.raises(SystemExit, match=r"^0$"):
            run()
        return capsys.readouterr()

    options = ["--hours", 0.5, "--memory", 2, "--partition", "p", "--slurm", "qos=low", "--slurm", "exclusive"]
    assert "squeue --me" in train_them(*options)[1]
    assert slurm.flags(11) | {"time": "30", "mem": "2048M", "partition": "p", "qos": "low", "exclusive": ""} == (
        slurm.flags(11)
    )
    slurm.says(job11="RUNNING|None")
    content = json.loads(train_them("--dry-run", "--json")[0])
    assert [(row["job"], row["state"]) for row in content["jobs"]] == [
        ("11", "running"), ("12", "failed"), ("13", "failed"), ("14", "failed")
    ]  # fmt: skip


# ---- Slurm itself --------------------------------------------------------------------------------------------------


@pytest.fixture
def real_slurm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cluster of one node, which is this machine."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    missing = [tool for tool in ("munged", "slurmctld", "slurmd", "sbatch") if not shutil.which(tool, path=path)]
    if missing:
        pytest.skip(f"{', '.join(missing)} not found: apt-get install slurmctld slurmd slurm-client munge")
    # Under pytest's own folders a socket's path could become too long.
    folder = Path(tempfile.mkdtemp())
    try:
        started = subprocess.run([SLURM_SCRIPTS / "start.sh", folder], capture_output=True, text=True, check=False)
        if started.returncode:
            pytest.skip(f"Slurm does not start on this machine: {started.stderr}")
        monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        yield
    finally:
        subprocess.run([SLURM_SCRIPTS / "stop.sh", folder], check=False)
        shutil.rmtree(folder)


def wait_until(is_so: Callable[[], bool], *, minutes: float) -> None:
    end = time.monotonic() + 60 * minutes
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.2)


@pytest.mark.long
@pytest.mark.usefixtures("real_slurm")
def test_a_study_trains_on_a_real_slurm(toys: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A teacher that fails and its students with it; then the study, with a student's job preempted on its way."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    study = toys.longer_study(tmp_path / "study")
    options = JobOptions(cpus=1, at_once=2, minutes=60)

    def now() -> dict[str, str]:
        return dict(states(submit([study], executor="slurm", dry_run=True)))

    def submit_again() -> dict[str, str]:
        return dict(states(submit([study], executor="slurm", device="cpu", options=options)))

    obstacle = claimed(study) / "resume"
    obstacle.touch()
    assert set(submit_again().values()) == {"submitted"}
    wait_until(lambda: set(now().values()) == {"failed"}, minutes=3)
    (why,) = [s.why for s in submit([study], executor="slurm", dry_run=True) if s.name == "teacher"]
    assert why is not None
    assert why.startswith("FAILED: ")
    assert "resume" in why

    obstacle.unlink()
    assert set(submit_again().values()) == {"submitted"}
    wait_until(lambda: bool(list(study.folder.glob("resume/seed0/step-*"))), minutes=5)
    again = submit_again()
    assert (again["teacher"], again["seed0"]) == ("done", "running")
    assert again["seed1"] != "submitted"
    (job,) = [s.job_id for s in submit([study], executor="slurm", dry_run=True) if s.name == "seed0"]
    subprocess.run(["scancel", "--signal=USR2", str(job)], check=True)  # as Slurm does before a time limit
    wait_until(lambda: now()["seed0"] != "running", minutes=1)
    wait_until(lambda: set(now().values()) == {"done"}, minutes=8)  # Slurm waits two minutes before it starts it again
    (log,) = (study.folder / "jobs" / "logs" / "seed0-2").glob("*.out")
    assert "Requeued job" in log.read_text()
    assert set(submit_again().values()) == {"done"}
    direct = study.model_copy(update={"output": str(tmp_path / "direct")})
    assert_same_study(study.folder, train_study(direct, device="cpu"))
