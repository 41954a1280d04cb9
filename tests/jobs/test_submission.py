"""Jobs in local processes: their work, their order, and the traces of failures and interrupts."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from toys.command_line import Cli
from toys.jobs import Trained, a_study, claimed, play, ran, states, trained
from toys.trained_studies import assert_same_study

import kd_train.jobs.job
from kd_train.jobs.job import Job, RunJob, held, sole_command, write_record
from kd_train.jobs.job_options import JobOptions
from kd_train.jobs.job_status import JobStatus, status_of
from kd_train.jobs.local_processes import _gpus
from kd_train.jobs.submission import submit
from kd_train.study.score_logs import METRICS_FILE
from kd_train.study.study_file import Study, read_study
from kd_train.training.train_study import train_study
from layerangles import InputError

LAYERANGLES = str(Path(sys.executable).with_name("layerangles"))


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that train nothing."""
    play(monkeypatch)


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.mktemp("cluster"))


# ---- the work of a job ---------------------------------------------------------------------------------------------


def test_jobs_one_by_one_make_the_study(toys: Trained, tmp_path: Path) -> None:
    study = toys.study(tmp_path / "study", seeds=[0, 1])
    claimed(study)
    for job in Job.all_of([study]):
        assert not job.is_done()
        RunJob()(str(study.folder), job.seed, "cpu")
        assert job.is_done()
    assert_same_study(study.folder, toys.folder)


def test_a_job_started_again_is_the_same_job() -> None:
    again = RunJob().checkpoint("runs/a", 3, "cpu")
    assert isinstance(again.function, RunJob)
    assert again.args == ("runs/a", 3, "cpu")


def test_a_local_job_shuts_others_out(toys: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = claimed(toys.study(tmp_path / "study"))
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "local")
    monkeypatch.setattr(kd_train.jobs.job, "_PATIENCE_SECONDS", 0)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with held(folder / "jobs" / "seed0.lock", ""), pytest.raises(InputError, match="another process is training"):
            RunJob()(str(folder), 0, "cpu")
    finally:
        signal.signal(signal.SIGTERM, before)


# ---- local processes -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("stand_in")
def test_local_jobs_run_after_their_teachers_and_at_most_at_once_in_parallel(tmp_path: Path) -> None:
    studies = [a_study(tmp_path / "a", seeds=[0, 1, 2]), a_study(tmp_path / "b", seeds=[5])]
    told: list[JobStatus] = []
    found = submit(studies, executor="local", options=JobOptions(at_once=2, cpus=3), report=told.append)
    jobs_of_both = [("teacher", "done"), ("teacher", "done"), *((f"seed{k}", "done") for k in (0, 1, 2, 5))]
    assert states(found) == jobs_of_both
    assert len(told) == 12
    assert sorted(status.state for status in told) == ["done"] * 6 + ["running"] * 6
    times = []
    for study in studies:
        jobs = ran(study.folder)
        assert set(jobs) == {"teacher", *(f"seed{k}" for k in study.seeds)}
        assert all(jobs["teacher"][1] < began for name, (began, _, _) in jobs.items() if name != "teacher")
        assert {threads for _, _, threads in jobs.values()} == {"3"}
        times += [moment for began, ended, _ in jobs.values() for moment in ((began, 1), (ended, -1))]
    running = [sum(step for _, step in sorted(times)[: i + 1]) for i in range(len(times))]
    assert max(running) == 2


@pytest.mark.usefixtures("stand_in")
def test_local_jobs_run_one_by_one_by_default_and_share_the_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    submit([a_study(tmp_path / "a", seeds=[0])], executor="local")
    submit([a_study(tmp_path / "b", seeds=[0])], executor="local", options=JobOptions(at_once=3))
    times = sorted(ran(tmp_path / "a").values())
    assert times[0][1] < times[1][0]
    assert {threads for _, _, threads in ran(tmp_path / "a").values()} == {"8"}
    assert {threads for _, _, threads in ran(tmp_path / "b").values()} == {"2"}


