"""Language modelling: labels, likelihoods, choices, perplexity, and generated answers."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from toys.models import INITIALIZER_RANGE, toy_texts
from toys.tasks import BEGIN, END, N_BYTE_TOKENS, byte_tokenizer, silence, teach
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3Config,
)

from kd_train.tasks.base import IGNORED, Feature
from kd_train.tasks.language_modelling import Example, LanguageModelling, LanguageModellingTask
from kd_train.tasks.scoring.metrics import perplexity
from layerangles import InputError

CPU = Accelerator(cpu=True)
_VOCABULARY = {
    "vocab_size": N_BYTE_TOKENS,
    "bos_token_id": BEGIN,
    "eos_token_id": END,
    "initializer_range": INITIALIZER_RANGE,
}
_SIZES = _VOCABULARY | {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
_SIZES |= {"intermediate_size": 64, "head_dim": 8, "max_position_embeddings": 128}
CONFIGS: dict[str, PretrainedConfig] = {
    "gpt2": GPT2Config(**_VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=128),
    "llama": LlamaConfig(**_SIZES),
    "qwen3": Qwen3Config(**_SIZES),
}


def _model(kind: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIGS[kind]).eval()


def _data(form: str = "answer", n: int = 9, **options: Any) -> LanguageModelling:
    texts = toy_texts(3 * n, seed=4)
    prompts, endings = texts[:n], [tuple(texts[n + 2 * i : n + 2 * i + 2]) for i in range(n)]
    examples = {
        "text": [Example("", (f"{text} x",)) for text in prompts],
        "answer": [Example(prompt, several) for prompt, several in zip(prompts, endings, strict=True)],
        "choices": [
            Example(prompt, (several[i % 2],), several, i % 2)
            for i, (prompt, several) in enumerate(zip(prompts, endings, strict=True))
        ],
    }[form]
    metrics = {"text": ("perplexity",), "answer": ("exact_match",), "choices": ("accuracy", "accuracy_norm")}[form]
    defaults = {"form": form, "examples": {"dev": examples}, "metrics": metrics, "max_length": 100}
    return LanguageModelling(**{**defaults, **options})


def _encoded(data: LanguageModelling, *, begins: bool = False) -> list[Feature]:
    return data.encode("dev", byte_tokenizer(begins=begins), CONFIGS["gpt2"])


# ---- labels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["text", "answer", "choices"])
@pytest.mark.parametrize("predict_all", [True, False])
@pytest.mark.parametrize("kind", CONFIGS)
def test_the_loss_equals_that_of_transformers(kind: str, form: str, predict_all: bool) -> None:
    """transformers gets unshifted labels and shifts them itself."""
    model, data = _model(kind), _data(form, predict_all=predict_all)
    tokenizer = byte_tokenizer(begins=kind == "llama")
    features = data.encode("dev", tokenizer, model.config)
    micro_batch = data.collate(features, tokenizer)
    assert set(micro_batch.inputs) == {"input_ids", "attention_mask"}
    assert set(micro_batch.valid) == {"decoder"}
    with torch.no_grad():
        logits = model(**micro_batch.inputs).logits
    ours = torch.nn.functional.cross_entropy(logits.flatten(0, 1), micro_batch.labels.flatten(), ignore_index=IGNORED)
    begin = [BEGIN] if kind == "llama" else []
    end = [] if form == "text" else [END]
    total = n = 0
    for example, text in zip(data.examples["dev"], data.texts("dev"), strict=True):
        tokens = begin + tokenizer(text, add_special_tokens=False)["input_ids"] + end
        given = begin + tokenizer(example.prompt, add_special_tokens=False)["input_ids"]
        labels = torch.tensor([tokens])
        if form != "text" and not predict_all:
            labels[0, : len(given)] = -100
        n_predicted = int((labels[0, 1:] != -100).sum())
        with torch.no_grad():
            total += float(model(torch.tensor([tokens]), labels=labels).loss) * n_predicted
        n += n_predicted
    assert int((micro_batch.labels != IGNORED).sum()) == n
    assert float(ours) == pytest.approx(total / n, rel=1e-5)


def test_padding_is_on_the_right_and_never_valid() -> None:
    data = _data()
    features = _encoded(data)
    micro_batch = data.collate(features, byte_tokenizer())
    lengths = [len(feature["input_ids"]) for feature in features]
    assert [data.lengths(feature) for feature in features] == [(length,) for length in lengths]
    assert len(set(lengths)) > 3
    assert micro_batch.valid["decoder"].sum(dim=1).tolist() == lengths
    for row, length in enumerate(lengths):
        assert micro_batch.valid["decoder"][row, :length].all()
        assert (micro_batch.labels[row, length:] == IGNORED).all()
        assert micro_batch.labels[row, length - 1] == END
        shifted = micro_batch.inputs["input_ids"][row, 1:length]
        is_label = micro_batch.labels[row, : length - 1] != IGNORED
        assert torch.equal(micro_batch.labels[row, : length - 1][is_label], shifted[is_label])


def test_texts_longer_than_the_model_are_refused() -> None:
    with pytest.raises(InputError, match=r"a text has \d+ tokens, more than the 8 that these models can take"):
        _data(metrics=("perplexity",)).encode("dev", byte_tokenizer(), GPT2Config(n_positions=8))
    with pytest.raises(InputError, match=r"max_new_tokens is 32, which leaves no room .* the 32 tokens"):
        _data().encode("dev", byte_tokenizer(), GPT2Config(n_positions=32))


# ---- likelihoods ---------------------------------------------------------------------------------------------------


def _log_likelihood(model: PreTrainedModel, given: list[int], tokens: list[int]) -> float:
    """Reference: token by token, in float64, without padding."""
    total = 0.0
    for i, token in enumerate(tokens):
        with torch.no_grad():
            logits = model(torch.tensor([given + tokens[:i]])).logits[0, -1].double()
        total += float(logits[token] - logits.logsumexp(0))
    return total


def _ids(text: str) -> list[int]:
    ids: list[int] = byte_tokenizer()(text, add_special_tokens=False)["input_ids"]
    return ids


@pytest.mark.parametrize("kind", CONFIGS)
def test_likelihoods_of_choices_are_sums_over_their_tokens(kind: str) -> None:
    model, data = _model(kind), _data("choices")
    tokenizer = byte_tokenizer(begins=kind == "llama")
    begin = [BEGIN] if kind == "llama" else []
    given = data.likelihoods_of_choices(model, "dev", tokenizer, CPU)
    expected = [
        [_log_likelihood(model, begin + _ids(example.prompt), _ids(f" {choice}")) for choice in example.choices]
        for example in data.examples["dev"]
    ]
    for ours, theirs in zip(given, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    scores = data.values(data.predict(model, "dev", data.encode("dev", tokenizer, model.config), tokenizer, CPU))
    right = right_norm = 0
    for example, values in zip(data.examples["dev"], expected, strict=True):
        right += values.index(max(values)) == example.label
        norms = [value / len(choice) for value, choice in zip(values, example.choices, strict=True)]
        right_norm += norms.index(max(norms)) == example.label
    assert scores == {"accuracy": right / 9, "accuracy_norm": right_norm / 9}


def test_a_long_choice_may_win_by_its_characters() -> None:
    class Known(LanguageModelling):
        def likelihoods_of_choices(self, *_: Any) -> list[list[float]]:
            return [[-2.0, -3.0], [-2.0, -3.0], [-1.0, -1.0]]

    examples = [Example("x", ("longer",), ("a", "longer"), 1), Example("x", ("a",), ("a", "b"), 0)]
    examples += [Example("x", ("c",), ("b", "c"), 1)]  # of equals the first is taken
    data = Known("choices", {"dev": examples}, ("accuracy_norm", "accuracy"), 100)
    scores = data.values(data.predict(_model("gpt2"), "dev", [], byte_tokenizer(), CPU))
    assert scores == {"accuracy_norm": 2 / 3, "accuracy": 1 / 3}


def test_examples_may_differ_in_their_number_of_choices() -> None:
    model = _model("gpt2")
    examples = [Example("x", ("a",), ("a", "b", "c"), 0), Example("y", ("d",), ("c", "d"), 1)]
    data = _data("choices", examples={"dev": examples})
    given = data.likelihoods_of_choices(model, "dev", byte_tokenizer(), CPU)
    assert [len(values) for values in given] == [3, 2]
    assert given[1][1] == pytest.approx(_log_likelihood(model, _ids("y"), _ids(" d")), rel=1e-4)


@pytest.mark.parametrize("form", ["text", "answer"])
@pytest.mark.parametrize("training", [True, False])
def test_perplexity_is_a_mean_over_all_predicted_tokens(form: str, training: bool) -> None:
    model, data = _model("gpt2").train(training), _data(form, n=40, metrics=("perplexity",))  # several batches
    scores = data.values(data.predict(model, "dev", _encoded(data), byte_tokenizer(), CPU))
    assert model.training == training
    model.eval()
    total, n = 0.0, 0
    for example, text in zip(data.examples["dev"], data.texts("dev"), strict=True):
        tokens = _ids(text) + ([] if form == "text" else [END])
        n_given = len(_ids(example.prompt)) if form == "answer" else 1
        total -= _log_likelihood(model, tokens[:n_given], tokens[n_given:])
        n += len(tokens) - n_given
    assert scores == {"perplexity": pytest.approx(math.exp(total / n), rel=1e-4)}


def test_perplexity_has_known_values() -> None:
    assert perplexity([1, 3], [math.log(4), 3 * math.log(4)]) == pytest.approx(4)
    assert perplexity([1, 3], [math.log(16), 0.0]) == pytest.approx(2)
    assert perplexity([1], [1e6]) == math.inf
    higher = {name: metric.higher_is_better for name, metric in LanguageModellingTask.all_metrics.items()}
    assert higher == {"perplexity": False, "accuracy": True, "accuracy_norm": True, "exact_match": True}


# ---- what is written -----------------------------------------------------------------------------------------------


@pytest.fixture
def no_complaints() -> Iterator[None]:
    with silence():
        yield


def _greedy(model: PreTrainedModel, given: list[int], n: int) -> str:
    """Reference: the most likely token at every step."""
    written: list[int] = []
    for _ in range(n):
        with torch.no_grad():
            token = int(model(torch.tensor([given + written])).logits[0, -1].argmax())
        if token == END:
            break
        written.append(token)
    return str(byte_tokenizer().decode(written, skip_special_tokens=True)).strip()


def _taught(kind: str, data: LanguageModelling, *, steps: int) -> PreTrainedModel:
    model, tokenizer = _model(kind), byte_tokenizer(begins=kind == "llama")
    micro_batch = data.collate(data.encode("dev", tokenizer, model.config), tokenizer)
    teach(model, micro_batch, steps=steps)
    return model


@pytest.mark.usefixtures("no_complaints")
@pytest.mark.parametrize("kind", CONFIGS)
def test_batches_generate_the_same_texts_as_single_prompts(kind: str) -> None:
    data = _data(max_new_tokens=12)
    model, begin = _taught(kind, data, steps=20), [BEGIN] if kind == "llama" else []
    written = data.generated(model, "dev", byte_tokenizer(begins=kind == "llama"), CPU)
    assert written == [_greedy(model, begin + _ids(example.prompt), 12) for example in data.examples["dev"]]
    assert len(set(written)) > 3
    model.generation_config = GenerationConfig(do_sample=True, temperature=0.6, top_p=0.95, top_k=20, min_length=99)
    assert data.generated(model, "dev", byte_tokenizer(begins=kind == "llama"), CPU) == written


@pytest.mark.usefixtures("no_complaints")
@pytest.mark.parametrize("kind", CONFIGS)
def test_a_model_that_has_learnt_its_answers_matches_them(kind: str) -> None:
    """End to end: the boundary, first token and end that are learnt are those of generation."""
    data = _data(metrics=("exact_match", "perplexity"))
    model, tokenizer = _taught(kind, data, steps=120), byte_tokenizer(begins=kind == "llama")
    firsts = [example.answers[0] for example in data.examples["dev"]]
    assert data.generated(model, "dev", tokenizer, CPU) == firsts
    scores = data.values(data.predict(model, "dev", data.encode("dev", tokenizer, model.config), tokenizer, CPU))
    assert list(scores) == ["exact_match", "perplexity"]
    assert scores["exact_match"] == 1
    assert 1 <= scores["perplexity"] < 1.2


def test_an_answer_may_equal_any_of_several_references() -> None:
    data = _data()
    model = _taught("gpt2", data, steps=120)
    turned = [
        example._replace(answers=("x.", f"The {example.answers[0]}!".upper())) for example in data.examples["dev"]
    ]
    other = _data(examples={"dev": [*turned[:3], *(example._replace(answers=("x.",)) for example in turned[3:])]})
    assert other.values(other.predict(model, "dev", _encoded(other), byte_tokenizer(), CPU)) == {"exact_match": 3 / 9}


def test_long_prompts_leave_room_for_the_answer() -> None:
    """Of 128 positions, the new tokens take theirs, and the last tokens of the prompt fill the others."""
    model = _model("gpt2")
    prompt = "".join(chr(ord("a") + i % 26) for i in range(300))
    data = _data(examples={"dev": [Example(prompt, ("x",))]}, max_length=200, max_new_tokens=20)
    assert data.generated(model, "dev", byte_tokenizer(), CPU) == [_greedy(model, _ids(prompt[-108:]), 20)]
    shorter = _data(examples={"dev": [Example(prompt, ("x",))]}, max_length=30, max_new_tokens=20)
    assert shorter.generated(model, "dev", byte_tokenizer(), CPU) == [_greedy(model, _ids(prompt[-30:]), 20)]


@pytest.mark.usefixtures("no_complaints")
def test_generation_needs_no_pad_token() -> None:
    assert byte_tokenizer().pad_token_id is None
    model, data = _model("llama"), _data()
    assert data.values(data.predict(model, "dev", _encoded(data), byte_tokenizer(), CPU))["exact_match"] == 0
