"""Small configurations of every architecture, with the places of their blocks and final norms."""

from transformers import (
    BartConfig,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MarianConfig,
    ModernBertConfig,
    MPNetConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
    RobertaConfig,
    T5Config,
)

from toys.models import INITIALIZER_RANGE, N_TOKENS_IN_VOCABULARY

WIDTH = 32
_VOCABULARY = {"vocab_size": N_TOKENS_IN_VOCABULARY, "pad_token_id": 0}
_RANGE = {"initializer_range": INITIALIZER_RANGE}
_TOKENS = {"bos_token_id": 2, "eos_token_id": 3}
_SIZES = _VOCABULARY | _RANGE | {"hidden_size": WIDTH, "num_hidden_layers": 3, "num_attention_heads": 4}
_SIZES |= {"intermediate_size": 64}
_DECODER = _SIZES | _TOKENS | {"num_key_value_heads": 2, "head_dim": 8}
_TWO_TOWERS = _VOCABULARY | _TOKENS | {"d_model": WIDTH, "encoder_layers": 4, "decoder_layers": 3}
_TWO_TOWERS |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "init_std": INITIALIZER_RANGE}
_TWO_TOWERS |= {"encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
# The blocks of T5's decoder are themselves lists of three: a trap for who looks for a list of its three blocks.
_T5 = _VOCABULARY | {"d_model": WIDTH, "d_kv": 8, "d_ff": 64, "num_heads": 4, "num_layers": 4, "num_decoder_layers": 3}
CONFIGS: dict[str, PretrainedConfig] = {
    "bert": BertConfig(**_SIZES),
    "roberta": RobertaConfig(**_SIZES, **_TOKENS, max_position_embeddings=66),
    "distilbert": DistilBertConfig(**_VOCABULARY, **_RANGE, dim=WIDTH, n_layers=3, n_heads=4, hidden_dim=64),
    "mpnet": MPNetConfig(**_SIZES, **_TOKENS),
    "electra": ElectraConfig(**_SIZES, embedding_size=16),
    "modernbert": ModernBertConfig(**_SIZES, **_TOKENS, cls_token_id=2, sep_token_id=3),
    "t5": T5Config(**_T5, eos_token_id=3, decoder_start_token_id=0),
    "bart": BartConfig(**_TWO_TOWERS, decoder_start_token_id=3),
    "marian": MarianConfig(**_TWO_TOWERS, decoder_start_token_id=0, decoder_vocab_size=N_TOKENS_IN_VOCABULARY),
    "gpt2": GPT2Config(**_VOCABULARY, **_RANGE, **_TOKENS, n_embd=WIDTH, n_layer=3, n_head=4),
    "llama": LlamaConfig(**_DECODER),
    "qwen2": Qwen2Config(**_SIZES, **_TOKENS, num_key_value_heads=2),
    "qwen3": Qwen3Config(**_DECODER),
    "gemma": GemmaConfig(**_DECODER),
    "gemma2": Gemma2Config(**_DECODER, sliding_window=4),
    "gemma3": Gemma3TextConfig(**_DECODER, sliding_window=4),
}
# Where each tower's blocks stand, and its final norm, where it has one.
BLOCKS: dict[str, dict[str, str]] = {
    "bert": {"encoder": "encoder.layer"},
    "roberta": {"encoder": "encoder.layer"},
    "distilbert": {"encoder": "transformer.layer"},
    "mpnet": {"encoder": "encoder.layer"},
    "electra": {"encoder": "encoder.layer"},
    "modernbert": {"encoder": "layers"},
    "t5": {"encoder": "encoder.block", "decoder": "decoder.block"},
    "bart": {"encoder": "encoder.layers", "decoder": "decoder.layers"},
    "marian": {"encoder": "encoder.layers", "decoder": "decoder.layers"},
    "gpt2": {"decoder": "h"},
    "llama": {"decoder": "layers"},
    "qwen2": {"decoder": "layers"},
    "qwen3": {"decoder": "layers"},
    "gemma": {"decoder": "layers"},
    "gemma2": {"decoder": "layers"},
    "gemma3": {"decoder": "layers"},
}
FINAL_NORM: dict[str, dict[str, str]] = {
    "modernbert": {"encoder": "final_norm"},
    "t5": {"encoder": "encoder.final_layer_norm", "decoder": "decoder.final_layer_norm"},
    "gpt2": {"decoder": "ln_f"},
    **{kind: {"decoder": "norm"} for kind in ("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3")},
}
TWO_TOWERS = ("t5", "bart", "marian")
TARGETS = ["c d e f g", "h", "i j k", "l m n o p a b"]
