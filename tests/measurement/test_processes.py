"""Several processes give the sums of one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from toys.studies import ToyStudy

from layerangles import AngleResult, measure_angles

SCRIPT = """
import json, sys
import torch
torch.set_num_threads(1)
from accelerate import PartialState
from layerangles import measure_angles
given = json.loads(sys.argv[1])
result = measure_angles(given["students"], given["texts"], device="cpu", **given["settings"])
assert PartialState().num_processes == 2
result.save(f"{given['output']}-{PartialState().process_index}.nc")
"""


def _in_two_processes(students: list[Path], texts: list[str], output: Path, **settings: object) -> list[AngleResult]:
    script = output.parent / "measure.py"
    script.write_text(SCRIPT)
    given = json.dumps(
        {"students": list(map(str, students)), "texts": texts, "output": str(output), "settings": settings}
    )
    # accelerate's own launcher starts several CPU processes through MPI alone; torchrun sets the same variables.
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script), given]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *launch], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [AngleResult.load(f"{output}-{rank}.nc") for rank in range(2)]


@pytest.mark.parametrize("n_texts", [23])
def test_two_processes_give_the_sums_of_one(study: ToyStudy, tmp_path: Path, n_texts: int) -> None:
    students, texts = [study.identity, study.learned], study.texts[:n_texts]
    settings = {"nulls": ["N1", "N4"], "batch_size": 2, "alternatives": "all"}
    first, second = _in_two_processes(students, texts, tmp_path / "two", **settings)
    assert first == second  # every process has the whole result
    # Batches of one group each are the same batches in one process, so that the models round alike.
    one = measure_angles(students, texts, device="cpu", nulls=("N1", "N4"), batch_size=2, alternatives="all")
    assert first.dataset.attrs["n_examples"] == n_texts
    for name, values in one.dataset.data_vars.items():
        if str(name).startswith("sum_"):
            np.testing.assert_allclose(first.dataset[name], values, rtol=1e-12, atol=1e-12, err_msg=str(name))
        elif values.dtype.kind == "f":
            np.testing.assert_allclose(first.dataset[name], values, rtol=1e-6, atol=1e-9, err_msg=str(name))
        else:
            assert (first.dataset[name] == values).all(), name  # no example counted twice


def test_processes_stop_together_and_fit_one_map(study: ToyStudy, tmp_path: Path) -> None:
    settings: dict[str, object] = {"until": 2000.0, "batch_size": 2}
    first, second = _in_two_processes([study.identity], study.texts * 3, tmp_path / "until", **settings)
    assert first == second
    assert 16 <= first.dataset.attrs["n_examples"] < 72
    fitted = _in_two_processes(
        [study.identity], study.texts, tmp_path / "fit", fit="ridge", preprocessing="z", batch_size=2
    )
    one = measure_angles([study.identity], study.texts, device="cpu", fit="ridge", preprocessing="z", batch_size=2)
    for result in fitted:
        np.testing.assert_allclose(result.dataset["map_r2"], one.dataset["map_r2"], rtol=1e-9)
        np.testing.assert_allclose(result.dataset["angle_deg"], one.dataset["angle_deg"], rtol=1e-6)


def test_the_papers_convention_is_the_same_in_every_process(study: ToyStudy, tmp_path: Path) -> None:
    settings: dict[str, object] = {"convention": "paper", "max_length": 16, "batch_size": 4}
    one = measure_angles([study.identity], study.texts, device="cpu", convention="paper", max_length=16, batch_size=4)
    for result in _in_two_processes([study.identity], study.texts, tmp_path / "paper", **settings):
        np.testing.assert_allclose(result.dataset["cosine"], one.dataset["cosine"], rtol=1e-9)
        assert (result.dataset["histogram"] == one.dataset["histogram"]).all()
