"""Steps of the optimisers against their formulas."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ntkrun.objective import Evaluation
from ntkrun.optimizer import (
    LBFGS,
    SOAP,
    Adam,
    AdamLBFGS,
    AdamW,
    Constant,
    Cosine,
    Exponential,
    GradientDescent,
    Optimizer,
    Schedule,
)

GRADIENTS = [torch.tensor([[0.5, -2.0]]), torch.tensor([[1.0, 0.25]]), torch.tensor([[-0.125, 3.0]])]


def layer(dtype: torch.dtype = torch.float32) -> nn.Linear:
    network = nn.Linear(2, 1, bias=False, dtype=dtype)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[1.0, -1.0]]))
    return network


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def given(gradient: Tensor, loss: float = 1.0) -> Evaluation:
    return Evaluation(torch.tensor([loss]), torch.ones(1), {"weight": gradient})


def never() -> Evaluation:
    raise AssertionError("a first-order optimiser looks at one point only")


def test_gradient_descent() -> None:
    network, optimizer = layer(), GradientDescent(learning_rate=0.1)
    optimizer.start(network)
    for gradient in GRADIENTS:
        optimizer.step(given(gradient), 0.5, never, changed=False)
    expected = torch.tensor([[1.0, -1.0]]) - 0.05 * torch.stack(GRADIENTS).sum(0)
    assert torch.allclose(network.weight, expected, atol=1e-7)
    assert network.weight.grad is None


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_adam(decay: float) -> None:
    options = {"learning_rate": 0.1, "beta1": 0.8, "beta2": 0.9, "epsilon": 1e-3}
    network, optimizer = layer(), AdamW(**options, weight_decay=decay) if decay else Adam(**options)
    optimizer.start(network)
    theta, m, v = torch.tensor([[1.0, -1.0]]).double(), torch.zeros(1, 2), torch.zeros(1, 2)
    for k, gradient in enumerate(GRADIENTS, start=1):
        factor = 1 / k
        optimizer.step(given(gradient), factor, never, changed=False)
        m = 0.8 * m + 0.2 * gradient
        v = 0.9 * v + 0.1 * gradient**2
        theta = theta * (1 - 0.1 * factor * decay)
        theta = theta - 0.1 * factor * (m / (1 - 0.8**k)) / ((v / (1 - 0.9**k)).sqrt() + 1e-3)
    assert torch.allclose(network.weight.double(), theta, atol=1e-6)


def test_soap_is_adam_in_the_eigenbasis_of_its_preconditioner() -> None:
    """From the same gradient U S V^T twice, Adam's first step in the basis (U, V) is minus the rate times its signs."""
    torch.manual_seed(0)
    network, optimizer = nn.Linear(3, 3, bias=False).double(), SOAP(learning_rate=0.1, beta1=0.9, beta2=0.9)
    optimizer.start(network)
    before, gradient = network.weight.detach().clone(), torch.randn(3, 3, dtype=torch.float64)
    optimizer.step(given(gradient), 1.0, never, changed=False)  # only sets the preconditioner up
    assert torch.equal(network.weight, before)
    optimizer.step(given(gradient), 1.0, never, changed=False)
    u, _, vh = torch.linalg.svd(gradient)
    moved = u.T @ (network.weight - before).detach() @ vh.T
    assert torch.allclose(moved, -0.1 * torch.eye(3, dtype=torch.float64), atol=1e-6)


def test_eigenbases_of_soap_are_orthogonal_to_single_precision() -> None:
    """In double precision too, once they are renewed; what the package changes about that changes our documentation."""
    torch.manual_seed(0)
    network, optimizer = nn.Linear(3, 3, bias=False).double(), SOAP(learning_rate=0.1, precondition_every=2)
    optimizer.start(network)

    def defect() -> float:
        bases: list[Tensor] = optimizer._torch.state[network.weight]["Q"]
        return max((q.T @ q - torch.eye(3).double()).abs().max().item() for q in bases)

    optimizer.step(given(torch.randn(3, 3, dtype=torch.float64)), 1.0, never, changed=False)
    assert defect() < 1e-14
    for _ in range(4):
        optimizer.step(given(torch.randn(3, 3, dtype=torch.float64)), 1.0, never, changed=False)
    assert 1e-9 < defect() < 1e-5


