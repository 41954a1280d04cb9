"""Single tokens against a plain loop in float64 over the models' own hidden states, and the texts they stand in."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from toys.models import toy_bert, toy_texts, toy_tokenizer, write_model, write_student
from toys.studies import ToyStudy
from transformers import (
    AutoModel,
    AutoTokenizer,
    BartConfig,
    BartModel,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizerFast,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from layerangles import InputError, measure_angles, open_student
from layerangles.geometry.maps import MatchingMaps
from layerangles.measurement import token_angles as tokens
from layerangles.measurement.token_angles import TokenAngles, TokenReader
from layerangles.models.checkpoints import ModelCheckpoint, quiet_transformers
from layerangles.models.checkpoints import write_student as write_any_student
from layerangles.models.matching_file import Matching, TeacherReference, TowerMatching
from layerangles.models.weights import weights_sha256

PAIR = (1, 4)


@pytest.fixture(scope="module")
def reader(study: ToyStudy) -> TokenReader:
    return TokenReader(ModelCheckpoint(study.teacher), study.texts, device="cpu")


def states_of(path: Path, texts: Sequence[str]) -> Iterator[tuple[list[int], np.ndarray]]:
    """Of every text its token ids and ``[layer, token, dim]`` in float64, from transformers alone."""
    model, tokenizer = AutoModel.from_pretrained(path).double().eval(), AutoTokenizer.from_pretrained(path)
    for text in texts:
        inputs = tokenizer(text, return_tensors="pt")
        with torch.inference_mode():
            states = model(**inputs, output_hidden_states=True).hidden_states
        yield inputs["input_ids"][0].tolist(), np.stack([state[0].numpy() for state in states])


def angle(a: np.ndarray, b: np.ndarray) -> float:
    return math.degrees(math.acos(max(-1.0, min(1.0, a @ b / math.sqrt((a @ a) * (b @ b))))))


def loop(student: Path, teacher: Path, texts: Sequence[str], layer: int, *, pull: bool = False) -> list[Any]:
    """For every text its ids and the angle at each of its tokens."""
    maps = student / "matching_maps.safetensors"
    stored = {k: v.double().numpy() for k, v in load_file(maps).items()} if maps.exists() else {}
    weight, bias = stored.get(f"encoder.{layer}.weight"), stored.get(f"encoder.{layer}.bias", 0.0)
    found = []
    for (ids, t), (_, s) in zip(states_of(teacher, texts), states_of(student, texts), strict=True):
        angles = []
        for p in range(len(ids)):
            vertex = s[layer][p] if weight is None else weight @ s[layer][p] + bias
            spokes = [t[of][p] - vertex for of in PAIR]
            angles.append(angle(*(spokes if weight is None or not pull else [weight.T @ spoke for spoke in spokes])))
        found.append((ids, angles))
    return found


def by_text(angles: TokenAngles) -> dict[tuple[int, ...], list[list[float]]]:
    """The angles of every example in reading order, by its ids; equal texts have equal ids."""
    found: dict[tuple[int, ...], list[list[float]]] = {}
    for number, ids in angles.ids.items():
        mine = angles.example == number
        assert angles.place[mine].tolist() == list(range(len(ids)))
        found.setdefault(tuple(ids), []).append(angles.angle_deg[mine].tolist())
    return found


@pytest.mark.parametrize(
    ("name", "layer"), [("identity", 1), ("identity", 2), ("deeper", 3), ("learned", 0), ("learned", 1)]
)
@pytest.mark.parametrize("space", ["teacher", "pull"])
def test_every_token_has_the_angle_of_a_plain_loop(
    study: ToyStudy, reader: TokenReader, name: str, layer: int, space: Any
) -> None:
    path = study.root / "students" / name
    found = by_text(reader.angles(open_student(path), "encoder", layer, PAIR, space))
    expected = loop(path, study.teacher, study.texts, layer, pull=space == "pull")
    assert sum(map(len, found.values())) == len(expected) == len(study.texts)
    for ids, angles in expected:
        for mine in found[tuple(ids)]:
            np.testing.assert_allclose(mine, angles, rtol=0, atol=2e-3)
    assert np.std([a for _, angles in expected for a in angles]) > 3  # degrees: there is something to get wrong


@pytest.mark.parametrize(("name", "space"), [("identity", "teacher"), ("learned", "teacher"), ("learned", "pull")])
def test_the_mean_over_tokens_is_what_is_measured(study: ToyStudy, reader: TokenReader, name: str, space: Any) -> None:
    path = study.root / "students" / name
    measured = measure_angles(path, study.texts, space=space, device="cpu").dataset
    for layer, pair in ((0, (2, 3)), (1, PAIR), (1, PAIR[::-1])):
        angles = reader.angles(open_student(path), "encoder", layer, pair, space).angle_deg
        of_pair = measured.sel(student=name, tower="encoder", student_layer=layer, layer_a=pair[0], layer_b=pair[1])
        assert float(angles.mean()) == pytest.approx(float(of_pair["angle_deg"]), abs=1e-4)
        assert float((angles < 90).double().mean()) == float(of_pair["acute_fraction"])
        assert len(angles) == int(of_pair["n_tokens"])


def test_batches_and_other_students_change_nothing(
    study: ToyStudy, reader: TokenReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    students = [open_student(path) for path in study.students]
    first = [reader.angles(s, "encoder", 1, PAIR).angle_deg for s in students]
    again = TokenReader(ModelCheckpoint(study.teacher), study.texts, device="cpu")
    calls = []
    states = again._states
    monkeypatch.setattr(again, "_states", lambda checkpoint: calls.append(checkpoint.path) or states(checkpoint))
    monkeypatch.setattr(tokens, "_STATES_KEPT", 2)
    for number in (3, 2, 3, 1, 3, 2):
        assert torch.equal(again.angles(students[number], "encoder", 1, PAIR).angle_deg, first[number])
    # The teacher is read once, and a student again only after two others.
    assert [path.name for path in calls[1:]] == [students[n].path.name for n in (3, 2, 1, 2)]
    assert calls.count(study.teacher) == 1


def test_a_student_that_was_trained_anew_is_read_anew(tmp_path: Path, study: ToyStudy, reader: TokenReader) -> None:
    path = write_student(tmp_path / "s", study.teacher, seed=1)
    before = reader.angles(open_student(path), "encoder", 1, PAIR).angle_deg
    write_student(path, study.teacher, seed=2, overwrite=True)
    after = reader.angles(open_student(path), "encoder", 1, PAIR).angle_deg
    assert float((before - after).abs().max()) > 1


def test_where_the_student_is_the_teacher_there_is_no_angle(
    tmp_path: Path, study: ToyStudy, reader: TokenReader
) -> None:
    student = write_student(tmp_path / "copy", study.teacher, model=toy_bert(layers=4))
    angles = reader.angles(open_student(student), "encoder", 1, PAIR)
    assert angles.angle_deg.isnan().all()
    assert angles.extremes(3, largest=True) == angles.extremes(3, largest=False) == []
    assert reader.sentences(angles, 3, largest=True) == []


# The extremes


@pytest.mark.parametrize("largest", [True, False])
def test_extremes_are_the_smallest_and_largest_angles(study: ToyStudy, reader: TokenReader, largest: bool) -> None:
    angles = reader.angles(open_student(study.learned), "encoder", 1, PAIR)
    found = angles.extremes(5, largest=largest)
    assert len({example for example, _ in found}) == 5
    best = max if largest else min
    by_example = {e: best(angles.angle_deg[angles.example == e].tolist()) for e in angles.ids}
    shown = [angles.angle_deg[(angles.example == example) & (angles.place == place)].item() for example, place in found]
    assert shown == sorted(by_example.values(), reverse=largest)[:5]
    sentences = reader.sentences(angles, 5, largest=largest)
    for sentence, value in zip(sentences, shown, strict=True):
        values = [piece.angle_deg for piece in sentence.pieces]
        assert values[sentence.extreme] == value == best(values)


def test_extremes_leave_out_what_has_no_angle_and_end_with_the_texts() -> None:
    nan = math.nan
    angles = TokenAngles(
        angle_deg=torch.tensor([nan, 50.0, 10.0, 170.0, nan, 60.0]),
        example=torch.tensor([0, 0, 1, 1, 2, 3]),
        place=torch.tensor([0, 1, 0, 1, 0, 4]),
        ids={},
    )
    assert angles.extremes(9, largest=True) == [(1, 1), (3, 4), (0, 1)]
    assert angles.extremes(9, largest=False) == [(1, 0), (0, 1), (3, 4)]
    assert angles.extremes(1, largest=True) == [(1, 1)]
    assert angles.extremes(0, largest=True) == []


# The texts


def test_a_sentence_is_the_text_put_together_again(study: ToyStudy, reader: TokenReader) -> None:
    angles = reader.angles(open_student(study.identity), "encoder", 1, PAIR)
    sentences = reader.sentences(angles, len(study.texts), largest=True)
    tokenizer = toy_tokenizer()
    found = ["".join(piece.text for piece in sentence.pieces) for sentence in sentences]
    expected = [tokenizer.decode(tokenizer(text)["input_ids"]) for text in study.texts]
    assert sorted(found) == sorted(expected)
    for sentence in sentences:
        words = [piece.text.strip() for piece in sentence.pieces]
        assert " ".join(words[1:-1]) in study.texts
        assert (words[0], words[-1]) == ("[CLS]", "[SEP]")
        assert not any(math.isnan(piece.angle_deg) for piece in sentence.pieces)


def test_texts_that_were_cut_end_where_they_were_cut(study: ToyStudy) -> None:
    short = TokenReader(ModelCheckpoint(study.teacher), ["a b c d e f", "a"], max_length=5, device="cpu")
    angles = short.angles(open_student(study.identity), "encoder", 1, PAIR)
    sentences = short.sentences(angles, 2, largest=True)
    assert sorted("".join(p.text for p in s.pieces) for s in sentences) == ["[CLS] a [SEP]", "[CLS] a b c [SEP]"]


def byte_level() -> PreTrainedTokenizerBase:
    """One token a byte, as GPT-2 and its kind have where they know no better."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<pad>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{"pad_token": "<pad>"}, model_input_names=["input_ids", "attention_mask"]
    )


