"""Matching maps are applied as defined and read as they were written; damaged files are refused."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from toys.studies import ToyStudy

from layerangles.errors import InputError
from layerangles.geometry.maps import MatchingMap, MatchingMaps
from layerangles.models.checkpoints import (
    open_student,
)
from layerangles.models.matching_file import MAPS_FILE


@pytest.fixture
def student(tmp_path: Path, study: ToyStudy) -> Path:
    """A copy of the student with learned maps, to be damaged."""
    return Path(shutil.copytree(study.learned, tmp_path / "students" / "mine"))


def test_a_map_is_applied_to_every_state() -> None:
    weight, bias = torch.tensor([[1.0, 2.0], [0.0, 1.0], [3.0, 0.0]]), torch.tensor([0.0, 10.0, 0.0])
    states = torch.tensor([[[1.0, 1.0], [0.0, 2.0]]])
    assert MatchingMap(weight).apply(states).tolist() == [[[3, 1, 3], [4, 2, 0]]]
    assert MatchingMap(weight, bias).apply(states).tolist() == [[[3, 11, 3], [4, 12, 0]]]
    assert MatchingMap(weight, bias).apply(states.double()).dtype == torch.float64


def test_maps_are_read_as_they_were_written(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weight = torch.randn(5, 3)
    stored = MatchingMaps(
        {
            ("encoder", 2): MatchingMap(weight, torch.randn(5)),
            ("decoder", 10): MatchingMap(torch.randn(3, 5).T.requires_grad_()),  # neither contiguous nor detached
        }
    )
    stored.save(tmp_path / MAPS_FILE)
    assert set(load_file(tmp_path / MAPS_FILE)) == {"encoder.2.weight", "encoder.2.bias", "decoder.10.weight"}
    loaded = MatchingMaps.load(tmp_path / MAPS_FILE).by_layer
    assert loaded.keys() == stored.by_layer.keys()
    assert torch.equal(loaded["encoder", 2].weight, weight)
    assert torch.equal(loaded["encoder", 2].bias, stored.by_layer["encoder", 2].bias)
    assert torch.equal(loaded["decoder", 10].weight, stored.by_layer["decoder", 10].weight)
    assert loaded["decoder", 10].bias is None


def test_truncated_maps_are_refused(student: Path) -> None:
    file = student / MAPS_FILE
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"matching_maps\.safetensors is damaged or cut short"):
        open_student(student).load_maps()


@pytest.mark.parametrize("name", ["weight", "encoder.weight", "encoder.one.weight", "encoder.1.gain", "a.1.weight.b"])
def test_maps_with_other_names_are_refused(tmp_path: Path, name: str) -> None:
    save_file({name: torch.ones(2, 2)}, tmp_path / MAPS_FILE)
    with pytest.raises(InputError, match=rf'holds a tensor named "{re.escape(name)}"; names have the form .*"encoder'):
        MatchingMaps.load(tmp_path / MAPS_FILE)
