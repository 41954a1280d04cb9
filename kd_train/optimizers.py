"""How a model is optimized: the optimizer and its schedule, and its state as tensors."""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from transformers import get_scheduler
from transformers.optimization import Adafactor


class OptimizerSpec(BaseModel):
    """The optimizer, with a schedule over all steps of the run."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    optimizer: Literal["adamw", "adafactor"] = Field(default="adamw", description="AdamW, or Adafactor")
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(default=0.01, ge=0, description="apart from the gradient, as AdamW has it")
    warmup: float = Field(default=0.1, ge=0, description="below 1 a share of all steps, from 1 a number of steps")
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = Field(
        default="linear", description="of the learning rate after the warm-up; the first two end at 0"
    )
    max_grad_norm: float = Field(default=1.0, gt=0, description="each student's gradient is clipped by itself")

    def warmup_steps(self, total_steps: int) -> int:
        """The number of steps over which the learning rate rises."""
        return round(self.warmup * total_steps) if self.warmup < 1 else round(self.warmup)


def build_optimizer(
    modules: Iterable[nn.Module], spec: OptimizerSpec, *, learning_rate: float
) -> torch.optim.Optimizer:
    """An optimizer over what is trained of these modules; no decay of biases and norms."""
    trained = list(dict.fromkeys(p for module in modules for p in module.parameters() if p.requires_grad))
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": spec.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if spec.optimizer == "adafactor":
        # With a learning rate of its own, as in T5's fine-tuning: no relative steps, no scaling by the weights.
        return Adafactor(  # type: ignore[no-untyped-call]
            groups, lr=learning_rate, scale_parameter=False, relative_step=False, warmup_init=False
        )
    # Fused: the embeddings make the optimizer a tenth of a step otherwise.
    return torch.optim.AdamW(groups, lr=learning_rate, fused=True)


def rate_factor(spec: OptimizerSpec, total_steps: int) -> Callable[[int], float]:
    """Transformers' schedule, taken as what it is: a factor of the learning rate as a function of the step."""
    nothing = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    factor: Callable[[int], float] = get_scheduler(
        spec.schedule,
        nothing,
        num_warmup_steps=spec.warmup_steps(total_steps),
        num_training_steps=total_steps,
    ).lr_lambdas[0]
    return factor


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state by ``<parameter number>.<name>``; what are numbers in it become tensors too."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value)
        for index, entry in state.items()
        for name, value in entry.items()
        if value is not None
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Take back what :func:`optimizer_tensors` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
