"""Sequence to sequence: data of every kind, what encoder and decoder read, and what a model writes."""

import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset, DatasetDict
from toys import INITIALIZER_RANGE, N_TOKENS_IN_VOCABULARY, toy_texts, toy_tokenizer
from transformers import (
    AutoModelForSeq2SeqLM,
    BartConfig,
    GenerationConfig,
    MarianConfig,
    PretrainedConfig,
    PreTrainedModel,
    T5Config,
)

from kd_train import embedded, tables
from kd_train.evaluate import score
from kd_train.tables import read_file
from kd_train.tasks.base import IGNORED, Feature
from kd_train.tasks.sequence_to_sequence import SequenceToSequence, SequenceToSequenceTask, Split
from kd_train.text_metrics import TEXT_METRICS
from layerangles import InputError
from layerangles.states import forward_with_states
from layerangles.texts import EncodedTexts

_SIZES = {"vocab_size": N_TOKENS_IN_VOCABULARY, "pad_token_id": 0, "eos_token_id": 3, "d_model": 32}
_BART = _SIZES | {"bos_token_id": 2, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4}
_BART |= {"decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "init_std": INITIALIZER_RANGE}
_BART |= {"max_position_embeddings": 64}
CONFIGS: dict[str, PretrainedConfig] = {
    "t5": T5Config(
        **_SIZES, d_kv=8, d_ff=64, num_heads=4, num_layers=2, num_decoder_layers=2, decoder_start_token_id=0
    ),
    "bart": BartConfig(**_BART, decoder_start_token_id=3),
    "marian": MarianConfig(**_BART, decoder_start_token_id=0, decoder_vocab_size=N_TOKENS_IN_VOCABULARY),
}
CPU = Accelerator(cpu=True)


def _model(kind: str, *, seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    return AutoModelForSeq2SeqLM.from_config(CONFIGS[kind]).eval()


def _data(n: int = 12, **options: Any) -> SequenceToSequence:
    sources, targets = toy_texts(n, seed=1), toy_texts(n, seed=2)
    examples = {"dev": Split(sources, [(target, "a b c") for target in targets])}
    defaults = {"max_length": 64, "max_target_length": 64, "max_new_tokens": 10, "beams": 1, "metrics": ("bleu",)}
    return SequenceToSequence(examples=examples, **{**defaults, **options})


def _encoded(data: SequenceToSequence, kind: str) -> list[Feature]:
    return data.encode("dev", toy_tokenizer(), CONFIGS[kind])


def _task(folder: Path, rows: list[dict[str, Any]], **task: Any) -> SequenceToSequenceTask:
    file = folder / "data.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return SequenceToSequenceTask.model_validate({"files": {"train": str(file), "dev": str(file)}} | task)


# ---- the data ------------------------------------------------------------------------------------------------------


def test_files_with_one_target_or_several(tmp_path: Path) -> None:
    rows = [{"source": "a b", "target": "c"}, {"source": "d", "target": ["e", "f g"]}]
    data = _task(tmp_path, rows).load()
    assert data.examples["dev"] == Split(["a b", "d"], [("c",), ("e", "f g")])
    assert data.splits == ("train", "dev")
    assert data.texts("train") == [("a b", "c"), ("d", "e")]
    assert data.metrics == ("bleu",)


def test_columns_within_columns_and_a_prefix(tmp_path: Path) -> None:
    rows = [{"translation": {"en": "a b", "ro": ["c", "d"]}, "id": 1}, {"translation": {"en": "x", "ro": "y"}, "id": 2}]
    task = _task(tmp_path, rows, source="translation.en", target="translation.ro", source_prefix="translate: ")
    data = task.load()
    assert data.examples["train"] == Split(["translate: a b", "translate: x"], [("c", "d"), ("y",)])
    assert data.texts("train") == [("translate: a b", "c"), ("translate: x", "y")]


def test_nested_columns_survive_a_parquet_file(tmp_path: Path) -> None:
    columns = {"pair": [{"source": "a", "target": ["b", "c"]}], "turns": [[{"q": "x"}, {"q": "y"}]]}
    Dataset.from_dict(columns).to_parquet(tmp_path / "data.parquet")
    table = read_file(tmp_path / "data.parquet")
    assert table.column("pair.source") == ["a"]
    assert table.several_texts("pair.target") == [("b", "c")]
    assert table.column("turns.q") == [["x", "y"]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"source": "a"}, r'no column "target"; its columns are source'),
        ({"source": " ", "target": "b"}, r"example 1: the text is ' '\. Every text must be a string with content"),
        ({"source": "a", "target": []}, r'example 1: "target" is \[\]\. Allowed is a string with content, or a list'),
        ({"source": "a", "target": ["b", ""]}, r"""example 1: "target" is \['b', ''\]"""),
        ({"source": "a", "target": None}, r'example 1: "target" is None'),
        ({"source": "a", "target": 3}, r'example 1: "target" is 3'),
    ],
)
def test_examples_that_cannot_be_used(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        _task(tmp_path, [row]).load()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"pair": {"ro": "b"}},
            r'example 1: there is no "pair\.en"; where "en" should be, there is the keys ro\. Name',
        ),
        ({"pair": "b"}, r"""where "en" should be, there is 'b'\. Name the right column"""),
        ({"other": "b"}, r'no column "pair\.en"; its columns are other'),
    ],
)
def test_a_path_that_leads_nowhere(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        _task(tmp_path, [row], source="pair.en", target="pair.ro").load()


def test_lengths_follow_one_another(tmp_path: Path) -> None:
    rows = [{"source": "a", "target": "b"}]
    data = _task(tmp_path, rows, max_length=20).load()
    assert (data.max_target_length, data.max_new_tokens, data.beams) == (20, 20, 1)
    data = _task(tmp_path, rows, max_length=20, max_target_length=9, beams=4).load()
    assert (data.max_length, data.max_target_length, data.max_new_tokens, data.beams) == (20, 9, 9, 4)
    assert _task(tmp_path, rows, max_target_length=9, max_new_tokens=5).load().max_new_tokens == 5


def test_settings_are_checked(tmp_path: Path) -> None:
    allowed = "bleu, chrf, ter, rouge1, rouge2, rougeL, exact_match, token_error_rate"
    with pytest.raises(ValueError, match=f"unknown metric f1; allowed are {allowed}"):
        _task(tmp_path, [], metrics=["f1"])
    with pytest.raises(ValueError, match="greater than 0"):
        _task(tmp_path, [], beams=0)
    task = _task(tmp_path, [{"source": "a", "target": "b"}])
    assert task.towers() == (("encoder", "decoder"),)
    assert task.auto_model() is AutoModelForSeq2SeqLM
    assert not task.all_metrics["ter"].higher_is_better


def test_embedded_pairs_become_sources_and_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    part = embedded.PairedTexts(("w o r d", "a b"), ("W ER1 D", "AE1 B"))
    data = embedded.PairedData({"train": part, "dev": part})
    monkeypatch.setattr(tables.embedded, "load_dataset", lambda name: data)
    loaded = SequenceToSequenceTask(dataset="embedded/letters-to-sounds").load()
    assert loaded.examples["dev"] == Split(["w o r d", "a b"], [("W ER1 D",), ("AE1 B",)])


# ---- the hub -------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str | None, str | None], DatasetDict]:
    """A hub of our own: data sets by name, configuration and revision."""
    holdings: dict[tuple[str, str | None, str | None], DatasetDict] = {}
    monkeypatch.setattr(datasets, "load_dataset", lambda name, subset, revision=None: holdings[name, subset, revision])
    return holdings


def test_wmt16_translates_into_romanian_without_blank_lines(
    hub: dict[tuple[str, str | None, str | None], DatasetDict], caplog: pytest.LogCaptureFixture
) -> None:
    train = Dataset.from_dict({"translation": [{"en": "a", "ro": "b"}, {"en": "", "ro": "c"}, {"en": "d", "ro": "e"}]})
    held_out = Dataset.from_dict({"translation": [{"en": "x", "ro": "y"}]})
    hub["wmt/wmt16", "ro-en", None] = DatasetDict(train=train, validation=held_out, test=held_out)
    with caplog.at_level(logging.INFO):
        data = SequenceToSequenceTask(dataset="wmt/wmt16").load()
    assert "wmt/wmt16 (train): 1 pairs with a blank side are left out" in caplog.text
    assert data.examples["train"] == Split(["a", "d"], [("b",), ("e",)])
    assert data.splits == ("train", "dev", "test")
    back = SequenceToSequenceTask(dataset="wmt/wmt16", source="translation.ro", target="translation.en")
    assert back.load().texts("dev") == [("y", "x")]


def test_dart_tells_what_its_triples_say(hub: dict[tuple[str, str | None, str | None], DatasetDict]) -> None:
    triples = [["Mars Hill College", "JOINED", "1973"], ["Mars Hill College", "LOCATION", "Mars Hill"]]
    columns = {"tripleset": [triples], "target": ["first"]}
    train = Dataset.from_dict({**columns, "references": [[]]})
    held_out = Dataset.from_dict({**columns, "references": [["first", "second"]]})
    hub["GEM/dart", None, "refs/convert/parquet"] = DatasetDict(train=train, validation=held_out)
    data = SequenceToSequenceTask(dataset="GEM/dart").load()
    source = "Mars Hill College : JOINED : 1973 | Mars Hill College : LOCATION : Mars Hill"
    assert data.examples == {"train": Split([source], [("first",)]), "dev": Split([source], [("first", "second")])}


def test_a_loading_script_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("Dataset scripts are no longer supported, but found x.py")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(InputError, match=r'"some/x" cannot be had from the hub: Dataset scripts are no longer'):
        SequenceToSequenceTask(dataset="some/x").load()


# ---- tokens --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_decoder_reads_the_target_one_place_later(kind: str) -> None:
    data, tokenizer = _data(), toy_tokenizer()
    features = _encoded(data, kind)
    for (source, target), feature in zip(data.texts("dev"), features, strict=True):
        assert feature == {
            "input_ids": tokenizer(source)["input_ids"],
            "labels": tokenizer(target)["input_ids"],
            "decoder_input_ids": [CONFIGS[kind].decoder_start_token_id, *tokenizer(target)["input_ids"][:-1]],
        }
        assert data.lengths(feature) == (len(feature["input_ids"]), len(feature["labels"]))


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_labels_are_those_of_transformers_own_loss(kind: str) -> None:
    """A part of several lengths: both the loss and the decoder's inputs are what transformers makes of the labels."""
    model, data, tokenizer = _model(kind), _data(), toy_tokenizer()
    part = data.collate(_encoded(data, kind), tokenizer)
    assert set(part.inputs) == {"input_ids", "attention_mask", "decoder_input_ids", "decoder_attention_mask"}
    with torch.no_grad():
        logits = model(**part.inputs).logits
        theirs = model(part.inputs["input_ids"], part.inputs["attention_mask"], labels=part.labels).loss
    ours = torch.nn.functional.cross_entropy(logits.flatten(0, 1), part.labels.flatten(), ignore_index=IGNORED)
    assert torch.allclose(ours, theirs, rtol=1e-5)
    assert logits.shape[:2] == part.labels.shape
    assert torch.equal(part.labels != IGNORED, part.counted["decoder"])
    assert torch.equal(part.inputs["attention_mask"].bool(), part.counted["encoder"])
    assert part.labels.eq(IGNORED).any()
    assert {tower: int(mask.sum()) for tower, mask in part.counted.items()} == {
        "encoder": sum(len(f["input_ids"]) for f in _encoded(data, kind)),
        "decoder": sum(len(f["labels"]) for f in _encoded(data, kind)),
    }


@pytest.mark.parametrize("kind", CONFIGS)
def test_padding_changes_no_logits_of_a_label(kind: str) -> None:
    model, data, tokenizer = _model(kind), _data(), toy_tokenizer()
    features = _encoded(data, kind)
    part = data.collate(features, tokenizer)
    with torch.no_grad():
        together = model(**part.inputs).logits
        for row, feature in enumerate(features):
            alone = model(**data.collate([feature], tokenizer).inputs).logits[0]
            assert torch.allclose(together[row, : len(alone)], alone, atol=1e-4)


def test_tokens_are_those_that_angles_are_measured_on() -> None:
    data, config = _data(), CONFIGS["t5"]
    part = data.collate(_encoded(data, "t5"), toy_tokenizer())
    encoded = EncodedTexts.from_texts(data.texts("dev"), toy_tokenizer(), max_length=64, config=config)
    (batch,) = encoded.batches(12)
    for tower, counted in part.counted.items():
        assert counted.sum() == batch.counted[tower].sum()
    model = _model("t5")
    with torch.no_grad():
        states = forward_with_states(model, part.inputs)[1]["decoder"][-1][part.counted["decoder"]]
        theirs = forward_with_states(model, batch.inputs)[1]["decoder"][-1][batch.counted["decoder"]]
    assert torch.allclose(states.sum(0), theirs.sum(0), atol=1e-2)


def test_source_and_target_are_cut_apart() -> None:
    data = _data(max_length=6, max_target_length=4, max_new_tokens=4)
    features = _encoded(data, "bart")
    assert max(len(f["input_ids"]) for f in features) == 6
    assert max(len(f["labels"]) for f in features) == max(len(f["decoder_input_ids"]) for f in features) == 4
    assert all(feature["labels"][-1] == 3 for feature in features)  # where it is cut it still ends


def test_targets_may_be_cut_shorter_than_what_special_tokens_need() -> None:
    with pytest.raises(InputError, match=r"max_target_length is 2, of which this tokenizer needs 2 .* Allowed are 3"):
        EncodedTexts.from_texts(
            [("a", "b")], toy_tokenizer(), max_length=9, max_target_length=2, config=CONFIGS["bart"]
        )


def test_more_than_a_model_has_positions_for() -> None:
    with pytest.raises(InputError, match=r"max_new_tokens is 65, more than the 64 tokens that this model can write"):
        _encoded(_data(max_new_tokens=65), "bart")
    assert _encoded(_data(max_new_tokens=65), "t5")  # whose positions are relative


def test_a_model_that_would_never_learn_to_stop() -> None:
    config = T5Config(**CONFIGS["t5"].to_dict() | {"eos_token_id": 7})
    with pytest.raises(InputError, match=r"ends no target with the model's end token \(\[7\]\)"):
        _data().encode("dev", toy_tokenizer(), config)


# ---- what is written -----------------------------------------------------------------------------------------------


@pytest.fixture
def no_complaints(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Neither warnings nor log messages of transformers."""
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    logger.removeHandler(caplog.handler)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def _one_by_one(model: PreTrainedModel, data: SequenceToSequence, features: list[Feature]) -> list[str]:
    """Every source alone, as transformers' own manual does it."""
    texts = []
    for feature in features:
        with torch.no_grad():
            (ids,) = model.generate(
                torch.tensor([feature["input_ids"]]),
                num_beams=data.beams,
                max_new_tokens=data.max_new_tokens,
                do_sample=False,
            )
        texts.append(toy_tokenizer().decode(ids, skip_special_tokens=True))
    return texts


@pytest.mark.usefixtures("no_complaints")
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("kind", CONFIGS)
def test_batches_write_what_every_source_alone_writes(kind: str, beams: int) -> None:
    model, data = _model(kind, seed=3), _data(beams=beams)
    features = _encoded(data, kind)
    written = data.written(model, features, toy_tokenizer(), CPU)
    assert written == _one_by_one(model, data, features)
    assert len(set(written)) > 3
    assert max(len(text.split()) for text in written) <= 10


def test_a_search_of_more_beams_finds_likelier_texts() -> None:
    """T5 and BART alike: log-likelihoods under the model itself, a few examples apart."""
    model = _model("t5", seed=3)
    found = {beams: _data(40, beams=beams, max_new_tokens=6) for beams in (1, 5)}
    features = _encoded(found[1], "t5")
    texts = {beams: data.written(model, features, toy_tokenizer(), CPU) for beams, data in found.items()}
    assert texts[1] != texts[5]


@pytest.mark.usefixtures("no_complaints")
def test_a_models_own_generation_config_is_left_aside_and_kept() -> None:
    """Teacher and students are decoded alike, whatever their files say about sampling and penalties."""
    model, data = _model("bart", seed=3), _data(beams=3)
    features = _encoded(data, "bart")
    expected = data.written(model, features, toy_tokenizer(), CPU)
    theirs = GenerationConfig(
        do_sample=True,
        temperature=3.0,
        top_k=5,
        top_p=0.5,
        min_length=8,
        no_repeat_ngram_size=1,
        num_beams=2,
        length_penalty=5.0,
        early_stopping=True,
        forced_bos_token_id=9,
        use_cache=False,
    )
    model.generation_config = theirs
    assert data.written(model, features, toy_tokenizer(), CPU) == expected
    assert model.generation_config is theirs
    assert theirs.temperature == 3.0


def test_a_models_generation_config_is_kept_when_generation_fails() -> None:
    model, data = _model("bart"), _data()
    theirs = model.generation_config
    with pytest.raises(IndexError):
        data.written(model, [{"input_ids": [999]}], toy_tokenizer(), CPU)
    assert model.generation_config is theirs


@pytest.mark.usefixtures("no_complaints")
@pytest.mark.parametrize("training", [True, False])
def test_scores_are_those_of_the_texts_against_all_references(training: bool) -> None:
    model, data = _model("marian", seed=3), _data(metrics=tuple(TEXT_METRICS), beams=2)
    features = _encoded(data, "marian")
    written = _one_by_one(model, data, features)
    model.train(training)
    scores = data.score(model, "dev", features, toy_tokenizer(), CPU)
    assert model.training == training
    assert scores == pytest.approx(score(data.examples["dev"].targets, written, TEXT_METRICS))
    first_alone = [targets[0] for targets in data.examples["dev"].targets]
    assert scores != pytest.approx(score(first_alone, written, TEXT_METRICS))
    assert list(scores) == list(TEXT_METRICS)


@pytest.mark.usefixtures("no_complaints")
def test_a_model_with_adapters_writes() -> None:
    peft = pytest.importorskip("peft")
    model, data = _model("t5", seed=3), _data(beams=2)
    features = _encoded(data, "t5")
    expected = data.written(model, features, toy_tokenizer(), CPU)
    peft.inject_adapter_in_model(peft.LoraConfig(r=2, target_modules=["q", "v"]), model)
    assert data.written(model, features, toy_tokenizer(), CPU) == expected  # new adapters change nothing


def test_a_model_that_has_learnt_its_targets_scores_100() -> None:
    """The whole way: what is learnt from parts comes back out of generation."""
    model, data = _model("bart"), _data(4, beams=2, max_new_tokens=16)
    features = _encoded(data, "bart")
    part = data.collate(features, toy_tokenizer())
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(150):
        logits = model(**part.inputs).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), part.labels.flatten(), ignore_index=IGNORED)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    firsts = [target for _, target in data.texts("dev")]
    assert data.written(model, features, toy_tokenizer(), CPU) == firsts
    assert data.score(model, "dev", features, toy_tokenizer(), CPU) == {"bleu": pytest.approx(100)}
