"""Regression: data, STS-B, the loss, predictions, and metrics of numbers."""

import json
import math
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset, DatasetDict
from toys.models import toy_bert, toy_texts, toy_tokenizer
from transformers import AutoModelForSequenceClassification, BertConfig

from kd_train.tasks.labelled import LabelledSplit
from kd_train.tasks.regression import Regression, RegressionTask
from kd_train.tasks.scoring.metrics import NUMBER_METRICS
from layerangles import InputError


def _task(folder: Path, rows: list[dict[str, Any]], dev: list[dict[str, Any]] | None = None, **task: Any) -> Any:
    files = {}
    for split, content in (("train", rows), ("dev", rows if dev is None else dev)):
        files[split] = str(folder / f"{split}.jsonl")
        Path(files[split]).write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    return RegressionTask.model_validate({"files": files} | task)


def _toy_regression() -> Regression:
    texts = toy_texts(17)
    numbers = [float(len(text.split())) for text in texts]
    return Regression({"dev": LabelledSplit(list(texts), numbers)}, tuple(NUMBER_METRICS), 64)


# ---- the data ------------------------------------------------------------------------------------------------------


def test_numbers_are_read_from_numbers_and_from_text(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": 1}, {"text": "b", "label": 2.5}, {"text": "c", "label": "-3e-1"}]
    data = _task(tmp_path, rows).load()
    assert data.examples["train"] == LabelledSplit(["a", "b", "c"], [1.0, 2.5, -0.3])
    assert data.splits == ("train", "dev")
    assert data.metrics == ("pearson", "spearman")
    assert data.texts("dev") == ["a", "b", "c"]


@pytest.mark.parametrize("value", ["much", None, "", True, "nan", float("inf"), [1.0]])
def test_a_value_that_is_not_a_number_is_refused(tmp_path: Path, value: Any) -> None:
    task = _task(tmp_path, [{"text": "a", "label": 1}], [{"text": "a", "label": 1}, {"text": "b", "label": value}])
    with pytest.raises(InputError, match=r"dev\.jsonl, example 2: the number is .*Every example needs a finite number"):
        task.load()


def test_texts_may_be_pairs_and_columns_have_any_name(tmp_path: Path) -> None:
    task = _task(tmp_path, [{"one": "a", "two": "b", "gold": 3}], text=["one", "two"], label="gold")
    assert task.load().examples["dev"] == LabelledSplit([("a", "b")], [3.0])


def test_stsb_comes_with_its_columns_and_without_its_secret_test_split(monkeypatch: pytest.MonkeyPatch) -> None:
    part = {"sentence1": ["a", "b"], "sentence2": ["c", "d"]}
    held = DatasetDict(
        train=Dataset.from_dict({**part, "label": [5.0, 2.4]}),
        validation=Dataset.from_dict({**part, "label": [0.0, 1.0]}),
        test=Dataset.from_dict({**part, "label": [-1.0, -1.0]}),
    )
    asked = []

    def load_dataset(*names: str, **options: Any) -> DatasetDict:
        asked.append(names)
        return held

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = RegressionTask(dataset="glue/STS-B").load()
    assert data.examples == {
        "train": LabelledSplit([("a", "c"), ("b", "d")], [5.0, 2.4]),
        "dev": LabelledSplit([("a", "c"), ("b", "d")], [0.0, 1.0]),
    }
    splits = {"train": "train", "dev": "validation", "test": "test"}
    assert RegressionTask(dataset="glue/stsb", splits=splits).load().splits == ("train", "dev")
    assert asked == [("nyu-mll/glue", "stsb")] * 2


def test_other_tasks_of_glue_are_refused() -> None:
    with pytest.raises(ValueError, match=r"glue/mnli is a classification task: set task\.kind to classification"):
        RegressionTask(dataset="glue/mnli")
    with pytest.raises(ValueError, match=r"unknown GLUE task xyz; allowed are stsb\b"):
        RegressionTask(dataset="glue/xyz")


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown metric f1; allowed are pearson, spearman, mean_squared_error"):
        RegressionTask(dataset="glue/stsb", metrics=("f1",))


# ---- the model -----------------------------------------------------------------------------------------------------


def test_the_head_has_one_output() -> None:
    config = BertConfig(num_labels=3)
    RegressionTask(dataset="glue/stsb").fit_head(config)
    assert (config.num_labels, config.problem_type) == (1, "regression")
    data = _toy_regression()
    assert data.head() == {"num_labels": 1, "problem_type": "regression"}
    assert data.fitted_to(config) is data
    with pytest.raises(InputError, match=r"needs a model with one output; the teacher has 3\. Fine-tune the teacher"):
        data.fitted_to(BertConfig(num_labels=3))


def test_the_loss_equals_that_of_transformers() -> None:
    data, tokenizer = _toy_regression(), toy_tokenizer()
    model = toy_bert(layers=2, num_labels=1, problem_type="regression")
    features = data.encode("dev", tokenizer, model.config)
    micro_batch = data.collate(features, tokenizer)
    assert micro_batch.labels.dtype == torch.float32
    assert micro_batch.labels.shape == (17,)
    assert set(micro_batch.valid) == {"encoder"}
    output = model(**micro_batch.inputs, labels=micro_batch.labels)
    expected = torch.nn.functional.mse_loss(output.logits[:, 0], torch.tensor(data.examples["dev"].labels))
    assert torch.allclose(output.loss, expected)


@pytest.mark.parametrize("training", [True, False])
def test_scores_in_batches_equal_those_of_single_texts(training: bool) -> None:
    data, tokenizer = _toy_regression(), toy_tokenizer()
    model = AutoModelForSequenceClassification.from_config(toy_bert(layers=2, num_labels=1).config)
    features = data.encode("dev", tokenizer, model.config)
    model.train(training)
    scores = data.values(data.predict(model, "dev", features, tokenizer, Accelerator(cpu=True)))
    assert model.training == training
    model.eval()
    with torch.no_grad():
        given = [float(model(**data.collate([feature], tokenizer).inputs).logits) for feature in features]
    numbers = data.examples["dev"].labels
    assert scores == pytest.approx(_naive(numbers, given), rel=1e-4)


# ---- the metrics ---------------------------------------------------------------------------------------------------


def _covariance(a: list[float], b: list[float]) -> float:
    return sum((x - sum(a) / len(a)) * (y - sum(b) / len(b)) for x, y in zip(a, b, strict=True))


def _ranks(values: list[float]) -> list[float]:
    """Ranks from 1; equal values share the mean of their ranks."""
    return [sum(v < value for v in values) + (sum(v == value for v in values) + 1) / 2 for value in values]


def _naive(numbers: list[float], given: list[float]) -> dict[str, float]:
    def correlation(a: list[float], b: list[float]) -> float:
        return _covariance(a, b) / math.sqrt(_covariance(a, a) * _covariance(b, b))

    return {
        "pearson": correlation(numbers, given),
        "spearman": correlation(_ranks(numbers), _ranks(given)),
        "mean_squared_error": sum((a - b) ** 2 for a, b in zip(numbers, given, strict=True)) / len(numbers),
    }


@pytest.mark.parametrize("seed", range(3))
def test_metrics_equal_their_definitions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    numbers, given = rng.integers(0, 6, 30).tolist(), rng.normal(size=30).round(1).tolist()
    scores = {name: metric.compute(numbers, given) for name, metric in NUMBER_METRICS.items()}
    assert scores == pytest.approx(_naive(numbers, given))
    assert NUMBER_METRICS["pearson"].higher_is_better
    assert NUMBER_METRICS["spearman"].higher_is_better
    assert not NUMBER_METRICS["mean_squared_error"].higher_is_better


@pytest.mark.parametrize(
    ("numbers", "given"),
    [
        ([1.0, 2.0, 3.0], [0.5, 0.5, 0.5]),
        ([2.0, 2.0], [0.1, 0.2]),
        ([1.0], [1.0]),
    ],
)
def test_a_correlation_without_variation_is_nan(numbers: list[float], given: list[float]) -> None:
    for name in ("pearson", "spearman"):
        value = NUMBER_METRICS[name].compute(numbers, given)
        assert math.isnan(value)
        assert math.isnan(json.loads(json.dumps({"value": value}))["value"])  # as the metrics file keeps it
    assert NUMBER_METRICS["mean_squared_error"].compute(numbers, given) >= 0


def test_numbers_that_hardly_vary_cause_no_warning() -> None:
    for metric in NUMBER_METRICS.values():
        metric.compute([1.0, 2.0, 3.0], [1e9, 1e9 + 1e-7, 1e9])
