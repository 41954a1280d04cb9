"""Changing maps, control targets and principal maps in a trained study."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from toys.trained_studies import (
    CHANGING,
    TaughtTask,
    matching_of,
)
from toys.training import differing
from transformers import AutoModel, AutoTokenizer

from kd_train.matching.strategies import Strategy, layer_pairs
from kd_train.study.study_file import Study
from kd_train.training.bank import Bank
from kd_train.training.train_study import train_study

_REDRAWN = "random-draw3-every-3"


@pytest.fixture(scope="module")
def changing(task: TaughtTask, tmp_path_factory: pytest.TempPathFactory) -> Study:
    study = task.study(tmp_path_factory.mktemp("changing") / "study", *CHANGING)
    train_study(study, device="cpu")
    return study


def test_matching_json_records_the_draws_of_a_redrawn_map(changing: Study) -> None:
    def draw(number: int, kind: str = "random", mapping_seed: int = 3) -> list[list[int]]:
        strategy = Strategy(kind=kind, mapping_seed=mapping_seed, redraw=1)
        return [list(pair) for pair in layer_pairs(strategy, 2, 4, draw=number)]

    for step in (1, 3, 4, None):
        done = step or 8
        matching = matching_of(changing, _REDRAWN, step)
        assert matching["strategy"] == {"kind": "random", "mapping_seed": 3, "redraw": 3}
        assert matching["mapping_seed"] == 3
        draws = [{"from_step": n * 3, "pairs": draw(n)} for n in range(-(-done // 3))]
        assert matching["changing"] == {"encoder": {"kind": "redrawn", "every_steps": 3, "draws": draws}}
        assert matching["towers"]["encoder"]["pairs"] == draws[-1]["pairs"]  # those that led here
    in_order = matching_of(changing, "in_order_random-every-epoch")
    draws = [{"from_step": n * 5, "pairs": draw(n, "in_order_random", 0)} for n in range(2)]  # 40 examples: 5 steps
    assert in_order["changing"] == {"encoder": {"kind": "redrawn", "every_steps": 5, "draws": draws}}
    assert in_order["mapping_seed"] == 0


def test_matching_json_records_the_weights_of_attention(changing: Study) -> None:
    assert matching_of(changing, "attention", 0)["changing"]["encoder"]["mean_weights"] == [[0.0] * 4] * 2
    seen = []
    for step in (1, 4, None):
        record = matching_of(changing, "attention", step)["changing"]["encoder"]
        assert record["kind"] == "attention"
        assert [sum(row) for row in record["mean_weights"]] == pytest.approx([1, 1])
        seen.append(record["mean_weights"])
    assert seen[0] != seen[1] != seen[2]
    pairs = matching_of(changing, "attention")["towers"]["encoder"]["pairs"]
    assert pairs == [[s, t] for s in (1, 2) for t in (1, 2, 3, 4)]


def test_matching_json_records_the_steps_of_a_dynamic_map(changing: Study) -> None:
    for step in (0, 1, 4, None):
        done = 8 if step is None else step
        record = matching_of(changing, "dynamic", step)["changing"]["encoder"]
        assert (record["kind"], record["teacher_layers"]) == ("dynamic", [2, 4])
        counts = record["steps"]
        assert [sum(row[column] for row in counts) for column in (0, 1)] == [done, done]
    assert matching_of(changing, "dynamic", 1)["changing"]["encoder"]["steps"] == [[1, 0], [0, 1]]  # forward's


def test_the_pairs_of_a_dynamic_map_are_those_of_the_last_step(changing: Study) -> None:
    counts = [matching_of(changing, "dynamic", step)["changing"]["encoder"]["steps"] for step in range(8)]
    for step in range(1, 8):
        used = [
            next(row for row in (1, 2) if counts[step][row - 1][column] > counts[step - 1][row - 1][column])
            for column in (0, 1)
        ]
        pairs = matching_of(changing, "dynamic", step)["towers"]["encoder"]["pairs"]
        assert pairs == [[0, 0], [used[0], 2], [used[1], 4]]


def test_matching_json_names_control_targets(changing: Study) -> None:
    assert matching_of(changing, "attention")["targets"] == "teacher"
    assert matching_of(changing, "last-gaussian")["targets"] == "gaussian"
    control = matching_of(changing, "forward-random_teacher")
    assert (control["targets"], control["changing"]) == ("random_teacher", None)
    assert control["strategy"] == {"kind": "forward"}
    assert control["towers"]["encoder"]["pairs"] == [[0, 0], [1, 2], [2, 4]]


def test_a_random_teacher_is_another_network_and_follows_from_the_seed(
    task: TaughtTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[dict[str, torch.Tensor]] = []
    bank = Bank.__init__

    def spy(self: Bank, members: Any, teacher: Any, *, random_teacher: Any = None, **options: Any) -> None:
        made.append({name: tensor.clone() for name, tensor in random_teacher.state_dict().items()})
        assert random_teacher.config.to_dict() == teacher.config.to_dict()
        bank(self, members, teacher, random_teacher=random_teacher, **options)

    monkeypatch.setattr(Bank, "__init__", spy)
    training = {"max_steps": 1, "checkpoints": []}
    control = {"kind": "forward", "targets": "random_teacher"}
    for name, torch_seed in (("first", 1), ("again", 2)):
        torch.manual_seed(torch_seed)
        train_study(task.study(tmp_path / name, control, training=training, seeds=[0, 1]), device="cpu")
    assert [differing(made[0], other) == set() for other in made] == [True, False, True, False]
    matrices = {name for name, tensor in made[0].items() if tensor.ndim > 1}
    assert matrices <= differing(made[0], load_file(task.teacher / "model.safetensors"))


def test_principal_maps_keep_the_directions_of_the_matched_layers(task: TaughtTask, tmp_path: Path) -> None:
    """Against a singular value decomposition of the teacher's states, text by text."""
    student = {"layers": 2, "width": 24, "init": "random", "map": "pca"}
    training = {"max_steps": 2, "checkpoints": [0]}
    study = task.study(tmp_path / "study", "reverse", "last", student=student, training=training)
    train_study(study, device="cpu")
    by_text = _teacher_states(task)
    for name, targets in (("reverse", (0, 4, 2)), ("last", (0, 2, 4))):  # unmatched: forward's
        maps = load_file(study.folder / "students" / f"{name}-seed0" / "matching_maps.safetensors")
        first = load_file(study.folder / "students" / f"{name}-seed0/checkpoints/step-0/matching_maps.safetensors")
        for layer, target in enumerate(targets):
            states = torch.cat([states[target][0] for states in by_text]).double()
            directions = maps[f"encoder.{layer}.weight"]
            assert torch.equal(first[f"encoder.{layer}.weight"], directions)  # fixed
            kept = float((states @ directions.double()).square().sum())
            assert kept == pytest.approx(float(torch.linalg.svdvals(states)[:24].square().sum()), rel=1e-6)
            torch.testing.assert_close(directions.T @ directions, torch.eye(24), rtol=0, atol=1e-5)