def word_pieces() -> PreTrainedTokenizerBase:
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##believ", "##able", "film", ",", "."]
    return BertTokenizerFast(vocab={token: i for i, token in enumerate(vocabulary)})


def read_with(tmp_path: Path, tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[str]]:
    """The pieces of each text, by a teacher and a student with this tokenizer."""
    model: Any = [
        BertForSequenceClassification(
            BertConfig(
                vocab_size=len(tokenizer),
                hidden_size=16,
                num_hidden_layers=layers,
                num_attention_heads=2,
                intermediate_size=16,
            )
        )
        for layers in (2, 1)
    ]
    teacher = write_model(tmp_path / "teacher", model[0], tokenizer)
    student = write_student(tmp_path / "student", teacher, model=model[1], tokenizer=tokenizer, pairs=((0, 0),))
    reader = TokenReader(ModelCheckpoint(teacher), texts, device="cpu")
    sentences = reader.sentences(reader.angles(open_student(student), "encoder", 1, (0, 2)), len(texts), largest=True)
    by_length = sorted(([piece.text for piece in sentence.pieces] for sentence in sentences), key=len)
    assert len(by_length) == len(texts)
    return by_length


def test_characters_of_several_tokens_are_whole(tmp_path: Path) -> None:
    texts = ["naïve 🙂!", "x"]
    short, long = read_with(tmp_path, byte_level(), texts)
    assert short == ["x"]
    assert "".join(long) == "naïve 🙂!"
    assert len(long) == len("naïve 🙂!".encode())
    assert long[2:4] == ["", "ï"]  # what a half of it would be is not shown
    assert long[7:12] == ["", "", "", "🙂", "!"]


