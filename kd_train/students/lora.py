"""Low-rank adapters (LoRA) through peft, merged into an ordinary model before it is saved or analysed."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from kd_train.randomness import seeded
from layerangles.errors import InputError
from layerangles.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    import transformers
    from transformers import pytorch_utils
else:
    torch, transformers = lazy_module("torch"), lazy_module("transformers")
    pytorch_utils = lazy_module("transformers.pytorch_utils")


class LoraSpec(BaseModel):
    """Adapters beside linear layers (Hu et al. 2021, 2106.09685); all other weights of the body stay as they are."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    rank: int = Field(default=16, ge=1, description="rank of the adapters' matrices")
    alpha: float = Field(default=32.0, gt=0, description="the adapters' output is scaled by alpha / rank")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout before the adapters")
    targets: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        default="all-linear", description="names of linear layers; all but the head by default"
    )

    def check(self, model: transformers.PreTrainedModel, place: str) -> None:
        """Raise an :class:`InputError` if a target is the name of no linear layer of this model."""
        kinds = (torch.nn.Linear, pytorch_utils.Conv1D)
        linear = [name for name, module in model.named_modules() if isinstance(module, kinds)]
        names = {*linear, *(name.rpartition(".")[2] for name in linear)}
        unknown = [target for target in self.targets if target not in names] if self.targets != "all-linear" else []
        if unknown:
            allowed = sorted(name for name in names if "." not in name)
            raise InputError(
                f"{place}.lora.targets names {unknown[0]}, which is no linear layer of this model; allowed are "
                f"all-linear and {', '.join(allowed)}."
            )


def add_adapters(model: transformers.PreTrainedModel, spec: LoraSpec, *, classifier: bool, seed: int) -> Any:
    """Add adapters to a model in place, and freeze all its other weights except a classifier's head.

    Returns:
        peft's wrapper around the model, which :func:`merged` needs.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,  # type: ignore[arg-type]  # peft scales by it and does not need it whole
        lora_dropout=spec.dropout,
        target_modules=spec.targets if isinstance(spec.targets, str) else list(spec.targets),
        task_type=TaskType.SEQ_CLS if classifier else None,
    )
    with seeded(seed, "adapters"), warnings.catch_warnings():
        # peft reads an attribute of transformers under its old name.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        # GPT-2 stores its weights transposed; peft detects that, sets fan_in_fan_out, and warns.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False", category=UserWarning)
        return get_peft_model(model, config)


def merged(adapters: Any) -> transformers.PreTrainedModel:
    """A copy of the model with its adapters merged into its weights; the original can be trained further."""
    model: transformers.PreTrainedModel = copy.deepcopy(adapters).merge_and_unload()
    return model
