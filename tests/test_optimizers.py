"""The optimizers against their definitions, their state as tensors, and the length of the warm-up."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kd_train.optimizers import OptimizerSpec, build_optimizer, load_optimizer, optimizer_tensors, rate_factor

RATE = 0.01


class _Model(nn.Module):
    """A matrix and a vector, and a matrix that is not trained."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.matrix = nn.Parameter(torch.randn(4, 3, generator=generator))
        self.vector = nn.Parameter(torch.randn(3, generator=generator))
        self.still = nn.Parameter(torch.randn(2, 2, generator=generator), requires_grad=False)


def _gradients(n: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    for step in range(n):
        size = 10.0 if step == 2 else 0.1  # one step with an update that is clipped
        yield size * torch.randn(4, 3, generator=generator), size * torch.randn(3, generator=generator)


def _steps(model: _Model, optimizer: torch.optim.Optimizer, n: int, start: int = 0) -> None:
    for number, (matrix, vector) in enumerate(_gradients(n)):
        if number >= start:
            model.matrix.grad, model.vector.grad = matrix, vector
            optimizer.step()


def _root_mean_square(tensor: Tensor) -> Tensor:
    return tensor.square().mean().sqrt()


def _adamw(weight: Tensor, gradients: list[Tensor], decay: float) -> Tensor:
    """Loshchilov and Hutter (1711.05101), algorithm 2, with torch's betas and epsilon."""
    mean, square = torch.zeros_like(weight), torch.zeros_like(weight)
    for step, gradient in enumerate(gradients, start=1):
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        update = (mean / (1 - 0.9**step)) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
        weight = weight - RATE * decay * weight - RATE * update
    return weight


def _adafactor(weight: Tensor, gradients: list[Tensor], decay: float) -> Tensor:
    """Shazeer and Stern (1804.04235), algorithms 4 and 5, with a learning rate of its own."""
    rows, columns, whole = torch.zeros(weight.shape[0]), torch.zeros(weight.shape[-1]), torch.zeros_like(weight)
    for step, gradient in enumerate(gradients, start=1):
        remain = 1 - step**-0.8
        square = gradient**2 + 1e-30
        if weight.ndim == 2:
            rows = remain * rows + (1 - remain) * square.mean(dim=1)
            columns = remain * columns + (1 - remain) * square.mean(dim=0)
            second = rows[:, None] * columns[None, :] / rows.mean()
        else:
            whole = remain * whole + (1 - remain) * square
            second = whole
        update = gradient / second.sqrt()
        update = update / max(1.0, float(_root_mean_square(update)))
        weight = weight - RATE * decay * weight - RATE * update
    return weight


@pytest.mark.parametrize(("optimizer", "definition"), [("adamw", _adamw), ("adafactor", _adafactor)])
def test_optimizers_are_their_definitions(optimizer: Any, definition: Any) -> None:
    model = _Model()
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    spec = OptimizerSpec(learning_rate=5.0, optimizer=optimizer, weight_decay=0.5)
    _steps(model, build_optimizer([model], spec, learning_rate=RATE), 4)
    matrices, vectors = zip(*_gradients(4), strict=True)
    torch.testing.assert_close(model.matrix.detach(), definition(start["matrix"], list(matrices), 0.5))
    torch.testing.assert_close(model.vector.detach(), definition(start["vector"], list(vectors), 0.0))  # no decay
    assert torch.equal(model.still, start["still"])


def test_exactly_the_trained_parameters_are_optimized_once_each() -> None:
    model = _Model()
    both = nn.ModuleList([model, model])
    optimizer = build_optimizer([model, both], OptimizerSpec(learning_rate=1.0), learning_rate=RATE)
    groups = [(group["params"], group["weight_decay"], group["lr"]) for group in optimizer.param_groups]
    assert len(groups) == 2
    assert groups[0][0][0] is model.matrix
    assert groups[1][0][0] is model.vector
    assert [(len(params), decay, rate) for params, decay, rate in groups] == [(1, 0.01, RATE), (1, 0.0, RATE)]


def test_an_empty_parameter_group_is_left_out() -> None:
    optimizer = build_optimizer([nn.Linear(2, 2, bias=False)], OptimizerSpec(learning_rate=1.0), learning_rate=RATE)
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("kind", ["adamw", "adafactor"])
def test_a_restored_optimizer_continues_unchanged(kind: Any) -> None:
    spec = OptimizerSpec(learning_rate=RATE, optimizer=kind)
    whole, halved = _Model(), _Model()
    _steps(whole, build_optimizer([whole], spec, learning_rate=RATE), 5)
    first = build_optimizer([halved], spec, learning_rate=RATE)
    _steps(halved, first, 2)
    tensors = optimizer_tensors(first)
    assert all(isinstance(tensor, Tensor) for tensor in tensors.values())
    assert {name.split(".")[0] for name in tensors} == {"0", "1"}
    second = build_optimizer([halved], spec, learning_rate=RATE)
    load_optimizer(second, {name: tensor.clone() for name, tensor in tensors.items()})
    _steps(halved, second, 5, start=2)
    assert torch.equal(whole.matrix, halved.matrix)
    assert torch.equal(whole.vector, halved.vector)


@pytest.mark.parametrize(
    ("warmup", "total", "steps"),
    [(0.1, 100, 10), (0.25, 10, 2), (0.0, 10, 0), (500, 1000, 500), (1, 10, 1), (2.6, 9, 3)],
)
def test_a_warmup_is_a_share_of_all_steps_or_a_number_of_them(warmup: float, total: int, steps: int) -> None:
    spec = OptimizerSpec(learning_rate=1.0, warmup=warmup)
    assert spec.warmup_steps(total) == steps
    factor = rate_factor(spec, total)
    assert factor(steps) == 1.0
    assert all(factor(step) == pytest.approx(step / steps) for step in range(steps))
    assert factor(total) == 0.0


def test_a_constant_schedule_keeps_the_learning_rate() -> None:
    factor = rate_factor(OptimizerSpec(learning_rate=1.0, warmup=0.0, schedule="constant_with_warmup"), 10)
    assert [factor(step) for step in (0, 5, 9)] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("change", [{"learning_rate": 0}, {"optimizer": "sgd"}, {"max_grad_norm": 0}, {"warmup": -1}])
def test_an_invalid_optimizer_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="1 validation error"):
        OptimizerSpec.model_validate({"learning_rate": 1.0} | change)