class Quartic:
    """A badly scaled convex function of two parameters, with its gradient counted and evaluated in float64."""

    def __init__(self, scale: float = 1.0) -> None:
        self.network = layer(torch.float64)
        self.scale = scale
        self.evaluations = 0

    def __call__(self) -> Evaluation:
        self.evaluations += 1
        a, b = (self.network.weight.detach() - torch.tensor([[3.0, 0.5]]).double())[0]
        loss = self.scale * (100 * a**2 + b**2 + 0.1 * b**4)
        gradient = self.scale * torch.stack([200 * a, 2 * b + 0.4 * b**3])[None]
        return Evaluation(loss[None], torch.ones(1).double(), {"weight": gradient})


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12], ids=str)
def test_lbfgs_reaches_the_minimum(scale: float) -> None:
    """Independently of the loss's scale: torch's own threshold on curvature pairs is absolute."""
    problem, optimizer = Quartic(scale), LBFGS()
    optimizer.start(problem.network)
    for step in range(25):
        optimizer.step(problem(), 0.0, problem, changed=step == 0)
    assert torch.allclose(problem.network.weight, torch.tensor([[3.0, 0.5]]).double(), atol=1e-8)


def test_lbfgs_steps_satisfy_the_strong_wolfe_conditions() -> None:
    """f(x + d) <= f + 1e-4 g.d and |g(x + d).d| <= 0.9 |g.d| for the step d that was taken."""
    problem, optimizer = Quartic(), LBFGS()
    optimizer.start(problem.network)
    for step in range(6):
        before, at = problem(), problem.network.weight.detach().clone()
        optimizer.step(before, 1.0, problem, changed=step == 0)
        after, d = problem(), problem.network.weight.detach() - at
        slopes = [(evaluation.gradient["weight"] * d).sum().item() for evaluation in (before, after)]
        assert slopes[0] < 0
        assert after.loss <= before.loss + 1e-4 * slopes[0]
        assert abs(slopes[1]) <= 0.9 * abs(slopes[0])


def test_lbfgs_forgets_when_the_function_changes() -> None:
    """After a change the next direction is the negative gradient; without one it is not."""

    def direction(changed: bool) -> tuple[Tensor, Tensor]:
        problem, optimizer = Quartic(), LBFGS()
        optimizer.start(problem.network)
        for step in range(4):
            optimizer.step(problem(), 1.0, problem, changed=step == 0)
        now, at = problem(), problem.network.weight.detach().clone()
        optimizer.step(now, 1.0, problem, changed=changed)
        return problem.network.weight.detach() - at, -now.gradient["weight"]

    cosine = torch.nn.functional.cosine_similarity
    assert cosine(*direction(True)).item() == pytest.approx(1, abs=1e-12)
    assert cosine(*direction(False)).item() < 0.9999


def test_lbfgs_says_when_it_can_go_no_further(caplog: pytest.LogCaptureFixture) -> None:
    problem, optimizer = Quartic(), LBFGS()
    optimizer.start(problem.network)
    for step in range(60):
        optimizer.step(problem(), 1.0, problem, changed=step == 0)
    assert caplog.text.count("L-BFGS finds no lower loss along its direction: the limit of torch.float64") == 1


def test_adam_then_lbfgs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    both, adam = Quartic(), Quartic()
    optimizer, reference = AdamLBFGS(learning_rate=0.1, switch_at=3), Adam(learning_rate=0.1)
    optimizer.start(both.network)
    reference.start(adam.network)
    assert (optimizer.horizon(10), optimizer.horizon(2)) == (3, 2)
    for step in range(3):
        assert optimizer.rate(0.5) == 0.05
        optimizer.step(both(), 0.5, never, changed=step == 0)
        reference.step(adam(), 0.5, never, changed=step == 0)
    assert torch.equal(both.network.weight, adam.network.weight)
    assert optimizer.rate(0.5) == 1
    for _ in range(25):
        optimizer.step(both(), 0.0, both, changed=False)
    assert torch.allclose(both.network.weight, torch.tensor([[3.0, 0.5]]).double(), atol=1e-8)
    assert caplog.text.count("step 3: L-BFGS takes over from Adam") == 1


@pytest.mark.parametrize(
    "make",
    [LBFGS, lambda: AdamLBFGS(switch_at=3), lambda: AdamLBFGS(switch_at=8), AdamW, lambda: SOAP(learning_rate=0.1)],
    ids=["lbfgs", "switched", "before-the-switch", "adamw", "soap"],
)
def test_state_goes_on(make: Callable[[], Optimizer]) -> None:
    one, other = Quartic(), Quartic()
    first, second = make(), make()
    first.start(one.network)
    for step in range(6):
        first.step(one(), 1.0, one, changed=step == 0)
    other.network.load_state_dict(one.network.state_dict())
    second.start(other.network)
    second.load_state_dict(through_a_file(first.state_dict()))
    for _ in range(6):
        first.step(one(), 1.0, one, changed=False)
        second.step(other(), 1.0, other, changed=False)
        assert torch.equal(one.network.weight, other.network.weight)


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
