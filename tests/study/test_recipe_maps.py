"""The layer maps, copied blocks and widths of the example studies are those of the paper."""

import pytest
from toys.recipes import GLUE, QWEN, planned, use_known_configurations

from kd_train.matching.controls import TARGETS
from kd_train.matching.strategies import STRATEGIES
from kd_train.students.student_plan import student_config


@pytest.fixture(autouse=True)
def known_configurations(monkeypatch: pytest.MonkeyPatch) -> None:
    use_known_configurations(monkeypatch)


FORWARD_3 = [(0, 0), (1, 4), (2, 8), (3, 12)]
REVERSE_3 = [(0, 0), (1, 12), (2, 8), (3, 4)]
TO_SIX_3 = [(0, 6), (1, 6), (2, 6), (3, 6)]


@pytest.mark.parametrize("name", [*GLUE, "dart-bart", "wmt16-t5"])
def test_of_12_layers_students_of_3_have_the_papers_maps_in_every_tower(name: str) -> None:
    members = planned(name).members
    towers = ("encoder",) if name in GLUE else ("encoder", "decoder")
    expected = {"none": [], "forward": FORWARD_3, "reverse": REVERSE_3, "all_to_one": TO_SIX_3}
    for kind, pairs in expected.items():
        for label in (kind, f"{kind}-scratch"):  # the map is no matter of how students begin
            assert members[label].pairs == {tower: tuple(pairs) for tower in towers}
    for tower in towers:
        first, *others = members["random"].pairs[tower]
        assert first == (0, 0)
        assert sorted(layer for _, layer in others) == [4, 8, 12]
        assert [layer for _, layer in others] not in ([4, 8, 12], [12, 8, 4])
    assert members["random"].pairs == members["random-scratch"].pairs


@pytest.mark.parametrize("name", QWEN)
def test_qwens_students_do_not_match_the_embedding_output(name: str) -> None:
    members = planned(name).members
    forward = [4, 8, 12, 16, 20, 24, 28, 32, 36]
    assert [t for _, t in members["forward"].pairs["decoder"]] == forward
    assert [t for _, t in members["reverse"].pairs["decoder"]] == forward[::-1]
    assert members["all_to_one"].pairs["decoder"] == tuple((j, 18) for j in range(1, 10))
    assert {student for m in members.values() for student, _ in m.pairs["decoder"]} == set(range(1, 10))


def test_the_depth_study_has_the_papers_targets() -> None:
    plan = planned("depth-bert")
    targets = {3: (4, 8, 12), 6: (2, 4, 6, 8, 10, 12), 9: (2, 3, 4, 6, 7, 8, 10, 11, 12)}
    assert len(plan.members) == 15
    for depth, layers in targets.items():
        forward, reverse = plan.members[f"forward-{depth}"], plan.members[f"reverse-{depth}"]
        assert forward.student.layers == {"encoder": depth}
        assert forward.student.copied_layers == {"encoder": layers}
        assert forward.pairs["encoder"] == ((0, 0), *enumerate(layers, start=1))
        assert reverse.pairs["encoder"] == ((0, 0), *enumerate(layers[::-1], start=1))
        assert reverse.student == forward.student  # the order of copying stays
        assert {t for _, t in plan.members[f"all_to_one-{depth}"].pairs["encoder"]} == {6}


@pytest.mark.parametrize(
    ("name", "widths", "heads"),
    [
        ("width-bert", (384, 576), (6, 9)),
        ("width-t5", (384, 576), (6, 9)),
        ("width-bart", (512, 768), (8, 12)),
    ],
)
def test_the_width_studies_have_the_papers_widths_from_scratch_behind_trained_maps(
    name: str, widths: tuple[int, ...], heads: tuple[int, ...]
) -> None:
    plan = planned(name)
    for width, n_heads in zip(widths, heads, strict=True):
        for kind in ("none", "forward", "reverse", "all_to_one", "random"):
            student = plan.members[f"{kind}-{width}"].student
            assert (student.width, student.map, student.embeddings) == (width, "learned", "random")
            assert not any(student.copied_layers.values())
            config = student_config(student, plan.teacher)
            assert (config.hidden_size, config.num_attention_heads) == (width, n_heads)
    frozen = {label: member for label, member in plan.members.items() if label.endswith("frozen")}
    assert len(frozen) == (8 if name == "width-bert" else 0)
    for label, member in frozen.items():
        trained = plan.members[label.removesuffix("-frozen")]
        assert member.student == trained.student.model_copy(update={"map": "frozen"})
        assert member.pairs == trained.pairs


def test_t5_copies_blocks_other_than_those_it_is_matched_to() -> None:
    members = planned("wmt16-t5").members
    for kind in ("none", "forward", "reverse", "all_to_one", "random"):
        assert members[kind].student.copied_layers == {"encoder": (1, 7, 12), "decoder": (1, 7, 12)}
        assert members[f"{kind}-scratch"].student.copied_layers == {"encoder": (), "decoder": ()}


@pytest.mark.parametrize("name", [*GLUE, "dart-bart"])
def test_bert_and_bart_copy_the_blocks_that_forward_is_matched_to(name: str) -> None:
    members = planned(name).members
    for kind in ("none", "forward", "reverse", "all_to_one", "random"):
        assert set(members[kind].student.copied_layers.values()) == {(4, 8, 12)}
        assert members[kind].student.embeddings == "copied"
        scratch = members[f"{kind}-scratch"].student
        assert set(scratch.copied_layers.values()) == {()}
        assert scratch.embeddings == "random"


def test_the_related_work_has_every_strategy_that_no_other_recipe_has() -> None:
    plan = planned("related-work")
    shown_elsewhere = {"reverse", "all_to_one", "random", "explicit"}
    assert {member.strategy.kind for member in plan.members.values()} == set(STRATEGIES) - shown_elsewhere
    pairs = {label: member.pairs["encoder"] for label, member in plan.members.items()}
    assert pairs["patient_skip"] == ((1, 2), (2, 4))
    assert pairs["patient_last"] == ((1, 4), (2, 5))
    assert pairs["tinybert"] == pairs["forward"] == pairs["cofi"] == ((0, 0), (1, 2), (2, 4), (3, 6))
    assert (pairs["first"], pairs["last"], pairs["one_to_one"]) == (((1, 1),), ((3, 6),), ((2, 3),))
    assert len(pairs["alp-kd"]) == 3 * 6
    loss = {label: (member.loss.hidden, member.loss.matched_tokens) for label, member in plan.members.items()}
    assert loss["patient_skip"] == loss["patient_last"] == ("patient", "first")
    assert loss["alp-kd"] == ("mse", "first")
    assert (plan.members["tinybert"].student.map, plan.members["tinybert"].student.share_map) == ("learned", True)
    assert plan.members["rail-kd"].strategy.redraw == "epoch"
    changing = {label for label, member in plan.members.items() if member.strategy.change}
    assert changing == {"rail-kd", "alp-kd", "cofi"}


def test_the_controls_differ_from_forward_in_their_targets_alone() -> None:
    plan = planned("controls")
    assert len(plan.study.seeds) >= 3
    forward = plan.members["forward"]
    controls = [member for label, member in plan.members.items() if label not in ("none", "forward")]
    assert {member.strategy.targets for member in controls} | {"teacher"} == set(TARGETS)
    for member in controls:
        assert (member.pairs, member.student, member.loss) == (forward.pairs, forward.student, forward.loss)