@pytest.mark.usefixtures("stand_in")
def test_a_failed_job_is_reported_and_retried_alone(tmp_path: Path) -> None:
    study = a_study(tmp_path / "study")
    folder = claimed(study)
    (folder / "fail-seed0").touch()
    found = submit([study], executor="local")
    assert states(found) == [("teacher", "done"), ("seed0", "failed"), ("seed1", "done")]
    assert found[1].why == "ValueError: seed0 is not to be"
    assert found[1].log is not None
    assert "Traceback" in found[1].log.read_text()
    # A dry run still reports the failure, ...
    assert states(submit([study], executor="local", dry_run=True)) == states(found)
    (folder / "fail-seed0").unlink()
    # ... and the next call trains it and nothing else.
    assert states(submit([study], executor="local")) == [("teacher", "done"), ("seed0", "done"), ("seed1", "done")]
    assert set(ran(folder)) == {"teacher", "seed0", "seed1"}
    logs = {path.name for path in (folder / "jobs" / "logs").iterdir()}
    assert logs == {"teacher-1", "seed0-1", "seed0-2", "seed1-1"}

    def none(status: JobStatus) -> None:
        raise AssertionError(status)

    submit([study], executor="local", report=none)


@pytest.mark.usefixtures("stand_in")
def test_without_its_teacher_no_student_starts(tmp_path: Path) -> None:
    bad, good = a_study(tmp_path / "bad"), a_study(tmp_path / "good", seeds=[4])
    (claimed(bad) / "fail-teacher").touch()
    found = submit([bad, good], executor="local")
    assert states(found) == [
        ("teacher", "failed"), ("teacher", "done"), ("seed0", "failed"), ("seed1", "failed"), ("seed4", "done")
    ]  # fmt: skip
    assert found[0].why == "ValueError: teacher is not to be"
    assert found[2].why == "its teacher failed"
    assert found[2].log == found[0].log
    assert not (bad.folder / "ran").exists()


@pytest.mark.usefixtures("stand_in")
def test_an_interrupt_ends_the_processes(tmp_path: Path) -> None:
    study = a_study(tmp_path / "study")
    pid = claimed(study) / "pid-teacher"
    (study.folder / "hang").touch()

    def interrupt(status: JobStatus) -> None:
        while not pid.exists() or not pid.read_text():
            time.sleep(0.05)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        submit([study], executor="local", report=interrupt)
    assert not psutil.pid_exists(int(pid.read_text()))
    (study.folder / "hang").unlink()
    assert {status.state for status in submit([study], executor="local")} == {"done"}


@pytest.mark.usefixtures("stand_in")
def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    study = a_study(tmp_path / "study")
    assert states(submit([study], executor="local", dry_run=True)) == [
        ("teacher", "missing"), ("seed0", "missing"), ("seed1", "missing")
    ]  # fmt: skip
    assert not study.folder.exists()


@pytest.mark.usefixtures("stand_in")
def test_a_job_of_another_process_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kd_train.jobs.job, "_PATIENCE_SECONDS", 0)
    study = a_study(tmp_path / "study")
    job = Job.all_of([study])[1]
    write_record(job, "local", "4711", claimed(study) / "jobs" / "logs" / "seed0-1")
    with held(job.lock, ""):
        assert status_of([job])[job].state == "running"
        for overwrite in (False, True):
            with pytest.raises(InputError, match=r"toy seed0 is running and would .* stop it first: kill 4711"):
                submit([study], executor="local", overwrite=overwrite)
    assert status_of([job])[job].state == "failed"
    with sole_command(study), pytest.raises(InputError, match="another command is at work on"):
        submit([study], executor="local")


@pytest.mark.usefixtures("stand_in")
def test_overwrite_starts_a_study_anew(tmp_path: Path) -> None:
    study = a_study(tmp_path / "study", seeds=[0])
    submit([study], executor="local")
    changed = a_study(tmp_path / "study", seeds=[0], precision="bfloat16")
    with pytest.raises(InputError, match="begun with another precision"):
        submit([changed], executor="local")
    submit([changed], executor="local", overwrite=True)
    assert [path.name for path in (study.folder / "jobs" / "logs").glob("seed0-*")] == ["seed0-1"]
    assert read_study(study.folder) == changed


def test_gpus_are_assigned_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert _gpus("auto", JobOptions(at_once=3)) == [[0], [1], [0]]
    assert _gpus("auto", JobOptions(gpus=2)) == [[0, 1]]
    assert _gpus("auto", JobOptions(gpus=0)) == [[]]
    assert _gpus("cpu", JobOptions()) == [[]]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert _gpus("auto", JobOptions(at_once=2)) == [[5], [7]]
    with pytest.raises(InputError, match="3 GPUs per job are more than the 2"):
        _gpus("auto", JobOptions(gpus=3))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8932f937")
    with pytest.raises(InputError, match="by their numbers"):
        _gpus("auto", JobOptions())


