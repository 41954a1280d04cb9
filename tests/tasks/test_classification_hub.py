"""Classification data of the hub, GLUE and of packages: columns, labels, metrics and splits."""

import json
from typing import Any

import datasets
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from transformers import BertConfig

from kd_train.data import embedded, tables
from kd_train.tasks.classification import ClassificationTask
from kd_train.tasks.labelled import LabelledSplit
from layerangles import InputError


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str | None], DatasetDict]:
    """A fake hub: data sets by name and configuration."""
    holdings: dict[tuple[str, str | None], DatasetDict] = {}
    monkeypatch.setattr(datasets, "load_dataset", lambda name, subset=None, **_: holdings[name, subset])
    return holdings


def _dataset(columns: dict[str, list[Any]], names: list[str]) -> Dataset:
    kinds = {name: Value("string") for name in columns if name != "label"} | {"label": ClassLabel(names=names)}
    return Dataset.from_dict(columns, features=Features(kinds))


def test_a_glue_task_comes_with_its_columns_names_and_metrics(
    hub: dict[tuple[str, str | None], DatasetDict],
) -> None:
    names = ["not_duplicate", "duplicate"]
    pairs = {"question1": ["a", "b"], "question2": ["c", "d"]}
    hub["nyu-mll/glue", "qqp"] = DatasetDict(
        train=_dataset({**pairs, "label": [1, 0]}, names),
        validation=_dataset({**pairs, "label": [0, 1]}, names),
        test=_dataset({**pairs, "label": [-1, -1]}, names),
    )
    data = ClassificationTask(dataset="glue/qqp").load()
    assert data.label_names == ("not_duplicate", "duplicate")
    assert data.metrics == ("accuracy", "f1")
    assert data.examples == {
        "train": LabelledSplit([("a", "c"), ("b", "d")], [1, 0]),
        "dev": LabelledSplit([("a", "c"), ("b", "d")], [0, 1]),
    }


def test_sst2_has_an_alias(hub: dict[tuple[str, str | None], DatasetDict]) -> None:
    split = _dataset({"sentence": ["a", "b"], "label": [1, 0]}, ["negative", "positive"])
    hub["nyu-mll/glue", "sst2"] = DatasetDict(train=split, validation=split)
    assert ClassificationTask(dataset="GLUE/SST-2").load().examples["dev"] == LabelledSplit(["a", "b"], [1, 0])


def test_mnli_has_two_dev_splits(hub: dict[tuple[str, str | None], DatasetDict]) -> None:
    names = ["entailment", "neutral", "contradiction"]

    def split(*labels: int) -> Dataset:
        return _dataset({"premise": ["a"] * 3, "hypothesis": ["b"] * 3, "label": list(labels)}, names)

    hub["nyu-mll/glue", "mnli"] = DatasetDict(
        train=split(0, 1, 2),
        validation_matched=split(2, 1, 0),
        validation_mismatched=split(1, 1, 0),
        test_matched=split(-1, -1, -1),
    )
    data = ClassificationTask(dataset="glue/mnli").load()
    assert {name: part.labels for name, part in data.examples.items()} == {
        "train": [0, 1, 2],
        "dev": [2, 1, 0],
        "dev_mismatched": [1, 1, 0],
    }
    limited = ClassificationTask(dataset="glue/mnli", limit={"dev": 2}).load()
    assert {name: len(part.texts) for name, part in limited.examples.items()} == {
        "train": 3,
        "dev": 2,
        "dev_mismatched": 2,
    }


def test_any_data_set_of_the_hub_can_be_loaded(hub: dict[tuple[str, str | None], DatasetDict]) -> None:
    split = _dataset({"text": ["a", "b"], "label": [1, 0]}, ["World", "Sports"])
    hub["some/news", "small"] = DatasetDict(train=split, validation=split, test=split)
    hub["some/news", None] = DatasetDict(train=split, test=split)
    data = ClassificationTask(dataset="some/news", subset="small").load()
    assert data.label_names == ("World", "Sports")
    assert set(data.splits) == {"train", "dev", "test"}
    with pytest.raises(InputError, match=r'"some/news" has the splits train, test; .* with task\.splits, such as'):
        ClassificationTask(dataset="some/news").load()
    chosen = ClassificationTask(dataset="some/news", splits={"train": "train", "dev": "test"}).load()
    assert set(chosen.splits) == {"train", "dev"}


def test_a_hub_out_of_reach_is_reported() -> None:
    with pytest.raises(InputError) as caught:
        ClassificationTask(dataset="some/thing", subset="small").load()
    assert str(caught.value).startswith('the data set "some/thing" (small) cannot be had from the hub: ')
    assert "Check name and subset, go online, or give local files with task.files." in str(caught.value)
    assert "\n" not in str(caught.value)


def test_stsb_is_refused_with_a_hint_at_regression() -> None:
    for name in ("glue/stsb", "GLUE/STS-B"):
        with pytest.raises(ValueError, match=r"glue/stsb is a regression task: set task\.kind to regression"):
            ClassificationTask(dataset=name)
    with pytest.raises(ValueError, match=r"unknown GLUE task xyz; allowed are cola, mnli, mrpc, qnli, qqp, rte"):
        ClassificationTask(dataset="glue/xyz")


def test_the_head_has_the_number_of_labels_known_without_data() -> None:
    for task, n_labels in (
        (ClassificationTask(dataset="glue/mnli"), 3),
        (ClassificationTask(dataset="some/news"), 5),
        (ClassificationTask(dataset="some/news", label_names=("a", "b", "c", "d")), 4),
    ):
        config = BertConfig(num_labels=5)
        task.fit_head(config)
        assert config.num_labels == n_labels
    assert json.loads(ClassificationTask(dataset="glue/mnli").model_dump_json())["dataset"] == "glue/mnli"


def test_embedded_data_have_texts_and_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    part = embedded.LabelledTexts(("a", "b"), (1, 0))
    data = embedded.LabelledData(("negative", "positive"), {"train": part, "dev": part})
    monkeypatch.setattr(tables.embedded, "load_dataset", lambda name: data)
    loaded = ClassificationTask(dataset="embedded/movie-reviews").load()
    assert loaded.label_names == ("negative", "positive")
    assert loaded.examples["dev"] == LabelledSplit(["a", "b"], [1, 0])


def test_embedded_pairs_have_no_labels() -> None:
    with pytest.raises(
        ValueError,
        match="letters-to-sounds has the columns source and target, and the kind classification needs text and label",
    ):
        ClassificationTask(dataset="embedded/letters-to-sounds")
