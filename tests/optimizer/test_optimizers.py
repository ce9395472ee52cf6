"""Steps of the optimisers against their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ntkrun.optimizer import Adam, Constant, Cosine, Exponential, GradientDescent, Schedule

GRADIENTS = [torch.tensor([[0.5, -2.0]]), torch.tensor([[1.0, 0.25]]), torch.tensor([[-0.125, 3.0]])]


def layer() -> nn.Linear:
    network = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[1.0, -1.0]]))
    return network


def test_gradient_descent() -> None:
    network, optimizer = layer(), GradientDescent(learning_rate=0.1)
    optimizer.start(network)
    for gradient in GRADIENTS:
        optimizer.step({"weight": gradient}, factor=0.5)
    expected = torch.tensor([[1.0, -1.0]]) - 0.05 * torch.stack(GRADIENTS).sum(0)
    assert torch.allclose(network.weight, expected, atol=1e-7)
    assert network.weight.grad is None


def test_adam() -> None:
    network, optimizer = layer(), Adam(learning_rate=0.1, beta1=0.8, beta2=0.9, epsilon=1e-3)
    optimizer.start(network)
    theta, m, v = torch.tensor([[1.0, -1.0]]).double(), torch.zeros(1, 2), torch.zeros(1, 2)
    for k, gradient in enumerate(GRADIENTS, start=1):
        factor = 1 / k
        optimizer.step({"weight": gradient}, factor)
        m = 0.8 * m + 0.2 * gradient
        v = 0.9 * v + 0.1 * gradient**2
        theta = theta - 0.1 * factor * (m / (1 - 0.8**k)) / ((v / (1 - 0.9**k)).sqrt() + 1e-3)
    assert torch.allclose(network.weight.double(), theta, atol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (Constant(), [1, 1, 1]),
        (Exponential(rate=0.25, every=100), [1, 0.5, 0.25]),
        (Cosine(final=0.1), [1, 0.55, 0.1]),
    ],
    ids=["constant", "exponential", "cosine"],
)
def test_schedules(schedule: Schedule, factors: list[float]) -> None:
    assert [schedule.factor(step, 100) for step in (0, 50, 100)] == pytest.approx(factors)
    assert math.isfinite(schedule.factor(0, 0))
