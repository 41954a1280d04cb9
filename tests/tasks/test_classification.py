"""Classification: files of every kind, labels, errors, the loss, and predictions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from toys.models import toy_bert, toy_texts, toy_tokenizer
from toys.training import write_jsonl, write_task
from transformers import BertConfig

from kd_train.tasks.base import Feature
from kd_train.tasks.classification import Classification, ClassificationTask
from kd_train.tasks.labelled import LabelledSplit
from layerangles import InputError

TEXTS = ["one, two", 'a "quoted" word', "2020-01-01", "17", "NA", "ünïcode", "last"]
LABELS = ["no", "yes", "no", "maybe", "yes", "no", "maybe"]


def _write_jsonl(path: Path, frame: pd.DataFrame) -> None:
    write_jsonl(path, frame.to_dict(orient="records"))


WRITERS: dict[str, Callable[[Path, pd.DataFrame], None]] = {
    ".jsonl": _write_jsonl,
    ".csv": lambda path, frame: frame.to_csv(path, index=False),
    ".tsv": lambda path, frame: path.write_text(
        "".join("\t".join(map(str, row)) + "\n" for row in [list(frame.columns), *frame.values.tolist()]),
        encoding="utf-8",
    ),
    ".parquet": lambda path, frame: frame.to_parquet(path),
}


def _task(folder: Path, suffix: str, columns: dict[str, list[Any]], **task: Any) -> ClassificationTask:
    files = {}
    for split in ("train", "dev"):
        files[split] = str(folder / f"{split}{suffix}")
        WRITERS[suffix](Path(files[split]), pd.DataFrame(columns))
    return ClassificationTask.model_validate({"files": files} | task)


def _jsonl(folder: Path, rows: list[dict[str, Any]], dev: list[dict[str, Any]] | None = None, **task: Any) -> Any:
    files = {"train": str(write_jsonl(folder / "train.jsonl", rows))}
    files["dev"] = str(write_jsonl(folder / "dev.jsonl", rows if dev is None else dev))
    return ClassificationTask.model_validate({"files": files} | task)


ROWS = [{"text": "good", "label": "yes"}, {"text": "bad", "label": "no"}]


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_kind_of_file_gives_the_same_examples(tmp_path: Path, suffix: str) -> None:
    data = _task(tmp_path, suffix, {"text": TEXTS, "label": LABELS}).load()
    assert data.label_names == ("maybe", "no", "yes")
    assert data.metrics == ("accuracy",)
    assert set(data.splits) == {"train", "dev"}
    assert data.examples["train"] == LabelledSplit(TEXTS, [1, 2, 1, 0, 2, 1, 0])


@pytest.mark.parametrize("suffix", WRITERS)
def test_texts_may_be_pairs_of_columns_and_labels_numbers(tmp_path: Path, suffix: str) -> None:
    columns = {"premise": TEXTS, "hypothesis": TEXTS[::-1], "gold": [10, 2, 10, 2, 2, 10, 2]}
    data = _task(tmp_path, suffix, columns, text=["premise", "hypothesis"], label="gold").load()
    assert data.label_names == ("2", "10")  # by number, not by letter
    assert data.examples["dev"] == LabelledSplit(list(zip(TEXTS, TEXTS[::-1], strict=True)), [1, 0, 1, 0, 0, 1, 0])


def test_labels_are_numbered_as_they_are_named(tmp_path: Path) -> None:
    assert _jsonl(tmp_path, ROWS, label_names=["yes", "no"]).load().examples["train"].labels == [0, 1]
    assert _jsonl(tmp_path, ROWS).load().examples["train"].labels == [1, 0]


def test_whole_numbers_are_the_numbers_of_named_labels(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": 1}, {"text": "b", "label": 0}]
    data = _jsonl(tmp_path, rows, label_names=["no", "yes"]).load()
    assert data.label_names == ("no", "yes")
    assert data.examples["train"].labels == [1, 0]


def test_a_split_keeps_its_first_examples(tmp_path: Path) -> None:
    data = _task(tmp_path, ".csv", {"text": TEXTS, "label": LABELS}, limit={"train": 4}).load()
    assert data.examples["train"] == LabelledSplit(TEXTS[:4], [1, 2, 1, 0])
    assert len(data.examples["dev"].texts) == 7


def _data(*names: str) -> Classification:
    examples = {"dev": LabelledSplit(["a", "b", "c"], [0, 1, len(names) - 1])}
    return Classification(examples, ("accuracy",), 64, names)


def _config(*names: str) -> BertConfig:
    return BertConfig(id2label=dict(enumerate(names)))


def test_labels_take_the_numbers_of_the_teacher() -> None:
    data = _data("no", "maybe", "yes").fitted_to(_config("yes", "no", "maybe"))
    assert data.label_names == ("yes", "no", "maybe")
    assert data.examples["dev"].labels == [1, 2, 0]
    assert _data("no", "yes").fitted_to(_config("no", "yes")).examples["dev"].labels == [0, 1, 1]


def test_a_teacher_without_label_names_keeps_the_numbers_of_the_data() -> None:
    assert _data("no", "yes").fitted_to(BertConfig(num_labels=2)).label_names == ("no", "yes")


@pytest.mark.parametrize("names", [("NEG", "POS"), ("LABEL_0", "LABEL_1", "LABEL_2"), ("no",)])
def test_labels_that_differ_from_the_teachers_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        _data("no", "yes").fitted_to(_config(*names))
    assert "the data have 2 (no, yes)" in str(caught.value)
    assert f"the teacher has {len(names)} ({', '.join(names)})" in str(caught.value)
    assert "Fine-tune the teacher on these data (teacher.finetune)" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"train\.csv is empty\. Give a file with at least one example"),
        (b"text,label\n", r"train\.csv is empty: it holds no example for the train split"),
        (
            b"words,label\na,b\n",
            r'has no column "text"; its columns are words, label\. Name the right ones in the study',
        ),
        (b"text,gold\na,b\n", r'has no column "label"; its columns are text, gold'),
        (b"text,label\na,x\n ,y\n", r"example 2: the text is ' '\. Every text must be a string with content"),
        (b"text,label\na,x\n,y\n", r"example 2: the text is ''"),
        (b"text,label\na,x\nb,\n", r"example 2: the label is ''"),
        (b"text,label\na,x\nb,x\n", "the train split has only one label, x; a classification needs at least two"),
        (b"text,label\na,x,1,2\nb,y,1\nc,d,e,f,g,h\n", r"train\.csv cannot be read as csv: .*Repair or convert it"),
        (b"text,label\ngood, very good,x\nbad,y\n", r"train\.csv cannot be read as csv: "),
        (b"text,label\nmore, more,x\nmore, more,y\n", r"train\.csv cannot be read as csv: "),
        (b"text,label\ngood,x\nbad\n", "example 2: the label is ''"),
        (b"text,label\n\xff\xfe,x\n", r"train\.csv is not in UTF-8 \(byte 0\)\. Convert it"),
    ],
)
def test_a_csv_file_that_cannot_be_used_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "train.csv").write_bytes(content)
    files = {"train": str(tmp_path / "train.csv"), "dev": str(tmp_path / "train.csv")}
    with pytest.raises(InputError, match=message):
        ClassificationTask(files=files).load()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": None, "label": "a"}], r"train\.jsonl, example 1: the text is None"),
        ([{"text": "a", "label": "x"}, {"label": "y"}], r"example 2: the text is nan"),
        ([{"text": 3, "label": "x"}], "example 1: the text is 3"),
        ([{"text": ["a"], "label": "x"}], r"example 1: the text is \['a'\]"),
        ([*ROWS, {"text": "a"}], r"train\.jsonl, example 3: the label is nan\. Every example needs a label"),
        ([*ROWS, {"text": "a", "label": None}], r"train\.jsonl, example 3: the label is None"),
        ([{"text": "a", "label": 0}, {"text": "b", "label": 1}, {"text": "c"}], r"example 3: the label is nan"),
    ],
)
def test_a_jsonl_file_that_cannot_be_used_is_refused(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        _jsonl(tmp_path, rows).load()


def test_a_file_that_is_not_jsonl_is_refused(tmp_path: Path) -> None:
    task = _jsonl(tmp_path, ROWS)
    (tmp_path / "train.jsonl").write_text('{"text": "a", "label"', encoding="utf-8")
    with pytest.raises(InputError, match=r"train\.jsonl cannot be read as jsonl: "):
        task.load()


def test_a_label_missing_from_the_train_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dev\.jsonl has the label 'often', which is none of the 2 labels no, yes"):
        _jsonl(tmp_path, ROWS, [{"text": "a", "label": "often"}]).load()


@pytest.mark.parametrize("label", [2, -1])
def test_a_number_without_a_label_is_refused(tmp_path: Path, label: int) -> None:
    with pytest.raises(InputError, match=rf"dev\.jsonl has the label {label}, .*list all labels with task\.label_name"):
        _jsonl(tmp_path, ROWS, [{"text": "a", "label": label}], label_names=["no", "yes"]).load()


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    files = {"train": str(tmp_path / "train.csv"), "dev": str(tmp_path / "dev.csv")}
    with pytest.raises(InputError, match=r"train\.csv does not exist\. Relative paths in a study file start at its"):
        ClassificationTask(files=files).load()


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    files = {"train": str(tmp_path / "train.xlsx"), "dev": str(tmp_path / "dev.csv")}
    with pytest.raises(InputError, match=r"has the ending '\.xlsx'; allowed are \.jsonl, \.csv, \.tsv, \.parquet"):
        ClassificationTask(files=files).load()


@pytest.mark.parametrize("content", [b"no parquet at all", b""])
def test_a_damaged_parquet_file_is_refused(tmp_path: Path, content: bytes) -> None:
    task = _task(tmp_path, ".parquet", {"text": TEXTS, "label": LABELS})
    (tmp_path / "train.parquet").write_bytes(content)
    with pytest.raises(InputError, match=r"train\.parquet (cannot be read as parquet: |is empty)"):
        task.load()


def test_f1_of_three_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"f1 needs two labels, these data have 3\. Use f1_macro"):
        _task(tmp_path, ".csv", {"text": TEXTS, "label": LABELS}, metrics=["f1"]).load()


def test_a_test_split_without_labels_is_left_out(tmp_path: Path) -> None:
    task = _jsonl(tmp_path, ROWS)
    secret = write_jsonl(tmp_path / "test.jsonl", [{"text": "a", "label": -1}])
    task = task.model_copy(update={"files": {**task.files, "test": str(secret)}})
    assert set(task.load().splits) == {"train", "dev"}
    write_jsonl(secret, ROWS)
    assert set(task.load().splits) == {"train", "dev", "test"}


@pytest.mark.parametrize("what", [{"subset": "x"}, {"splits": {"train": "a", "dev": "b"}}])
def test_options_of_the_hub_are_refused_with_files(tmp_path: Path, what: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(what))} is .*belongs to data sets of the hub alone"):
        _jsonl(tmp_path, ROWS, **what)


# ---- the model -----------------------------------------------------------------------------------------------------


def _toy_classification() -> tuple[Classification, list[Feature]]:
    texts = toy_texts(17)
    data = Classification(
        {"dev": LabelledSplit(list(texts), [i % 2 for i in range(17)])}, ("accuracy",), 64, ("no", "yes")
    )
    return data, data.encode("dev", toy_tokenizer(), toy_bert(layers=1).config)


def test_the_head_has_the_names_of_the_labels() -> None:
    data, _ = _toy_classification()
    assert data.head() == {
        "num_labels": 2,
        "id2label": {0: "no", 1: "yes"},
        "label2id": {"no": 0, "yes": 1},
        "problem_type": "single_label_classification",
    }


def test_the_loss_equals_that_of_transformers() -> None:
    data, features = _toy_classification()
    micro_batch = data.collate(features, toy_tokenizer())
    model = toy_bert(layers=2)
    output = model(**micro_batch.inputs, labels=micro_batch.labels)
    labels = torch.tensor(data.examples["dev"].labels)
    assert torch.allclose(output.loss, torch.nn.functional.cross_entropy(output.logits, labels))
    assert micro_batch.valid["encoder"].sum(dim=1).tolist() == [data.lengths(feature)[0] for feature in features]


@pytest.mark.parametrize("training", [True, False])
def test_answers_in_batches_equal_those_of_single_texts(training: bool) -> None:
    data, features = _toy_classification()
    model = toy_bert(layers=2, seed=2).train(training)
    scores = data.values(data.predict(model, "dev", features, toy_tokenizer(), Accelerator(cpu=True)))
    assert model.training == training
    model.eval()
    with torch.no_grad():
        logits = [model(**data.collate([feature], toy_tokenizer()).inputs).logits for feature in features]
    given = [int(of_one.argmax()) for of_one in logits]
    right = sum(a == b for a, b in zip(given, data.examples["dev"].labels, strict=True))
    assert scores == {"accuracy": right / 17}
    assert len(set(given)) == 2


def test_training_examples_can_become_test_examples(tmp_path: Path) -> None:
    files = write_task(tmp_path)
    before = ClassificationTask(files=files).load()
    after = ClassificationTask(files=files, test_from_train=15).load()
    assert [len(after.texts(split)) for split in ("train", "dev", "test")] == [25, 20, 25]
    assert after.texts("dev") == before.texts("dev")
    assert after.texts("test")[:10] == before.texts("test")
    moved = after.texts("test")[10:]
    assert sorted(after.texts("train") + moved) == sorted(before.texts("train"))
    assert moved not in (before.texts("train")[:15], before.texts("train")[-15:])  # not in the file's order
    label_of = dict(zip(before.texts("train"), before.examples["train"].labels, strict=True))
    assert after.examples["test"].labels[10:] == [label_of[text] for text in moved]
    again = ClassificationTask(files=files, test_from_train=15).load()
    assert again.texts("train") == after.texts("train")
    without = ClassificationTask(files={k: v for k, v in files.items() if k != "test"}, test_from_train=15).load()
    assert without.texts("test") == moved
    with pytest.raises(InputError, match=r"test_from_train is 40, and .* has 40 examples"):
        ClassificationTask(files=files, test_from_train=40).load()
