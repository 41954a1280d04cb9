"""The whole measurement on a random pair of models of every architecture, against transformers' own states."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from toys.architectures import CONFIGS, FINAL_NORM, TARGETS, TWO_TOWERS
from toys.models import toy_texts, toy_tokenizer, write_model
from transformers import AutoModel, PreTrainedModel

from layerangles import InputError, measure_angles

TEXTS = toy_texts(7, longest=8)


def _pair(kind: str, tmp_path: Path) -> tuple[Path, Path]:
    paths = []
    for seed, name in enumerate(("teacher", "student")):
        torch.manual_seed(seed)
        model = AutoModel.from_config(CONFIGS[kind])
        if kind in TWO_TOWERS:
            for parameter in model.parameters():  # init ranges of these leave the layers a degree apart
                parameter.data += 0.1 * torch.randn_like(parameter)
        paths.append(write_model(tmp_path / name, model, toy_tokenizer()))
    return paths[0], paths[1]


def _inputs(kind: str, text: str, target: str) -> dict[str, Tensor]:
    """One example alone: no padding, and what its decoder reads spelled out."""
    tokenizer = toy_tokenizer()
    inputs = {"input_ids": torch.tensor([tokenizer(text)["input_ids"]])}
    if kind == "gpt2":  # takes token types if a tokenizer gives them, as the toy does and GPT-2's own does not
        inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
    if kind in TWO_TOWERS:
        ids = [CONFIGS[kind].decoder_start_token_id, *tokenizer(target)["input_ids"][:-1]]
        inputs["decoder_input_ids"] = torch.tensor([ids])
    return inputs


def _states(kind: str, model: PreTrainedModel, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
    if kind in TWO_TOWERS:
        pairs = {"encoder": output.encoder_hidden_states, "decoder": output.decoder_hidden_states}
        return {tower: torch.stack(states)[:, 0] for tower, states in pairs.items()}
    return {"only": torch.stack(output.hidden_states)[:, 0]}


@pytest.mark.parametrize("kind", CONFIGS)
def test_angles_of_every_architecture_against_float64(kind: str, tmp_path: Path) -> None:
    teacher_path, student_path = _pair(kind, tmp_path)
    examples: list[Any] = list(zip(TEXTS, itertools.cycle(TARGETS), strict=False))
    data: list[Any] = examples if kind in TWO_TOWERS else TEXTS
    result = measure_angles(
        str(student_path), data, teacher=teacher_path, final_norm="post", nulls=("N0", "N5"), device="cpu"
    )
    models = [AutoModel.from_pretrained(path).double().eval() for path in (teacher_path, student_path)]
    found: dict[str, list[Tensor]] = {}
    for text, target in examples:
        inputs = _inputs(kind, text, target)
        teacher, student = (_states(kind, model, inputs) for model in models)
        for tower in teacher:
            spokes = teacher[tower][None] - student[tower][:, None]
            directions = spokes / spokes.norm(dim=-1, keepdim=True)
            cosines = torch.einsum("sand,sbnd->nsab", directions, directions).clamp(-1, 1)
            found.setdefault(tower, []).append(cosines)
    towers = result.dataset["tower"].values.tolist()
    assert len(towers) == len(found)
    for tower, cosines_of_tower in zip(towers, found.values(), strict=True):
        expected = torch.cat(cosines_of_tower)
        of_tower = result.dataset.sel(student="student", tower=tower).isel(
            student_layer=slice(expected.shape[1]), layer_a=slice(expected.shape[2]), layer_b=slice(expected.shape[3])
        )
        off_diagonal = ~torch.eye(expected.shape[2], dtype=torch.bool)
        mean = expected.mean(dim=0)[:, off_diagonal].numpy()
        assert of_tower["cosine"].values[:, off_diagonal.numpy()] == pytest.approx(mean, abs=1e-4)
        angle = expected.arccos().rad2deg().mean(dim=0)[:, off_diagonal].numpy()
        assert of_tower["angle_deg"].values[:, off_diagonal.numpy()] == pytest.approx(angle, abs=1e-2)
        assert of_tower["n_tokens"].max() == len(expected)
        assert angle.max() > 5  # the layers differ, so that the comparison says something


def test_alternatives_of_two_towers_of_different_depth(tmp_path: Path) -> None:
    teacher, student = _pair("t5", tmp_path)
    data: list[Any] = list(zip(TEXTS, itertools.cycle(TARGETS), strict=False))
    dataset = measure_angles(str(student), data, teacher=teacher, alternatives="sums", device="cpu").dataset
    assert dataset["tower"].values.tolist() == ["encoder", "decoder"]
    n_layers = dataset["top_dimension_share"].isel(rank=0).notnull().sum("layer_a")
    assert n_layers.values.tolist() == [5, 4]


@pytest.mark.parametrize("kind", sorted(FINAL_NORM))
def test_the_final_norm_makes_a_difference_to_the_last_layer_alone(kind: str, tmp_path: Path) -> None:
    teacher, student = _pair(kind, tmp_path)
    data: list[Any] = list(zip(TEXTS, itertools.cycle(TARGETS), strict=False)) if kind in TWO_TOWERS else TEXTS
    pre, post = (
        measure_angles(str(student), data, teacher=teacher, final_norm=norm, device="cpu").dataset["angle_deg"]
        for norm in ("pre", "post")
    )
    differs = abs(pre - post).max(["student", "student_layer", "layer_b"])
    for tower in pre["tower"].values:
        last = 4 if kind in TWO_TOWERS and tower == "encoder" else 3
        of_tower = abs(pre - post).sel(tower=tower, student="student")
        below = of_tower.isel(student_layer=slice(last), layer_a=slice(last), layer_b=slice(last))
        assert below.max() < 1e-4
        assert differs.sel(tower=tower, layer_a=last) > 0.1


def test_an_encoder_decoder_needs_targets_and_its_like(tmp_path: Path) -> None:
    teacher, student = _pair("t5", tmp_path)
    with pytest.raises(InputError, match=r"is an encoder-decoder, whose decoder reads a target text"):
        measure_angles(str(student), TEXTS, teacher=teacher, device="cpu")
    encoder, _ = _pair("bert", tmp_path / "other")
    with pytest.raises(InputError, match=r"has the towers \('encoder',\), its teacher \('encoder', 'decoder'\)"):
        measure_angles(str(encoder), TEXTS, teacher=teacher, device="cpu")
