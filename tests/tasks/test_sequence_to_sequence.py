"""Sequence to sequence: inputs of encoder and decoder, the loss, and generated texts."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional
from toys.models import INITIALIZER_RANGE, N_TOKENS_IN_VOCABULARY, toy_texts, toy_tokenizer
from toys.tasks import score, silence, teach
from transformers import (
    AutoModelForSeq2SeqLM,
    BartConfig,
    GenerationConfig,
    MarianConfig,
    PretrainedConfig,
    PreTrainedModel,
    T5Config,
)

from kd_train.tasks.base import IGNORED, Feature
from kd_train.tasks.scoring.text_metrics import TEXT_METRICS
from kd_train.tasks.sequence_to_sequence import PairedSplit, SequenceToSequence
from layerangles import InputError
from layerangles.models.states import forward_with_states
from layerangles.models.texts import EncodedTexts

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


def _model(kind: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForSeq2SeqLM.from_config(CONFIGS[kind]).eval()


@cache
def _taught_weights(kind: str, steps: int) -> dict[str, Tensor]:
    model, data = _model(kind), _data()
    micro_batch = data.collate(_encoded(data, kind), toy_tokenizer())
    teach(model, micro_batch, steps=steps)
    return model.state_dict()


def _taught(kind: str, *, steps: int = 25) -> PreTrainedModel:
    """A model that has begun to learn its targets, so that its texts depend on the source and end."""
    model = _model(kind)
    model.load_state_dict(_taught_weights(kind, steps))
    # By default the configurations of BART and Marian force a last token when there is room for no more.
    model.generation_config.forced_eos_token_id = None
    return model


def _data(n: int = 12, **options: Any) -> SequenceToSequence:
    sources, targets = toy_texts(n, seed=1), toy_texts(n, seed=2)
    examples = {"dev": PairedSplit(sources, [(target, "a b c") for target in targets])}
    defaults = {
        "examples": examples,
        "max_length": 64,
        "max_target_length": 64,
        "max_new_tokens": 10,
        "beams": 1,
        "metrics": ("bleu",),
    }
    return SequenceToSequence(**{**defaults, **options})


def _encoded(data: SequenceToSequence, kind: str) -> list[Feature]:
    return data.encode("dev", toy_tokenizer(), CONFIGS[kind])


# ---- tokens --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_decoder_reads_the_target_shifted_by_one(kind: str) -> None:
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
def test_the_loss_equals_that_of_transformers(kind: str) -> None:
    """For several lengths, loss and decoder inputs equal those that transformers derives from the labels."""
    model, data, tokenizer = _model(kind), _data(), toy_tokenizer()
    micro_batch = data.collate(_encoded(data, kind), tokenizer)
    assert set(micro_batch.inputs) == {"input_ids", "attention_mask", "decoder_input_ids", "decoder_attention_mask"}
    with torch.no_grad():
        logits = model(**micro_batch.inputs).logits
        theirs = model(
            micro_batch.inputs["input_ids"], micro_batch.inputs["attention_mask"], labels=micro_batch.labels
        ).loss
    ours = functional.cross_entropy(logits.flatten(0, 1), micro_batch.labels.flatten(), ignore_index=IGNORED)
    assert torch.allclose(ours, theirs, rtol=1e-5)
    assert logits.shape[:2] == micro_batch.labels.shape
    assert torch.equal(micro_batch.labels != IGNORED, micro_batch.valid["decoder"])
    assert torch.equal(micro_batch.inputs["attention_mask"].bool(), micro_batch.valid["encoder"])
    assert micro_batch.labels.eq(IGNORED).any()
    assert {tower: int(mask.sum()) for tower, mask in micro_batch.valid.items()} == {
        "encoder": sum(len(f["input_ids"]) for f in _encoded(data, kind)),
        "decoder": sum(len(f["labels"]) for f in _encoded(data, kind)),
    }


@pytest.mark.parametrize("kind", CONFIGS)
def test_padding_changes_no_logits_at_labels(kind: str) -> None:
    model, data, tokenizer = _model(kind), _data(), toy_tokenizer()
    features = _encoded(data, kind)
    micro_batch = data.collate(features, tokenizer)
    with torch.no_grad():
        together = model(**micro_batch.inputs).logits
        for row, feature in enumerate(features):
            alone = model(**data.collate([feature], tokenizer).inputs).logits[0]
            assert torch.allclose(together[row, : len(alone)], alone, atol=1e-4)


def test_valid_tokens_are_those_of_the_measurement() -> None:
    data, config = _data(), CONFIGS["t5"]
    micro_batch = data.collate(_encoded(data, "t5"), toy_tokenizer())
    encoded = EncodedTexts.from_texts(data.texts("dev"), toy_tokenizer(), max_length=64, config=config)
    (batch,) = encoded.batches(12)
    for tower, valid in micro_batch.valid.items():
        assert valid.sum() == batch.valid[tower].sum()
    model = _model("t5")
    with torch.no_grad():
        states = forward_with_states(model, micro_batch.inputs)[1]["decoder"][-1][micro_batch.valid["decoder"]]
        theirs = forward_with_states(model, batch.inputs)[1]["decoder"][-1][batch.valid["decoder"]]
    assert torch.allclose(states.sum(0), theirs.sum(0), atol=1e-2)


def test_source_and_target_are_truncated_separately() -> None:
    data = _data(max_length=6, max_target_length=4, max_new_tokens=4)
    features = _encoded(data, "bart")
    assert max(len(f["input_ids"]) for f in features) == 6
    assert max(len(f["labels"]) for f in features) == max(len(f["decoder_input_ids"]) for f in features) == 4
    assert all(feature["labels"][-1] == 3 for feature in features)  # where it is cut it still ends


def test_targets_may_be_shorter_than_their_special_tokens() -> None:
    with pytest.raises(InputError, match=r"max_target_length is 2, of which this tokenizer needs 2 .* Allowed are 3"):
        EncodedTexts.from_texts(
            [("a", "b")], toy_tokenizer(), max_length=9, max_target_length=2, config=CONFIGS["bart"]
        )


def test_answers_longer_than_the_models_positions_are_refused() -> None:
    with pytest.raises(InputError, match=r"max_new_tokens is 65, more than the 64 tokens that this model can write"):
        _encoded(_data(max_new_tokens=65), "bart")
    assert _encoded(_data(max_new_tokens=65), "t5")  # whose positions are relative


def test_targets_without_the_models_end_token_are_refused() -> None:
    config = T5Config(**CONFIGS["t5"].to_dict() | {"eos_token_id": 7})
    with pytest.raises(InputError, match=r"ends no target with the model's end token \(\[7\]\)"):
        _data().encode("dev", toy_tokenizer(), config)


# ---- generated texts -----------------------------------------------------------------------------------------------


@pytest.fixture
def no_complaints() -> Iterator[None]:
    with silence():
        yield


def _one_by_one(model: PreTrainedModel, data: SequenceToSequence, features: list[Feature]) -> list[str]:
    """Reference: every source by itself, as in the manual of transformers."""
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
def test_batches_generate_the_same_texts_as_single_sources(kind: str, beams: int) -> None:
    model, data = _taught(kind), _data(beams=beams)
    features = _encoded(data, kind)
    written = data.generated(model, features, toy_tokenizer(), CPU)
    assert written == _one_by_one(model, data, features)
    assert len(set(written)) > 3
    assert max(len(text.split()) for text in written) <= 10


def test_more_beams_find_more_likely_texts() -> None:
    """Likelihood is per token, as in the search."""
    model, searches = _taught("t5"), {beams: _data(beams=beams) for beams in (1, 4)}
    features = _encoded(searches[1], "t5")
    likelihoods = {}
    for beams, data in searches.items():
        texts = data.generated(model, features, toy_tokenizer(), CPU)
        pairs = zip(data.examples["dev"].sources, [(text,) for text in texts], strict=True)
        sources, targets = zip(*[pair for pair in pairs if pair[1] != ("",)], strict=True)
        as_targets = _data(examples={"dev": PairedSplit(list(sources), list(targets))})
        micro_batch = as_targets.collate(_encoded(as_targets, "t5"), toy_tokenizer())
        with torch.no_grad():
            likelihoods[beams] = -float(model(**micro_batch.inputs, labels=micro_batch.labels).loss)
    assert likelihoods[4] > likelihoods[1]


@pytest.mark.usefixtures("no_complaints")
def test_a_models_own_generation_config_is_ignored_and_kept() -> None:
    """Sampling and penalties in the files of teacher and students do not change how they are decoded."""
    model, data = _taught("bart"), _data(beams=3)
    features = _encoded(data, "bart")
    expected = data.generated(model, features, toy_tokenizer(), CPU)
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
    assert data.generated(model, features, toy_tokenizer(), CPU) == expected
    assert model.generation_config is theirs
    assert theirs.temperature == 3.0


def test_a_models_generation_config_is_kept_when_generation_fails() -> None:
    model, data = _model("bart"), _data()
    theirs = model.generation_config
    with pytest.raises(IndexError):
        data.generated(model, [{"input_ids": [999]}], toy_tokenizer(), CPU)
    assert model.generation_config is theirs


@pytest.mark.usefixtures("no_complaints")
@pytest.mark.parametrize("training", [True, False])
def test_scores_compare_generated_texts_with_all_references(training: bool) -> None:
    model, data = _taught("marian"), _data(metrics=tuple(TEXT_METRICS), beams=2)
    features = _encoded(data, "marian")
    written = _one_by_one(model, data, features)
    model.train(training)
    scores = data.values(data.predict(model, "dev", features, toy_tokenizer(), CPU))
    assert model.training == training
    assert scores == pytest.approx(score(data.examples["dev"].targets, written, TEXT_METRICS))
    first_alone = [targets[0] for targets in data.examples["dev"].targets]
    assert scores != pytest.approx(score(first_alone, written, TEXT_METRICS))
    assert list(scores) == list(TEXT_METRICS)


@pytest.mark.usefixtures("no_complaints")
def test_a_model_with_adapters_generates() -> None:
    peft = pytest.importorskip("peft")
    model, data = _taught("t5"), _data(beams=2)
    features = _encoded(data, "t5")
    expected = data.generated(model, features, toy_tokenizer(), CPU)
    peft.inject_adapter_in_model(peft.LoraConfig(r=2, target_modules=["q", "v"]), model)
    assert data.generated(model, features, toy_tokenizer(), CPU) == expected  # new adapters change nothing


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_model_that_has_learnt_its_targets_scores_100(kind: str) -> None:
    """End to end: targets learnt from labels are generated."""
    model, data = _taught(kind, steps=150), _data(beams=2, max_new_tokens=16)
    firsts = [target for _, target in data.texts("dev")]
    features = _encoded(data, kind)
    assert data.generated(model, features, toy_tokenizer(), CPU) == firsts
    assert data.values(data.predict(model, "dev", features, toy_tokenizer(), CPU)) == {"bleu": pytest.approx(100)}
