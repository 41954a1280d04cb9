"""Encoder-decoders that are made here, since no package ships a pretrained one: random weights and their tokenizers.

The weights follow from a fixed seed and the version of torch; another torch may draw others. They are written once, so
that a cache keeps its own. Neither model can do anything before it is trained.

The rest of the package imports this module inside functions, since it brings transformers along.
"""

from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GenerationConfig,
    MarianConfig,
    MarianMTModel,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from kd_train.data.embedded.datasets import english_romanian
from kd_train.randomness import seeded
from layerangles.models.checkpoints import quiet_transformers

# To be raised with whatever changes what is written: older caches are then made again.
BART_RECIPE = "bart-letters-to-sounds-1"
MARIAN_RECIPE = "marian-english-romanian-1"

LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
# fmt: off
PHONEMES = (
    "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F", "G", "HH", "IH", "IY", "JH", "K",
    "L", "M", "N", "NG", "OW", "OY", "P", "R", "S", "SH", "T", "TH", "UH", "UW", "V", "W", "Y", "Z", "ZH",
)
# fmt: on
N_SUBWORDS = 8000

_BOS, _PAD, _EOS, _UNK = "<s>", "<pad>", "</s>", "<unk>"
_SPECIAL = (_BOS, _PAD, _EOS, _UNK)
_SEED = 0


def write_bart(folder: Path) -> None:
    """Write a BART for letters to sounds: 3 + 3 layers, width 128, 1.4 M parameters, one token a letter or phoneme.

    Source and target end in ``</s>``, and the decoder starts with ``<s>``, which no text holds. The tokenizer cuts
    ``hello`` into letters and ``HH AH L OW`` into phonemes, and decodes phonemes with spaces between them.
    """
    tokenizer = _wrapped(letters_and_phonemes(), max_length=64, bos_token=_BOS)
    config = BartConfig(
        vocab_size=len(tokenizer),
        d_model=128,
        encoder_layers=3,
        decoder_layers=3,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=512,
        decoder_ffn_dim=512,
        max_position_embeddings=64,
        dropout=0.1,
        bos_token_id=tokenizer.bos_token_id,
        decoder_start_token_id=tokenizer.bos_token_id,
        **_ends(tokenizer),
    )
    _write(folder, BartForConditionalGeneration, config, tokenizer)


def write_marian(folder: Path) -> None:
    """Write a Marian for English to Romanian: 3 + 3 layers, width 256, 7.6 M parameters, 8,000 shared subwords.

    As in the published Marian models, texts end in ``</s>`` and the decoder starts with ``<pad>``. The subwords are
    learnt from both sides of the training split as it is on this machine.

    Raises:
        InputError: the data cannot be fetched.
    """
    train = english_romanian().splits["train"]
    tokenizer = _wrapped(subwords([*train.sources, *train.targets]), max_length=128)
    config = MarianConfig(
        vocab_size=len(tokenizer),
        decoder_vocab_size=len(tokenizer),
        d_model=256,
        encoder_layers=3,
        decoder_layers=3,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=1024,
        decoder_ffn_dim=1024,
        max_position_embeddings=128,
        dropout=0.1,
        activation_function="relu",
        scale_embedding=True,
        bos_token_id=None,
        decoder_start_token_id=tokenizer.pad_token_id,
        **_ends(tokenizer),
    )
    _write(folder, MarianMTModel, config, tokenizer)


def letters_and_phonemes() -> Tokenizer:
    """A tokenizer with one token for each letter and one for each phoneme, which are in capitals."""
    vocabulary = {token: i for i, token in enumerate((*_SPECIAL, *LETTERS, *PHONEMES))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=_UNK))
    cut = pre_tokenizers.Split(Regex("[A-Z]+|[^A-Z]"), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), cut])
    return tokenizer


def subwords(texts: list[str]) -> Tokenizer:
    """Byte-pair encoding learnt from texts; decoding gives a text back, but for unknown characters."""
    tokenizer = Tokenizer(models.BPE(unk_token=_UNK))
    # Composed, or a letter and its diacritic would be two characters.
    tokenizer.normalizer = normalizers.NFC()
    words = [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(words)
    tokenizer.decoder = decoders.Metaspace()
    special = [token for token in _SPECIAL if token != _BOS]
    trainer = trainers.BpeTrainer(vocab_size=N_SUBWORDS, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _wrapped(tokenizer: Tokenizer, *, max_length: int, **more: str) -> PreTrainedTokenizerFast:
    """What transformers reads and writes: ``</s>`` after every text, and no token types, which these models refuse."""
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {_EOS}", pair=f"$A {_EOS} $B {_EOS}", special_tokens=[(_EOS, tokenizer.token_to_id(_EOS))]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        pad_token=_PAD,
        eos_token=_EOS,
        unk_token=_UNK,
        **more,
    )


def _ends(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """The ids with which a target ends. No token is forced, neither the first nor, at the length limit, the last."""
    return {
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "forced_bos_token_id": None,
        "forced_eos_token_id": None,
    }


def _write(
    folder: Path, model_class: type[PreTrainedModel], config: PretrainedConfig, tokenizer: PreTrainedTokenizerFast
) -> None:
    with seeded(_SEED, model_class.__name__):
        model = model_class(config)
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        max_length=tokenizer.model_max_length,
        decoder_start_token_id=config.decoder_start_token_id,
        bos_token_id=config.bos_token_id,
        pad_token_id=config.pad_token_id,
        eos_token_id=config.eos_token_id,
    )
    with quiet_transformers():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
