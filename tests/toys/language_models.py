"""Small encoder-decoders and decoders of every family, and batches for them."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BartConfig,
    GPT2Config,
    LlamaConfig,
    MarianConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3Config,
    T5Config,
)

from kd_train.batches.order import cut_by_length
from kd_train.tasks.base import IGNORED, Feature, MicroBatch, Task
from kd_train.tasks.language_modelling import LanguageModelling
from kd_train.tasks.sequence_to_sequence import SequenceToSequence
from toys.models import toy_tokenizer

_VOCABULARY = {"vocab_size": 30, "pad_token_id": 0, "eos_token_id": 3}
_PAIRED = _VOCABULARY | {"d_model": 32, "decoder_start_token_id": 0}
_BART = _PAIRED | {
    "encoder_layers": 4,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "forced_eos_token_id": None,
}
_T5 = _PAIRED | {"d_kv": 8, "d_ff": 64, "num_heads": 4, "num_layers": 4, "num_decoder_layers": 3}
LLAMA = _VOCABULARY | {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
CONFIGS: dict[str, Callable[[], PretrainedConfig]] = {
    "t5": lambda: T5Config(**_T5),
    "t5-of-its-own-head": lambda: T5Config(**_T5, tie_word_embeddings=False, feed_forward_proj="gated-gelu"),
    "bart": lambda: BartConfig(**_BART),
    "marian": lambda: MarianConfig(**_BART, decoder_vocab_size=30),
    "gpt2": lambda: GPT2Config(
        vocab_size=30, n_embd=32, n_layer=4, n_head=4, n_positions=64, bos_token_id=3, eos_token_id=3
    ),
    "gpt2-inner": lambda: GPT2Config(
        vocab_size=30, n_embd=32, n_layer=4, n_head=4, n_inner=96, n_positions=64, bos_token_id=3, eos_token_id=3
    ),
    "llama": lambda: LlamaConfig(**LLAMA, tie_word_embeddings=False),
    "qwen3": lambda: Qwen3Config(**LLAMA, head_dim=16, tie_word_embeddings=True),
}
FAMILIES = tuple(CONFIGS)
PAIRED = ("t5", "t5-of-its-own-head", "bart", "marian")
T5 = ("t5", "t5-of-its-own-head")


def auto_model(family: str) -> Any:
    return AutoModelForSeq2SeqLM if family in PAIRED else AutoModelForCausalLM


def language_teacher(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model = auto_model(family).from_config(CONFIGS[family]())
    with torch.no_grad():  # no norm, bias or padding is what every new model has
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias += torch.randn_like(model.final_logits_bias)
    return model.eval()


def language_features(family: str, n: int = 6) -> list[Feature]:
    """Examples of different lengths, with labels at some positions."""
    generator = torch.Generator().manual_seed(0)

    def ids(longest: int) -> list[int]:
        n_tokens = int(torch.randint(2, longest, (1,), generator=generator))
        return torch.randint(4, 30, (n_tokens,), generator=generator).tolist()

    features = []
    for _ in range(n):
        source, target = ids(9), ids(7)
        if family in PAIRED:
            features.append({"input_ids": source, "decoder_input_ids": [0, *target], "labels": [*target, 3]})
        else:
            labels = [IGNORED] * (len(source) - 1) + target
            features.append({"input_ids": [*source, *target[:-1]], "labels": labels})
    return features


def language_micro_batches(family: str, n_micro_batches: int) -> list[MicroBatch]:
    """The examples as one batch."""
    task: Task
    if family in PAIRED:
        task = SequenceToSequence({}, ("bleu",), max_length=16, max_target_length=16, max_new_tokens=4, beams=1)
    else:
        task = LanguageModelling("answer", {}, ("perplexity",), max_length=16)
    return cut_by_length(language_features(family), task, toy_tokenizer(), n_micro_batches)
