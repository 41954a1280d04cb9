"""Data for sequence to sequence: files, nested columns, packaged data, the hub, and errors."""

import json
import logging
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import Dataset, DatasetDict
from transformers import (
    AutoModelForSeq2SeqLM,
)

from kd_train.data import embedded, tables
from kd_train.data.tables import read_file
from kd_train.tasks.sequence_to_sequence import PairedSplit, SequenceToSequenceTask
from layerangles import InputError


def _task(folder: Path, rows: list[dict[str, Any]], **task: Any) -> SequenceToSequenceTask:
    file = folder / "data.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return SequenceToSequenceTask.model_validate({"files": {"train": str(file), "dev": str(file)}} | task)


def test_files_may_have_one_target_or_several(tmp_path: Path) -> None:
    rows = [{"source": "a b", "target": "c"}, {"source": "d", "target": ["e", "f g"]}]
    data = _task(tmp_path, rows).load()
    assert data.examples["dev"] == PairedSplit(["a b", "d"], [("c",), ("e", "f g")])
    assert data.splits == ("train", "dev")
    assert data.texts("train") == [("a b", "c"), ("d", "e")]
    assert data.metrics == ("bleu",)


def test_nested_columns_and_a_prefix_give_the_sources(tmp_path: Path) -> None:
    rows = [{"translation": {"en": "a b", "ro": ["c", "d"]}, "id": 1}, {"translation": {"en": "x", "ro": "y"}, "id": 2}]
    task = _task(tmp_path, rows, source="translation.en", target="translation.ro", source_prefix="translate: ")
    data = task.load()
    assert data.examples["train"] == PairedSplit(["translate: a b", "translate: x"], [("c", "d"), ("y",)])
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
def test_examples_that_cannot_be_used_are_refused(tmp_path: Path, row: dict[str, Any], message: str) -> None:
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
def test_a_missing_key_of_a_nested_column_is_refused(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        _task(tmp_path, [row], source="pair.en", target="pair.ro").load()


def test_lengths_default_to_one_another(tmp_path: Path) -> None:
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
    assert loaded.examples["dev"] == PairedSplit(["w o r d", "a b"], [("W ER1 D",), ("AE1 B",)])


# ---- the hub -------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str | None, str | None], DatasetDict]:
    """A fake hub: data sets by name, configuration and revision."""
    holdings: dict[tuple[str, str | None, str | None], DatasetDict] = {}
    monkeypatch.setattr(datasets, "load_dataset", lambda name, subset, revision=None: holdings[name, subset, revision])
    return holdings


def test_wmt16_has_romanian_targets_and_no_blank_lines(
    hub: dict[tuple[str, str | None, str | None], DatasetDict], caplog: pytest.LogCaptureFixture
) -> None:
    train = Dataset.from_dict({"translation": [{"en": "a", "ro": "b"}, {"en": "", "ro": "c"}, {"en": "d", "ro": "e"}]})
    held_out = Dataset.from_dict({"translation": [{"en": "x", "ro": "y"}]})
    hub["wmt/wmt16", "ro-en", None] = DatasetDict(train=train, validation=held_out, test=held_out)
    with caplog.at_level(logging.INFO):
        data = SequenceToSequenceTask(dataset="wmt/wmt16").load()
    assert "wmt/wmt16 (train): 1 pairs with a blank side are left out" in caplog.text
    assert data.examples["train"] == PairedSplit(["a", "d"], [("b",), ("e",)])
    assert data.splits == ("train", "dev", "test")
    back = SequenceToSequenceTask(dataset="wmt/wmt16", source="translation.ro", target="translation.en")
    assert back.load().texts("dev") == [("y", "x")]


def test_dart_has_triples_as_text_and_all_references(
    hub: dict[tuple[str, str | None, str | None], DatasetDict],
) -> None:
    triples = [["Mars Hill College", "JOINED", "1973"], ["Mars Hill College", "LOCATION", "Mars Hill"]]
    columns = {"tripleset": [triples], "target": ["first"]}
    train = Dataset.from_dict({**columns, "references": [[]]})
    held_out = Dataset.from_dict({**columns, "references": [["first", "second"]]})
    hub["GEM/dart", None, "refs/convert/parquet"] = DatasetDict(train=train, validation=held_out)
    data = SequenceToSequenceTask(dataset="GEM/dart").load()
    source = "Mars Hill College : JOINED : 1973 | Mars Hill College : LOCATION : Mars Hill"
    assert data.examples == {
        "train": PairedSplit([source], [("first",)]),
        "dev": PairedSplit([source], [("first", "second")]),
    }


def test_a_loading_script_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("Dataset scripts are no longer supported, but found x.py")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(InputError, match=r'"some/x" cannot be had from the hub: Dataset scripts are no longer'):
        SequenceToSequenceTask(dataset="some/x").load()
