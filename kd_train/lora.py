"""Low-rank adaptation through peft: what is trained is small; what is saved and analysed is an ordinary model again."""

import copy
import warnings
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from transformers import PreTrainedModel

from kd_train.randomness import seeded


class LoraSpec(BaseModel):
    """Adapters beside linear layers (Hu et al. 2021, 2106.09685); all other weights of the body stay as they are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0, description="the adapters' output is scaled by alpha / rank")
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: Literal["all-linear"] | tuple[str, ...] = Field(
        default="all-linear", description="names of linear layers; all but the head by default"
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