def test_a_shared_principal_map_keeps_most_of_all_its_layers(task: TaughtTask, tmp_path: Path) -> None:
    student = {"layers": 2, "width": 24, "init": "random", "map": "pca", "share_map": True}
    study = task.study(tmp_path / "study", "forward", student=student, training={"max_steps": 1, "checkpoints": []})
    train_study(study, device="cpu")
    states = torch.cat([torch.cat([of[layer][0] for of in _teacher_states(task)]) for layer in (0, 2, 4)]).double()
    maps = load_file(study.folder / "students" / "forward-seed0" / "matching_maps.safetensors")
    for directions in maps.values():
        kept = float((states @ directions.double()).square().sum())
        assert kept == pytest.approx(float(torch.linalg.svdvals(states)[:24].square().sum()), rel=1e-6)


def _teacher_states(task: TaughtTask) -> list[Any]:
    """The states of every training text by itself, layer by layer."""
    teacher, tokenizer = AutoModel.from_pretrained(task.teacher).eval(), AutoTokenizer.from_pretrained(task.teacher)
    texts = [json.loads(line)["text"] for line in Path(task.files["train"]).read_text(encoding="utf-8").splitlines()]
    with torch.no_grad():
        return [teacher(**tokenizer(t, return_tensors="pt"), output_hidden_states=True).hidden_states for t in texts]
