"""Models, tokenizers and students small enough to be built in a test; every value follows from a seed."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from layerangles.geometry.maps import MatchingMap, MatchingMaps
from layerangles.models.checkpoints import quiet_transformers
from layerangles.models.checkpoints import write_student as _write_student
from layerangles.models.matching_file import Matching, TeacherReference, TowerMatching
from layerangles.models.weights import weights_sha256

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = tuple("abcdefghijklmnop")
N_TOKENS_IN_VOCABULARY = len(SPECIAL) + len(WORDS)
# transformers' own 0.02 leaves the layers of an untrained model within one degree of each other.
INITIALIZER_RANGE = 0.3


def toy_tokenizer(*, words: Sequence[str] = WORDS, padding_side: str = "right") -> PreTrainedTokenizerBase:
    """One token a word; ``[CLS] A [SEP]`` or ``[CLS] A [SEP] B [SEP]``."""
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    roles = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    names = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, padding_side=padding_side, model_input_names=names, **roles
    )


def toy_texts(n: int = 24, *, seed: int = 0, longest: int = 12) -> list[str]:
    """Random words, 1 to ``longest`` a text."""
    rng = random.Random(seed)  # noqa: S311
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, longest))) for _ in range(n)]


def toy_bert(*, layers: int, width: int = 32, seed: int = 0, **config: Any) -> BertForSequenceClassification:
    """A random BERT with a classification head."""
    torch.manual_seed(seed)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=N_TOKENS_IN_VOCABULARY,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            intermediate_size=2 * width,
            max_position_embeddings=64,
            initializer_range=INITIALIZER_RANGE,
            **config,
        )
    ).eval()


def write_model(path: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None) -> Path:
    """A model's directory as transformers saves it."""
    with quiet_transformers():
        model.save_pretrained(path)
    (tokenizer or toy_tokenizer()).save_pretrained(path)
    return path


def write_student(
    path: Path,
    teacher: Path,
    *,
    layers: int = 2,
    width: int = 32,
    seed: int = 1,
    step: int = 0,
    pairs: Sequence[tuple[int, int]] = ((0, 0), (1, 2)),
    maps: str = "identity",
    teacher_width: int = 32,
    bias: bool = True,
    model: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    overwrite: bool = False,
) -> Path:
    """A student directory, with random stored maps for the matched layers unless ``maps`` is ``"identity"``."""
    stored = MatchingMaps()
    if maps != "identity":
        rng = torch.Generator().manual_seed(1000 + seed)
        for layer, _ in pairs:
            weight = torch.randn(teacher_width, width, generator=rng) / width**0.5
            offset = torch.randn(teacher_width, generator=rng) if bias else None
            stored.by_layer["encoder", layer] = MatchingMap(weight, offset)
    matching = Matching(
        teacher=TeacherReference(path=str(teacher), weights_sha256=weights_sha256(teacher)),
        strategy={"kind": "forward"},
        seed=seed,
        step=step,
        towers={"encoder": TowerMatching(pairs=tuple(pairs), map=maps)},
        init={"kind": "random"},
        loss={"hidden": 1.0},
    )
    model = model or toy_bert(layers=layers, width=width, seed=seed)
    _write_student(path, model, tokenizer or toy_tokenizer(), matching, stored, overwrite=overwrite)
    return path
