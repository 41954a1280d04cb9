"""A BART for letters to sounds, written here with random weights, since no package ships a pretrained encoder-decoder.

Importing this module imports transformers; the rest of the package imports it inside functions.
"""

from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import BartConfig, BartForConditionalGeneration, GenerationConfig, PreTrainedTokenizerFast

from kd_train.randomness import seeded
from layerangles.models.checkpoints import quiet_transformers

# Raise with every change of what is written: caches of an older recipe are then written again.
RECIPE = "bart-letters-to-sounds-1"

LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
# fmt: off
PHONEMES = (
    "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F", "G", "HH", "IH", "IY", "JH", "K",
    "L", "M", "N", "NG", "OW", "OY", "P", "R", "S", "SH", "T", "TH", "UH", "UW", "V", "W", "Y", "Z", "ZH",
)
# fmt: on

_BOS, _PAD, _EOS, _UNK = "<s>", "<pad>", "</s>", "<unk>"
_MAX_LENGTH = 64
# No token is forced: neither the first nor, at the length limit, the last.
_UNFORCED: dict[str, Any] = {"forced_bos_token_id": None, "forced_eos_token_id": None}
_SEED = 0


def write_bart(folder: Path) -> None:
    """Write an untrained BART: 3 + 3 layers, width 128, 1.4 M parameters, one token per letter or phoneme.

    Source and target end in ``</s>``, and the decoder starts with ``<s>``, which no text contains. The tokenizer splits
    ``hello`` into letters and ``HH AH L OW`` into phonemes, and decodes phonemes with spaces between them. The weights
    follow from a fixed seed and the version of torch; another version may draw others.
    """
    tokenizer = _tokenizer()
    config = BartConfig(
        vocab_size=len(tokenizer),
        d_model=128,
        encoder_layers=3,
        decoder_layers=3,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=512,
        decoder_ffn_dim=512,
        max_position_embeddings=_MAX_LENGTH,
        dropout=0.1,
        bos_token_id=tokenizer.bos_token_id,
        decoder_start_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **_UNFORCED,
    )
    with seeded(_SEED, BartForConditionalGeneration.__name__):
        model = BartForConditionalGeneration(config)
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        max_length=_MAX_LENGTH,
        decoder_start_token_id=config.decoder_start_token_id,
        bos_token_id=config.bos_token_id,
        pad_token_id=config.pad_token_id,
        eos_token_id=config.eos_token_id,
    )
    with quiet_transformers():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _tokenizer() -> PreTrainedTokenizerFast:
    """One token per letter and per phoneme (in capitals), ``</s>`` after every text, and no token types."""
    vocabulary = {token: i for i, token in enumerate((_BOS, _PAD, _EOS, _UNK, *LETTERS, *PHONEMES))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=_UNK))
    cut = pre_tokenizers.Split(Regex("[A-Z]+|[^A-Z]"), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), cut])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {_EOS}", pair=f"$A {_EOS} $B {_EOS}", special_tokens=[(_EOS, vocabulary[_EOS])]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        model_max_length=_MAX_LENGTH,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        bos_token=_BOS,
        pad_token=_PAD,
        eos_token=_EOS,
        unk_token=_UNK,
    )