def test_word_pieces_join_without_a_gap(tmp_path: Path) -> None:
    (pieces,) = read_with(tmp_path, word_pieces(), ["unbelievable film, unbelievable."])
    assert "".join(pieces).replace(" ", "") == "[CLS]unbelievablefilm,unbelievable.[SEP]"
    assert pieces[1:4] == [" un", "believ", "able"]


def test_the_texts_of_a_decoder_are_what_it_reads(tmp_path: Path) -> None:
    tokenizer = toy_tokenizer()
    config = dict.fromkeys(["encoder_attention_heads", "decoder_attention_heads"], 2) | dict.fromkeys(
        ["encoder_ffn_dim", "decoder_ffn_dim"], 32
    )

    def bart(layers: int) -> BartModel:
        torch.manual_seed(layers)
        return BartModel(
            BartConfig(
                vocab_size=len(tokenizer),
                d_model=16,
                encoder_layers=layers,
                decoder_layers=layers,
                max_position_embeddings=32,
                pad_token_id=0,
                bos_token_id=2,
                eos_token_id=3,
                decoder_start_token_id=3,
                forced_eos_token_id=None,
                **config,
            )
        ).eval()

    teacher = write_model(tmp_path / "teacher", bart(3), tokenizer)
    towers = {tower: TowerMatching(pairs=((1, 2),), map="identity") for tower in ("encoder", "decoder")}
    matching = Matching(
        teacher=TeacherReference(path=str(teacher), weights_sha256=weights_sha256(teacher)),
        strategy={"kind": "forward"},
        seed=0,
        step=0,
        towers=towers,
        init={},
        loss={},
    )
    with quiet_transformers():
        write_any_student(tmp_path / "student", bart(1), tokenizer, matching, MatchingMaps())
    student = open_student(tmp_path / "student")
    texts = [("a b", "c"), ("d", "e f g")]
    reader = TokenReader(ModelCheckpoint(teacher), texts, device="cpu")
    measured = measure_angles(student, texts, device="cpu").dataset
    for tower, expected in (
        ("encoder", {"[CLS] a b [SEP]", "[CLS] d [SEP]"}),
        ("decoder", {"[SEP] [CLS] c", "[SEP] [CLS] e f g"}),
    ):
        angles = reader.angles(student, tower, 1, (0, 3))  # type: ignore[arg-type]
        sentences = reader.sentences(angles, 2, largest=False)
        assert {"".join(piece.text for piece in s.pieces) for s in sentences} == expected
        mean = measured["angle_deg"].sel(student="student", tower=tower, student_layer=1, layer_a=0, layer_b=3)
        assert float(angles.angle_deg.mean()) == pytest.approx(float(mean), abs=1e-4)