@pytest.mark.long
def test_the_command_resumes_after_ctrl_c(toys: Trained, tmp_path: Path) -> None:
    """Real jobs in real processes, interrupted while training: they end at once, and resume to the same study."""
    study = toys.longer_study(tmp_path / "study")
    file = tmp_path / "study.yaml"
    file.write_text(study.model_dump_json(), encoding="utf-8")
    command = [LAYERANGLES, "train", str(file), "--executor", "local", "--at-once", "2", "--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        while not list(study.folder.glob("resume/seed?/step-*")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        descendants = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert len(descendants) >= 2
    assert not [child for child in descendants if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    again = subprocess.run([*command, "--json"], env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert {row["student"] for row in json.loads(again.stdout)["scores"]} == {
        "teacher", "forward-seed0", "forward-seed1"
    }  # fmt: skip
    direct = study.model_copy(update={"output": str(tmp_path / "direct")})
    assert_same_study(study.folder, train_study(direct, device="cpu"))


# ---- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture
def cli(cli: Cli, tmp_path: Path) -> Cli:
    """Run ``layerangles train`` in this process, in a folder with the studies a.yaml and b.yaml."""
    for name in ("a", "b"):
        content = a_study(tmp_path / name, name=name, seeds=[0]).model_dump_json()
        (tmp_path / f"{name}.yaml").write_text(content, encoding="utf-8")
    return partial(cli, "train")


@pytest.mark.usefixtures("stand_in")
def test_the_command_reports_each_job(cli: Cli, tmp_path: Path) -> None:
    study = read_study("a.yaml")
    (claimed(study) / "fail-seed0").touch()
    outcome = cli("a.yaml", "b.yaml", "--executor", "local", "--at-once", 2)
    assert outcome.code == 1
    for part in ("a teacher: running, process", "a teacher: done", "a seed0: failed", "ValueError: seed0 is not to be",
                 "_0_log.out", "1 of 4 jobs failed", "the same command again"):  # fmt: skip
        assert part in outcome.err
    (study.folder / "fail-seed0").unlink()
    (tmp_path / "a" / METRICS_FILE).write_text(
        '{"student":"teacher","step":1,"split":"dev","metric":"m","value":0.5}\n'
    )
    (tmp_path / "b" / METRICS_FILE).write_text(
        '{"student":"teacher","step":1,"split":"dev","metric":"m","value":0.25}\n'
    )
    outcome = cli("a.yaml", "b.yaml", "--executor", "local", "--json")
    assert outcome.code == 0
    assert [row["scores"][0]["dev m"] for row in json.loads(outcome.out)] == [0.5, 0.25]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--executor", "k8s"], ("--executor k8s", "local or slurm")),
        (["--partition", "p"], ("--partition", "--executor slurm")),
        (["--at-once", "2", "--dry-run"], ("--at-once, --dry-run", "--executor")),
        (["--executor", "local", "--hours", "3"], ("--hours", "--executor slurm")),
        (["--executor", "slurm", "--slurm", "dependency=afterok:1"], ("dependency is set by this command",)),
        (["--executor", "slurm", "--slurm", "qos=low\nrm -rf x"], ("'qos' is no long option",)),
        (["--executor", "slurm", "--slurm", "Q os=low"], ("'Q os' is no long option",)),
        (["--executor", "slurm", "--partition", "a\nb"], ("partition",)),
        (["--executor", "local", "--device", "tpu"], ("device is 'tpu'",)),
        (["--output", "one"], ("--output is one study's directory",)),
        (["--set", "output=one"], ("same output",)),
    ],
)
def test_the_command_refuses_invalid_options(cli: Cli, arguments: list[str], parts: tuple[str, ...]) -> None:
    outcome = cli("a.yaml", "b.yaml", *arguments)
    assert outcome.code == 2, outcome.err
    assert outcome.err.startswith("Error: ")
    for part in parts:
        assert part in outcome.err
    assert not Path("a").exists()


def test_several_studies_without_jobs_are_trained_in_turn(
    cli: Cli, toys: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []

    def record(study: Study, **how: Any) -> Path:
        trained.append((study.name, how))
        shutil.copytree(toys.folder, study.folder)
        return study.folder

    monkeypatch.setattr("kd_train.study.plan.plan_study", lambda study: None)
    monkeypatch.setattr("kd_train.training.train_study.train_study", record)
    outcome = cli("a.yaml", "b.yaml", "--device", "cpu", "--resume")
    assert outcome.code == 0, outcome.err
    assert trained == [(name, {"resume": True, "overwrite": False, "device": "cpu"}) for name in ("a", "b")]
    assert outcome.out.count("Scores at the last step of ") == 2
