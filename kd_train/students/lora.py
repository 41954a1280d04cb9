"""Low-rank adaptation through peft: what is trained is small; what is saved and analysed is an ordinary model again."""

import copy
import warnings
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from kd_train.randomness import seeded
from layerangles.errors import InputError


class LoraSpec(BaseModel):
    """Adapters beside linear layers (Hu et al. 2021, 2106.09685); all other weights of the body stay as they are."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    rank: int = Field(default=16, ge=1, description="of the adapters' matrices")
    alpha: float = Field(default=32.0, gt=0, description="the adapters' output is scaled by alpha / rank")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="before the adapters")
    targets: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        default="all-linear", description="names of linear layers; all but the head by default"
    )

    def check(self, model: PreTrainedModel, place: str) -> None:
        """Raise an :class:`InputError` if a target is the name of no linear layer of this model."""
        linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]
        names = {*linear, *(name.rpartition(".")[2] for name in linear)}
        unknown = [target for target in self.targets if target not in names] if self.targets != "all-linear" else []
        if unknown:
            allowed = sorted(name for name in names if "." not in name)
            raise InputError(
                f"{place}.lora.targets names {unknown[0]}, which is no linear layer of this model; allowed are "
                f"all-linear and {', '.join(allowed)}."
            )


def add_adapters(model: PreTrainedModel, spec: LoraSpec, *, classifier: bool, seed: int) -> Any:
    """Put adapters into a model, in place, and freeze the rest of it but for the head of a classifier.

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
        # peft asks transformers for something under its old name.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        # GPT-2 stores its weights transposed; peft sees that, sets what it needs, and says so.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False", category=UserWarning)
        return get_peft_model(model, config)


def merged(adapters: Any) -> PreTrainedModel:
    """A copy of the model with its adapters added into its weights; the original trains on."""
    model: PreTrainedModel = copy.deepcopy(adapters).merge_and_unload()
    return model
