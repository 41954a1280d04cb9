"""``layerangles merge`` on shards of one measurement."""

from pathlib import Path

import pytest
from toys.command_line import Cli, refused

from layerangles import AngleResult


def test_shards_and_their_merger(cli: Cli, trained: Path) -> None:
    students = sorted((trained / "students").glob("*-seed0"))
    for i in range(2):
        assert cli("angles", *students, "--shard", f"{i}/2", "-o", f"shard-{i}.nc", "--no-steps").code == 0
    done = cli("merge", "shard-0.nc", "shard-1.nc", "-o", "whole.nc")
    assert done.code == 0, done.err
    assert cli("angles", *students, "-o", "one.nc", "--no-steps").code == 0
    whole, one = AngleResult.load("whole.nc"), AngleResult.load("one.nc")
    assert whole.dataset["angle_deg"].values == pytest.approx(one.dataset["angle_deg"].values, abs=1e-4, nan_ok=True)
    refused(cli("merge", "shard-0.nc", "shard-0.nc", "-o", "twice.nc"), "the shards overlap: got 0/2, 0/2")
    refused(cli("merge", "shard-0.nc", "-o", "whole.nc"), "whole.nc exists")
