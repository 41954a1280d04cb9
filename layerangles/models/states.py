"""Towers, blocks and hidden states of any transformers model."""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from layerangles.errors import InputError
from layerangles.layers import FinalNorm, Tower

# Names of the depths in configurations with two towers. The num_hidden_layers of T5 and BART is the encoder's.
DEPTHS = {
    "encoder": ("encoder_layers", "num_encoder_layers", "num_hidden_layers"),
    "decoder": ("decoder_layers", "num_decoder_layers"),
}

# Models whose positions are counted from one after PAD's id, so that a table of n has n - PAD - 1 for tokens. Their
# configurations do not say so.
_POSITIONS_AFTER_PAD = {
    "camembert",
    "data2vec-text",
    "ibert",
    "longformer",
    "luke",
    "markuplm",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
}


def check_finite(states: Tensor, name: str) -> None:
    """Raise an :class:`InputError` if states are NaN or infinite."""
    if not states.isfinite().all():
        raise InputError(
            f"the states of {name} are not finite: its training diverged, or its weights are damaged. Leave it out, "
            "or train it anew."
        )


def towers_of(config: PretrainedConfig) -> tuple[Tower, ...]:
    """Names of a model's towers: BERT-like models have an encoder, GPT-like ones a decoder, T5 and BART both."""
    if config.is_encoder_decoder:
        return ("encoder", "decoder")
    causal_only = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return ("decoder",) if causal_only and config.model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES else ("encoder",)


def n_layers(config: PretrainedConfig, tower: Tower) -> int:
    """Number of blocks of a tower, one less than the number of its states.

    Raises:
        InputError: the model has no such tower, or its configuration does not give the depth.
    """
    _check_tower(config, tower)
    names = DEPTHS[tower] if config.is_encoder_decoder else ("num_hidden_layers",)
    depth = next((found for name in names if (found := getattr(config, name, None)) is not None), None)
    if depth is None:
        raise InputError(
            f"the configuration of {config.model_type} does not say how many blocks its {tower} has: it has none of "
            f"{', '.join(names)}. Choose another model."
        )
    return int(depth)


def width(config: PretrainedConfig) -> int:
    """Dimension of a model's hidden states, the same in all towers."""
    return int(config.hidden_size)  # transformers gives d_model, dim and n_embd this name too


def n_positions(config: PretrainedConfig) -> int | None:
    """Number of tokens a model can take; None if its configuration sets no limit, as with relative positions."""
    n: int | None = getattr(config, "max_position_embeddings", None)
    if n is not None and config.model_type in _POSITIONS_AFTER_PAD:
        return n - first_position(config)
    return n


def first_position(config: PretrainedConfig) -> int:
    """Number of a text's first position: 0, except in models that count from one after PAD's id."""
    return (config.pad_token_id or 0) + 1 if config.model_type in _POSITIONS_AFTER_PAD else 0


def _check_tower(config: PretrainedConfig, tower: Tower) -> None:
    if tower not in towers_of(config):
        allowed = " and ".join(towers_of(config))
        raise InputError(f"{config.model_type} has no {tower}; allowed is {allowed}. Ask for what there is.")


def blocks(model: PreTrainedModel, tower: Tower | None = None) -> nn.ModuleList:
    """The list of a tower's transformer blocks, found by its length rather than by its name.

    Args:
        model: with or without a head.
        tower: may be left out where there is only one.

    Raises:
        InputError: there is no such tower, there are two and none is named, or no list of modules has the right
            length.
    """
    towers = towers_of(model.config)
    if tower is None:
        if len(towers) > 1:
            raise InputError(f"{model.config.model_type} has two towers; allowed are {' and '.join(towers)}. Name one.")
        tower = towers[0]
    depth = n_layers(model.config, tower)
    if len(towers) == 1:
        inside = model.base_model
    else:
        inside = model.get_encoder() if tower == "encoder" else model.get_decoder()  # type: ignore[no-untyped-call]
    for module in inside.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return module
    raise InputError(
        f"{type(model).__name__} keeps no list of its {depth} blocks, so they cannot be "
        'told apart (ALBERT shares one block among all layers). Choose another model, or use final_norm="post".'
    )


def forward_with_states(
    model: PreTrainedModel,
    inputs: Mapping[str, Tensor],
    *,
    final_norm: FinalNorm = "pre",
    layers: Collection[int] | None = None,
    **options: Any,
) -> tuple[Any, dict[str, tuple[Any, ...]]]:
    """Run a model; return its output and, by tower, its states: the embedding output, then one state per block.

    transformers returns the last state of a pre-norm model after the final norm, the others before theirs.
    ``final_norm="pre"`` takes the last block's own output instead, so that all are alike; ``"post"`` takes
    transformers' state. For post-norm models such as BERT the two are the same tensor.

    Inputs that are not in the model's signature are left out: BERT's tokenizer writes ``token_type_ids``, which
    DistilBERT does not take. ``options`` are always passed.

    Only the states of ``layers`` are kept in memory, where transformers supports it; the others may be None. By default
    all are kept.
    """
    towers = towers_of(model.config)
    given = known_inputs(model, inputs)
    # A cache would be as large as the states, for nothing.
    no_cache = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    last: dict[str, Tensor] = {}

    def keep(tower: Tower) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _args: Any, result: Any) -> None:
            last[tower] = result[0] if isinstance(result, tuple) else result

        return hook

    with ExitStack() as hooks:
        for tower in towers if final_norm == "pre" else ():
            hooks.callback(blocks(model, tower)[-1].register_forward_hook(keep(tower)).remove)
        output = model(**given, **no_cache, **options, output_hidden_states=True if layers is None else sorted(layers))
    states: dict[str, tuple[Tensor, ...]] = {}
    for tower in towers:
        theirs = output[f"{tower}_hidden_states" if len(towers) > 1 else "hidden_states"]
        states[tower] = tuple(theirs) if final_norm == "post" else (*theirs[:-1], last[tower])
    return output, states


def known_inputs(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inputs that are in the model's signature."""
    known = inspect.signature(model.forward).parameters
    return {name: value for name, value in inputs.items() if name in known}


def valid_states(
    states: Sequence[Float[Tensor, "example position dim"]], valid: Bool[Tensor, "example position"]
) -> Float[Tensor, "layer token dim"]:
    """States at the valid tokens, with examples and positions flattened in reading order."""
    index = valid.flatten().nonzero().squeeze(1)
    return torch.stack([state.flatten(0, 1).index_select(0, index) for state in states])
