"""Matched pairs and maps are checked against the two models they belong to."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from toys.models import toy_bert, write_model, write_student
from toys.studies import ToyStudy

from layerangles.errors import InputError
from layerangles.models.checkpoints import (
    ModelCheckpoint,
    open_student,
)
from layerangles.models.matching_file import MAPS_FILE
from layerangles.models.pairing import matched_pairs


def _edit_json(file: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_a_matching_that_fits_gives_its_pairs(study: ToyStudy, tmp_path: Path) -> None:
    teacher = ModelCheckpoint(study.teacher)
    assert matched_pairs(open_student(study.learned), teacher, "encoder") == ((0, 0), (1, 2))
    assert matched_pairs(open_student(study.learned), teacher, "decoder") == ()
    other = ModelCheckpoint(write_model(tmp_path / "other", toy_bert(layers=1, seed=7)))
    assert matched_pairs(open_student(study.identity), other, "encoder") == ()  # matched, but to another teacher


def test_all_that_does_not_fit_is_listed(tmp_path: Path, study: ToyStudy) -> None:
    pairs = ((0, 0), (1, 5), (3, 1))
    path = write_student(
        tmp_path / "mine", study.teacher, width=24, maps="learned", pairs=pairs, teacher_width=40, bias=False
    )
    tensors = load_file(path / MAPS_FILE)
    del tensors["encoder.1.weight"]
    save_file(tensors, path / MAPS_FILE)
    with pytest.raises(InputError) as raised:
        matched_pairs(open_student(path), ModelCheckpoint(study.teacher), "encoder")
    for part in (
        f"{path} does not fit {study.teacher}: ",
        "the map of layer 0 has the shape (40, 24), the models need (32, 24)",
        "the map of layer 3 has the shape (40, 24)",
        "the pair (1, 5) names a layer that is not there: the last ones are (2, 4)",
        "the pair (3, 1) names a layer that is not there",
        "matching_maps.safetensors has no map for the matched layer 1",
        "Train the student anew.",
    ):
        assert part in str(raised.value)
