"""Optimizers and their schedules, and their state as tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from layerangles.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    from transformers import optimization
else:
    torch, optimization = lazy_module("torch"), lazy_module("transformers.optimization")


class OptimizerSpec(BaseModel):
    """The optimizer, with a schedule over all steps of the run."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    optimizer: Literal["adamw", "adafactor"] = Field(default="adamw", description="AdamW, or Adafactor")
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(default=0.01, ge=0, description="decoupled from the gradient, as in AdamW")
    warmup: float = Field(default=0.1, ge=0, description="a share of all steps if below 1, else a number of steps")
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = Field(
        default="linear", description="learning rate after the warm-up; the first two end at 0"
    )
    max_grad_norm: float = Field(default=1.0, gt=0, description="each student's gradient is clipped by itself")

    def warmup_steps(self, total_steps: int) -> int:
        """The number of steps over which the learning rate rises."""
        return round(self.warmup * total_steps) if self.warmup < 1 else round(self.warmup)


def build_optimizer(
    modules: Iterable[torch.nn.Module], spec: OptimizerSpec, *, learning_rate: float
) -> torch.optim.Optimizer:
    """An optimizer over the trained parameters of these modules, without weight decay for biases and norms."""
    trained = list(dict.fromkeys(p for module in modules for p in module.parameters() if p.requires_grad))
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": spec.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if spec.optimizer == "adafactor":
        # A given learning rate, as in T5's fine-tuning: no relative steps, no scaling by the weights.
        return optimization.Adafactor(  # type: ignore[no-untyped-call]
            groups, lr=learning_rate, scale_parameter=False, relative_step=False, warmup_init=False
        )
    # Unfused, the embeddings make the optimizer a tenth of a step.
    return torch.optim.AdamW(groups, lr=learning_rate, fused=True)


def rate_factor(spec: OptimizerSpec, total_steps: int) -> Callable[[int], float]:
    """The factor of the learning rate as a function of the step, from transformers' schedules."""
    unused = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    factor: Callable[[int], float] = optimization.get_scheduler(
        spec.schedule,
        unused,
        num_warmup_steps=spec.warmup_steps(total_steps),
        num_training_steps=total_steps,
    ).lr_lambdas[0]
    return factor


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's state by ``<parameter number>.<name>``; numbers become tensors."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value)
        for index, entry in state.items()
        for name, value in entry.items()
        if value is not None
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Restore the tensors of :func:`optimizer_tensors`."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
