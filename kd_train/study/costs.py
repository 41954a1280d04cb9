"""Costs of a study, estimated before it runs: parameters, memory and time per step; ``train`` measures the time."""

import time
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from kd_train.study.plan import MemberPlan, StudyPlan, without_weights
from kd_train.study.specs import RunSpec
from layerangles.models.states import n_layers, towers_of

# Bytes of activations that a block keeps for its backward pass, per token and dimension, in float32: twice the 34 bytes
# of 16-bit states that Korthikanti et al. (2022, 2205.05198, equation 2) count, and attention weights besides.
_ACTIVATION_BYTES, _ATTENTION_BYTES = 68, 10


class ModelCost(NamedTuple):
    """Costs of one model in a step, for a batch of texts of full length in one micro-batch.

    Attributes:
        parameters: number of parameters.
        memory_bytes: weights, gradients, optimizer and activations; weights alone for a teacher.
        seconds_per_step: forward (and backward) pass at the rate of this machine's matrix products.
    """

    parameters: int
    memory_bytes: int
    seconds_per_step: float


class StudyCost(NamedTuple):
    """Costs of the teacher, and of a student of each strategy, by label."""

    teacher: ModelCost
    students: dict[str, ModelCost]


def estimate(plan: StudyPlan) -> StudyCost:
    """Estimate the costs of a study's models. Reads no weights and takes about a tenth of a second."""
    tokens = plan.study.training.batch_size * plan.study.task.max_length
    teacher = without_weights(plan)
    parameters = _count(teacher)
    rate = flops_per_second()
    cost = ModelCost(parameters, 4 * parameters, 2 * _multiplied(teacher) * tokens / rate)
    return StudyCost(cost, {label: _student(plan, member, tokens, rate) for label, member in plan.members.items()})


def _student(plan: StudyPlan, member: MemberPlan, tokens: int, rate: float) -> ModelCost:
    spec = plan.study.training
    model = without_weights(plan, member.student)
    parameters = _count(model)
    trained = _trained(model, spec)
    # Gradients, and AdamW's two moments; Adafactor keeps rows and columns only.
    memory = 4 * (parameters + trained * (3 if spec.optimizer == "adamw" else 1)) + _activations(plan, model, tokens)
    # A backward pass costs two forward passes.
    return ModelCost(parameters, memory, 6 * _multiplied(model) * tokens / rate)


def _trained(model: PreTrainedModel, spec: RunSpec) -> int:
    if spec.lora is None:
        return _count(model)
    linears = [module for module in model.base_model.modules() if isinstance(module, torch.nn.Linear)]
    return spec.lora.rank * sum(module.in_features + module.out_features for module in linears)


def _activations(plan: StudyPlan, model: PreTrainedModel, tokens: int) -> int:
    config, length = model.config, plan.study.task.max_length
    depth = sum(n_layers(config, tower) for tower in towers_of(config))
    heads = getattr(config, "num_attention_heads", 1)
    per_token = depth * (_ACTIVATION_BYTES * config.hidden_size + _ATTENTION_BYTES * heads * length)
    # Logits of a language model, with their gradient and softmax.
    logits = 12 * config.vocab_size if model.can_generate() else 0
    return int(tokens * (per_token + logits))


def _multiplied(model: PreTrainedModel) -> int:
    """Number of parameters that multiply every token: all but the embeddings, unless the head is tied to them."""
    embeddings = _count(model.get_input_embeddings())
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    tied = head is not None and head.weight is model.get_input_embeddings().weight
    return _count(model) - (0 if tied else embeddings)


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@lru_cache
def flops_per_second(shape: Sequence[int] = (1024, 1024, 1024)) -> float:
    """Rate of this machine's float32 matrix products, in operations per second, on its best device."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows, inner, columns = shape
    a, b = torch.ones(rows, inner, device=device), torch.ones(inner, columns, device=device)
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        float((a @ b)[0, 0])
        best = min(best, time.perf_counter() - start)
    return 2 * rows * inner * columns / best