# What is refused


def test_gradient_space_and_layers_without_a_map_are_refused(study: ToyStudy, reader: TokenReader) -> None:
    with pytest.raises(InputError, match=r"no angles of single tokens\. Choose teacher or pull"):
        reader.angles(open_student(study.identity), "encoder", 1, PAIR, "gradient")
    with pytest.raises(InputError, match=r"layer 2 of learned has no map, so that no angle is seen from it"):
        reader.angles(open_student(study.learned), "encoder", 2, PAIR)


def test_no_texts_are_refused(study: ToyStudy) -> None:
    with pytest.raises(InputError, match="there are no texts"):
        TokenReader(ModelCheckpoint(study.teacher), [], device="cpu")


def test_many_texts_in_several_batches_have_the_angles_of_a_plain_loop(study: ToyStudy) -> None:
    texts = toy_texts(70, seed=5)
    many = TokenReader(ModelCheckpoint(study.teacher), texts, device="cpu")
    angles = many.angles(open_student(study.identity), "encoder", 1, PAIR)
    assert sorted(angles.ids) == list(range(70))
    found = by_text(angles)
    for ids, expected in loop(study.identity, study.teacher, texts, 1):
        for mine in found[tuple(ids)]:
            np.testing.assert_allclose(mine, expected, rtol=0, atol=2e-3)
