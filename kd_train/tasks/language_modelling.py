"""Language modelling: plain text, answers to prompts, and a choice among several endings of a prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pydantic import Field, PositiveInt, model_validator

from kd_train.data.tables import Table, Text, is_template, template_columns
from kd_train.tasks.base import IGNORED, Feature, KnownDataset, MicroBatch, Task, TaskSpec, token_labels
from kd_train.tasks.prompts import beginning, joined, left_cut, left_padded, plain, prompted, token_ids
from kd_train.tasks.scoring.metrics import Metric, Predictions, accuracy, perplexity, right_answers
from kd_train.tasks.scoring.text_metrics import exact_match_normalized, matches_normalized
from layerangles.errors import InputError
from layerangles.layers import Tower
from layerangles.lazy import lazy_module

if TYPE_CHECKING:
    import accelerate
    import torch
    import transformers
else:
    accelerate, torch, transformers = map(lazy_module, ("accelerate", "torch", "transformers"))

Form = Literal["text", "answer", "choices"]

# Perplexity compares numbers of tokens with negative log-likelihoods, the accuracies compare numbers of endings, and
# exact_match compares texts.
LANGUAGE_METRICS: Mapping[str, Metric] = {
    "perplexity": Metric(perplexity, higher_is_better=False),
    "accuracy": Metric(accuracy, by_example=right_answers),
    "accuracy_norm": Metric(accuracy, by_example=right_answers),
    "exact_match": Metric(exact_match_normalized, by_example=matches_normalized),
}
# Metrics that fit each form of the data.
_METRICS: dict[Form, tuple[str, ...]] = {
    "text": ("perplexity",),
    "answer": ("exact_match", "perplexity"),
    "choices": ("accuracy", "accuracy_norm", "perplexity"),
}
_DEFAULT_METRICS: dict[Form, tuple[str, ...]] = _METRICS | {"choices": ("accuracy", "accuracy_norm")}
_COLUMNS: Mapping[Form, frozenset[str]] = {
    "text": frozenset({"text"}),
    "answer": frozenset({"prompt", "answer"}),
    "choices": frozenset({"prompt", "choices", "label"}),
}
# Logits are as wide as the vocabulary, of which there may be 150,000.
_LOGITS_AT_A_TIME = 16
_GENERATED_AT_A_TIME = 32


class Example(NamedTuple):
    """One example of any form.

    Attributes:
        prompt: given text; empty for plain text.
        answers: correct continuations: the first is the training target, all are references.
        choices: endings to choose from; empty for other forms.
        label: number of the correct ending.
    """

    prompt: str
    answers: tuple[str, ...]
    choices: tuple[str, ...] = ()
    label: int = 0


@dataclass(frozen=True)
class LanguageModelling(Task):
    """A loaded language-modelling task.

    Attributes:
        form: plain text, prompts with answers, or prompts with endings to choose from.
        examples: examples by split.
        metrics: names of the metrics that are scored; the first decides.
        max_length: longest example, in tokens.
        predict_all: whether the tokens of the prompt are predicted as well.
        separator: text between prompt and answer if neither has whitespace there.
        max_new_tokens: longest generated answer, in tokens.
    """

    all_metrics: ClassVar[Mapping[str, Metric]] = LANGUAGE_METRICS

    form: Form
    examples: dict[str, list[Example]]
    metrics: tuple[str, ...]
    max_length: int
    predict_all: bool = False
    separator: str = " "
    max_new_tokens: int = 32

    def texts(self, split: str) -> list[Text]:
        """Whole texts: prompts with their training answers."""
        return ["".join(pair) for pair in self._pairs(split)]

    def _pairs(self, split: str) -> list[tuple[str, str]]:
        """Prompts with their training answers."""
        return [self._pair(example, example.answers[0]) for example in self.examples[split]]

    def _pair(self, example: Example, answer: str) -> tuple[str, str]:
        return ("", answer) if self.form == "text" else joined(example.prompt, answer, self.separator)

    def encode(
        self, split: str, tokenizer: transformers.PreTrainedTokenizerBase, config: transformers.PretrainedConfig
    ) -> list[Feature]:
        """Token ids without the last; ``labels`` has the next token in each place.

        The tokens of a prompt are ``IGNORED``, unless ``predict_all`` is set.

        Raises:
            InputError: an example without any token to predict, or too long for the model.
        """
        from layerangles.models.states import n_positions
        from layerangles.models.texts import check_length

        limit = n_positions(config)
        if limit is not None and "exact_match" in self.metrics and self.max_new_tokens >= limit:
            raise InputError(
                f"max_new_tokens is {self.max_new_tokens}, which leaves no room for a prompt in the {limit} tokens "
                f"that this model can take. Allowed are fewer than {limit}."
            )
        pairs = self._pairs(split)
        if self.form == "text":
            encoded = plain([text for _, text in pairs], tokenizer, self.max_length)
        else:
            encoded = prompted(pairs, tokenizer, self.max_length, end=True)
        features = [example.feature(predict_all=self.predict_all) for example in encoded]
        check_length(max(len(feature["input_ids"]) for feature in features), tokenizer, [config])
        return features

    def collate(self, features: Sequence[Feature], tokenizer: transformers.PreTrainedTokenizerBase) -> MicroBatch:
        """Pad examples; ``labels`` has the next token of every position."""
        from layerangles.models.texts import pad

        inputs = pad(tokenizer, [{"input_ids": feature["input_ids"]} for feature in features])
        return MicroBatch(inputs, token_labels(features), {"decoder": inputs["attention_mask"].bool()})

    def predict(
        self,
        model: transformers.PreTrainedModel,
        split: str,
        features: Sequence[Feature],
        tokenizer: transformers.PreTrainedTokenizerBase,
        accelerator: accelerate.Accelerator,
    ) -> dict[str, Predictions]:
        """Likelihoods, most likely endings, and generated answers."""
        predictions: dict[str, Predictions] = {}
        if "perplexity" in self.metrics:
            n_tokens = [sum(label != IGNORED for label in feature["labels"]) for feature in features]
            surprisals = self.negative_log_likelihoods(model, features, tokenizer, accelerator)
            predictions["perplexity"] = Predictions(n_tokens, surprisals)
        if "exact_match" in self.metrics:
            references = [example.answers for example in self.examples[split]]
            predictions["exact_match"] = Predictions(references, self.generated(model, split, tokenizer, accelerator))
        if not {"accuracy", "accuracy_norm"}.isdisjoint(self.metrics):
            labels = [example.label for example in self.examples[split]]
            likelihoods = self.likelihoods_of_choices(model, split, tokenizer, accelerator)
            predictions["accuracy"] = Predictions(labels, [_largest(of_one) for of_one in likelihoods])
            per_character = [
                [value / len(choice) for value, choice in zip(of_one, example.choices, strict=True)]
                for of_one, example in zip(likelihoods, self.examples[split], strict=True)
            ]
            predictions["accuracy_norm"] = Predictions(labels, [_largest(of_one) for of_one in per_character])
        return predictions

    def negative_log_likelihoods(
        self,
        model: transformers.PreTrainedModel,
        features: Sequence[Feature],
        tokenizer: transformers.PreTrainedTokenizerBase,
        accelerator: accelerate.Accelerator,
    ) -> list[float]:
        """Sum of ``−log p`` over the predicted tokens of each example, in nats."""
        from kd_train.tasks.scoring.evaluation import over_batches

        def answer(rows: list[int]) -> list[float]:
            micro_batch = self.collate([features[i] for i in rows], tokenizer)
            inputs = {name: values.to(accelerator.device) for name, values in micro_batch.inputs.items()}
            logits: torch.Tensor = model(**inputs, use_cache=False).logits
            labels = micro_batch.labels.to(accelerator.device)
            # Example by example, since float32 logits of a whole batch may need twice the memory of the model's.
            sums = [
                torch.nn.functional.cross_entropy(of_one.float(), right, ignore_index=IGNORED, reduction="sum")
                for of_one, right in zip(logits, labels, strict=True)
            ]
            summed: list[float] = torch.stack(sums).tolist()
            return summed

        lengths = [len(feature["input_ids"]) for feature in features]
        return over_batches(lengths, answer, model, accelerator, batch_size=_LOGITS_AT_A_TIME)

    def likelihoods_of_choices(
        self,
        model: transformers.PreTrainedModel,
        split: str,
        tokenizer: transformers.PreTrainedTokenizerBase,
        accelerator: accelerate.Accelerator,
    ) -> list[list[float]]:
        """Sum of ``log p`` over the tokens of every ending of each example, without EOS, in nats."""
        examples = self.examples[split]
        pairs = [self._pair(example, choice) for example in examples for choice in example.choices]
        features = [p.feature() for p in prompted(pairs, tokenizer, self.max_length, end=False)]
        surprisals = iter(self.negative_log_likelihoods(model, features, tokenizer, accelerator))
        return [[-next(surprisals) for _ in example.choices] for example in examples]

    def generated(
        self,
        model: transformers.PreTrainedModel,
        split: str,
        tokenizer: transformers.PreTrainedTokenizerBase,
        accelerator: accelerate.Accelerator,
    ) -> list[str]:
        """The text that a model generates after each prompt by greedy search until EOS, stripped of whitespace."""
        from kd_train.tasks.scoring.evaluation import generated_texts
        from layerangles.models.states import n_positions

        end = tokenizer.eos_token_id
        fill = tokenizer.pad_token_id if isinstance(tokenizer.pad_token_id, int) else end
        begin = beginning(tokenizer)
        limit = n_positions(model.config)
        room = self.max_length if limit is None else min(self.max_length, limit - self.max_new_tokens)
        prompts = token_ids([prompt for prompt, _ in self._pairs(split)], tokenizer)
        given = [begin + left_cut(prompt, room - len(begin)) for prompt in prompts]
        written = generated_texts(
            [len(prompt) for prompt in given],
            lambda rows: left_padded([given[i] for i in rows], fill),
            model,
            tokenizer,
            accelerator,
            batch_size=_GENERATED_AT_A_TIME,
            max_new_tokens=self.max_new_tokens,
            pad_token_id=fill,
            eos_token_id=end,
        )
        return [text.strip() for text in written]


def _largest(values: Sequence[float]) -> int:
    """Index of the largest value; the first one of equals."""
    return max(range(len(values)), key=values.__getitem__)


def _turn_by_turn(table: Table) -> Table:
    """CoQA's conversations as one example per turn, with the story and all earlier turns in the prompt.

    Turns without a question or an answer are left out.
    """
    prompts, answers = [], []
    columns = (table.column("story"), table.column("questions"), table.column("answers.input_text"))
    for story, questions, replies in zip(*columns, strict=True):
        prompt = f"{story.strip()}\n"
        for question, reply in zip(questions, replies, strict=True):
            if question.strip() and reply.strip():
                prompt += f"\nQ: {question.strip()}\nA:"
                prompts.append(prompt)
                answers.append(reply.strip())
                prompt += f" {reply.strip()}"
    return Table(table.source, {"prompt": prompts, "answer": answers})


# Columns and splits as in the data sets' cards; without access to the hub, they could not be tested on the data.
# HellaSwag's test split has no labels; its texts keep the markup that evaluation harnesses remove. CoQA on the hub has
# one answer per question, without the three further ones of the official evaluation.
_SPLITS = {"train": "train", "dev": "validation"}
_KNOWN = {
    "Rowan/hellaswag": KnownDataset(splits=_SPLITS, columns={"prompt": "ctx", "choices": "endings", "label": "label"}),
    "stanfordnlp/coqa": KnownDataset(
        splits=_SPLITS, columns={"prompt": "prompt", "answer": "answer"}, prepare=_turn_by_turn
    ),
}


class LanguageModellingTask(TaskSpec):
    """The study's ``task``: ``text``; or ``prompt`` and ``answer``; or ``prompt``, ``choices`` and ``label``.

    ``text``, ``prompt`` and ``answer`` are the name of a column, or a template with columns in braces such as
    ``"Review: {text}"``. Prompt and answer are tokenized separately. Whitespace between them belongs to the answer;
    without any, ``separator`` is put there.
    """

    all_metrics: ClassVar[Mapping[str, Metric]] = LANGUAGE_METRICS
    known_datasets: ClassVar[Mapping[str, KnownDataset]] = _KNOWN

    kind: Literal["language_modelling"] = "language_modelling"
    text: str | None = Field(default=None, description="column or template of plain text, which is predicted in full")
    prompt: str | None = Field(default=None, description="column or template of the given text")
    answer: str | None = Field(default=None, description="column (of texts, or lists of references) or template")
    choices: str | None = Field(default=None, description="column of lists of endings")
    label: str | None = Field(default=None, description='column of the correct ending\'s number; "label" by default')
    predict: Literal["answer", "all"] = Field(
        default="answer", description="tokens that are learnt: the answer's, or the prompt's as well"
    )
    separator: str = Field(default=" ", description="text between prompt and answer if neither has whitespace there")
    max_new_tokens: PositiveInt = Field(default=32, description="longest answer for exact_match, in tokens")

    @model_validator(mode="after")
    def _one_form(self) -> LanguageModellingTask:
        columns = self.columns
        for name in ("text", "prompt", "answer"):
            if is_template(columns.get(name, "")):
                template_columns(columns[name])
        for name in ("choices", "label"):
            if is_template(columns.get(name, "")):
                raise ValueError(f"{name} must be a column's name, not a template; got {columns[name]!r}")
        unfit = [name for name in self.metrics or () if name not in _METRICS[self.form]]
        if unfit:
            raise ValueError(
                f"the metric {unfit[0]} does not fit these data; allowed with {' and '.join(columns)} are "
                f"{', '.join(_METRICS[self.form])}"
            )
        return self

    @property
    def columns(self) -> dict[str, str]:
        """Columns and templates by key, in one of the three forms.

        Raises:
            ValueError: the keys fit none of the forms.
        """
        names = ("text", "prompt", "answer", "choices", "label")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        for columns in (given, {**(self.known.columns if self.known else {}), **given}):
            if {"prompt", "choices"} <= columns.keys():
                columns.setdefault("label", "label")
            if columns.keys() in _COLUMNS.values():
                return columns
        raise ValueError(
            "give text, or prompt and answer, or prompt, choices and label, and no more; "
            f"got {', '.join(given) or 'none of them'}"
        )

    @property
    def form(self) -> Form:
        """The form of the data."""
        return next(form for form, names in _COLUMNS.items() if names == self.columns.keys())

    def auto_model(self) -> Any:
        """A decoder with a language-modelling head."""
        return transformers.AutoModelForCausalLM

    def towers(self) -> tuple[tuple[Tower, ...], ...]:
        """Decoders."""
        return (("decoder",),)

    def load(self) -> LanguageModelling:
        """Load all splits of the task."""
        return LanguageModelling(
            form=self.form,
            examples={split: self._examples(table) for split, table in self.tables().items()},
            metrics=self.metrics or _DEFAULT_METRICS[self.form],
            max_length=self.max_length,
            predict_all=self.predict == "all",
            separator=self.separator,
            max_new_tokens=self.max_new_tokens,
        )

    def _examples(self, table: Table) -> list[Example]:
        columns = self.columns
        if self.form == "text":
            return [Example("", (text,)) for text in table.filled(columns["text"])]
        prompts = table.filled(columns["prompt"])
        if self.form == "answer":
            answers = _answers(table, columns["answer"])
            return [Example(prompt, several) for prompt, several in zip(prompts, answers, strict=True)]
        choices = table.several_texts(columns["choices"], least=2)
        labels = _right_ones(table, columns["label"], choices)
        return [
            Example(prompt, (endings[label],), endings, label)
            for prompt, endings, label in zip(prompts, choices, labels, strict=True)
        ]


def _answers(table: Table, answer: str) -> list[tuple[str, ...]]:
    """One or several answers per example; only a column can contain lists."""
    if not is_template(answer) and any(isinstance(value, list | tuple) for value in table.column(answer)):
        return table.several_texts(answer)
    return [(text,) for text in table.filled(answer)]


def _right_ones(table: Table, column: str, choices: Sequence[tuple[str, ...]]) -> list[int]:
    right = []
    for row, (label, endings) in enumerate(zip(table.labels(column), choices, strict=True), start=1):
        number = int(str(label)) if str(label).isdecimal() else -1
        if not 0 <= number < len(endings):
            raise InputError(
                f"{table.source}, example {row}: the label is {label!r}. Allowed are the numbers of its "
                f"{len(endings)} choices, 0 to {len(endings) - 1}; repair or remove this example."
            )
        right.append(number)
    return right
