"""Data for language modelling: three forms, templates, data sets of the hub, and errors."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from kd_train.data.tables import Table
from kd_train.tasks.language_modelling import Example, LanguageModellingTask
from layerangles import InputError


def _task(folder: Path, rows: Sequence[dict[str, Any]], **task: Any) -> LanguageModellingTask:
    file = folder / "data.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return LanguageModellingTask.model_validate({"files": {"train": str(file), "dev": str(file)}} | task)


def test_a_column_is_plain_text(tmp_path: Path) -> None:
    data = _task(tmp_path, [{"text": "a b", "title": "t"}], text="text").load()
    assert (data.form, data.metrics, data.splits) == ("text", ("perplexity",), ("train", "dev"))
    assert data.examples["dev"] == [Example("", ("a b",))]
    assert _task(tmp_path, [{"text": "a", "title": "t"}], text="{title}: {text}").load().texts("dev") == ["t: a"]


def test_lines_of_a_text_file_are_examples(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("one\ntwo {x}\n", encoding="utf-8")
    files = {"train": str(tmp_path / "lines.txt"), "dev": str(tmp_path / "lines.txt")}
    assert LanguageModellingTask(files=files, text="text").load().texts("train") == ["one", "two {x}"]


def test_templates_give_prompts_and_answers(tmp_path: Path) -> None:
    rows = [{"q": "why?", "n": 3, "a": "so"}, {"q": "{x}", "n": 0.5, "a": "no"}]
    data = _task(tmp_path, rows, prompt="Q{n}: {q}\nA:", answer="a").load()
    assert (data.form, data.metrics) == ("answer", ("exact_match", "perplexity"))
    assert data.examples["dev"] == [Example("Q3: why?\nA:", ("so",)), Example("Q0.5: {x}\nA:", ("no",))]
    assert data.texts("dev") == ["Q3: why?\nA: so", "Q0.5: {x}\nA: no"]
    data = _task(tmp_path, rows, prompt="q", answer=" {{{a}}}", predict="all", max_new_tokens=5).load()
    assert data.examples["dev"][0] == Example("why?", (" {so}",))
    assert (data.predict_all, data.max_new_tokens) == (True, 5)


def test_a_list_of_answers_gives_several_references(tmp_path: Path) -> None:
    rows = [{"p": {"q": "x"}, "a": ["b", "c"]}, {"p": {"q": "y"}, "a": "d"}]
    data = _task(tmp_path, rows, prompt="say {p.q}", answer="a").load()
    assert data.examples["dev"] == [Example("say x", ("b", "c")), Example("say y", ("d",))]


def test_choices_come_with_the_number_of_the_correct_one(tmp_path: Path) -> None:
    rows = [{"p": "x", "e": ["a", "b"], "label": "1"}, {"p": "y", "e": ["c", "d", "e"], "label": 0}]
    data = _task(tmp_path, rows, prompt="p", choices="e").load()
    assert (data.form, data.metrics) == ("choices", ("accuracy", "accuracy_norm"))
    assert data.examples["dev"] == [Example("x", ("b",), ("a", "b"), 1), Example("y", ("c",), ("c", "d", "e"), 0)]
    assert data.texts("dev") == ["x b", "y c"]


def test_templates_get_the_names_of_labels() -> None:
    table = Table("here", {"text": ["a", "b"], "label": [1, 0]}, {"label": ["bad", "good"]})
    assert table.filled("{text} is {label}") == ["a is good", "b is bad"]
    assert table.filled("label") == ["good", "bad"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give text, or prompt and answer, or prompt, choices and label, and no more; got none of them"),
        ({"prompt": "p"}, "and no more; got prompt"),
        ({"text": "t", "prompt": "p", "answer": "a"}, "and no more; got text, prompt, answer"),
        ({"prompt": "p", "answer": "a", "choices": "c"}, "and no more; got prompt, answer, choices"),
        ({"text": "a {b"}, "the template 'a {b' is not well formed"),
        ({"prompt": "a {}", "answer": "a"}, "the template 'a {}' must name columns, such as {text}"),
        ({"prompt": "p", "choices": "{c}"}, "choices must be a column's name, not a template; got '{c}'"),
        (
            {"text": "t", "metrics": ["accuracy"]},
            "the metric accuracy does not fit these data; allowed with text are perplexity",
        ),
        (
            {"prompt": "p", "answer": "a", "metrics": ["perplexity", "accuracy_norm"]},
            "metric accuracy_norm does not fit these data; allowed with prompt and answer are exact_match, perplexity",
        ),
        ({"prompt": "p", "choices": "c", "metrics": ["exact_match"]}, "are accuracy, accuracy_norm, perplexity"),
        (
            {"text": "t", "metrics": ["bleu"]},
            "unknown metric bleu; allowed are perplexity, accuracy, accuracy_norm, ex",
        ),
        ({"text": "t", "predict": "some"}, "Input should be 'answer' or 'all'"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"task|Task") as caught:
        _task(tmp_path, [], **given)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("row", "given", "message"),
    [
        ({"text": " "}, {"text": "text"}, r"example 1: the text is ' '\. Every text must be a string with content"),
        ({"a": "x"}, {"text": "{b}"}, r'no column "b"; its columns are a\. Name the right ones'),
        ({"a": "x", "b": None}, {"text": "{a}{b}"}, r"example 1: \{b\} is None\. A template takes texts and numbers"),
        ({"a": "x", "b": ["y"]}, {"text": "{a}{b}"}, r"example 1: \{b\} is \['y'\]"),
        ({"p": "x", "a": []}, {"prompt": "p", "answer": "a"}, r'example 1: "a" is \[\]\. Allowed is a string with'),
        ({"p": "x", "e": ["y"], "label": 0}, {"prompt": "p", "choices": "e"}, r"Allowed is 2 or more texts"),
        ({"p": "x", "e": "yz", "label": 0}, {"prompt": "p", "choices": "e"}, r"Allowed is 2 or more texts"),
        (
            {"p": "x", "e": ["y", "z"], "label": 2},
            {"prompt": "p", "choices": "e"},
            r"jsonl, example 1: the label is 2\. Allowed are the numbers of its 2 choices, 0 to 1; repair or remove",
        ),
        ({"p": "x", "e": ["y", "z"], "label": "-1"}, {"prompt": "p", "choices": "e"}, "the label is '-1'. Allowed are"),
        ({"p": "x", "e": ["y", "z"], "label": True}, {"prompt": "p", "choices": "e"}, "the label is True. Allowed are"),
        ({"p": "x", "e": ["y", "z"], "label": ""}, {"prompt": "p", "choices": "e"}, "the label is ''. Every example"),
    ],
)
def test_examples_that_cannot_be_used_are_refused(
    tmp_path: Path, row: Any, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        _task(tmp_path, [row], **given).load()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, DatasetDict]:
    """A fake hub: data sets by name."""
    holdings: dict[str, DatasetDict] = {}
    monkeypatch.setattr(datasets, "load_dataset", lambda name, *_, **__: holdings[name])
    return holdings


def test_hellaswag_comes_with_its_columns(hub: dict[str, DatasetDict]) -> None:
    columns = {"ctx": ["x he"], "endings": [["a.", "b.", "c.", "d."]], "activity_label": ["Roofing"]}
    part = Dataset.from_dict({**columns, "label": ["2"]})
    secret = Dataset.from_dict({**columns, "label": [""]})
    hub["Rowan/hellaswag"] = DatasetDict(train=part, validation=part, test=secret)
    data = LanguageModellingTask(dataset="Rowan/hellaswag").load()
    assert data.splits == ("train", "dev")
    assert data.examples["dev"] == [Example("x he", ("c.",), ("a.", "b.", "c.", "d."), 2)]
    titled = LanguageModellingTask(dataset="Rowan/hellaswag", prompt="{activity_label}: {ctx}").load()
    assert titled.texts("dev") == ["Roofing: x he c."]


def test_coqa_has_one_example_per_turn(hub: dict[str, DatasetDict]) -> None:
    conversation = {
        "story": [" Once. ", "Twice."],
        "questions": [["Who?", "", "Why?"], ["Q"]],
        "answers": [
            {"input_text": ["He.", "x", "So"], "answer_start": [0, 1, 2], "answer_end": [1, 2, 3]},
            {"input_text": ["A"], "answer_start": [0], "answer_end": [1]},
        ],
    }
    part = Dataset.from_dict(conversation)
    hub["stanfordnlp/coqa"] = DatasetDict(train=part, validation=part)
    expected = [
        Example("Once.\n\nQ: Who?\nA:", ("He.",)),
        Example("Once.\n\nQ: Who?\nA: He.\nQ: Why?\nA:", ("So",)),
        Example("Twice.\n\nQ: Q\nA:", ("A",)),
    ]
    data = LanguageModellingTask(dataset="stanfordnlp/coqa").load()
    assert data.examples == {"train": expected, "dev": expected}
    assert data.texts("dev")[1] == "Once.\n\nQ: Who?\nA: He.\nQ: Why?\nA: So"
    limited = LanguageModellingTask(dataset="stanfordnlp/coqa", limit={"dev": 1, "train": 3}).load()
    assert {split: len(examples) for split, examples in limited.examples.items()} == {"train": 3, "dev": 1}


def test_any_data_set_of_the_hub_can_be_loaded(hub: dict[str, DatasetDict]) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["bad", "good"])})
    part = Dataset.from_dict({"text": ["a"], "label": [1]}, features=features)
    hub["some/reviews"] = DatasetDict(train=part, validation=part)
    data = LanguageModellingTask(dataset="some/reviews", prompt="{text}, in short", answer="label").load()
    assert data.texts("dev") == ["a, in short good"]
