"""Gauss-Newton on small systems whose answers are known."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ntkrun.objective import Evaluation
from ntkrun.objective.jacobian_rows import JacobianRows
from ntkrun.optimizer import Adam, AdamGaussNewton, GaussNewton
from ntkrun.optimizer.damping import DampingPolicy, Trial
from tests.optimizer.test_optimizers import through_a_file

Residual = Callable[[Tensor], Tensor]


class Toy:
    """A residual function of a few parameters, ``[P]`` to ``[N]``, with its Jacobian by reverse mode."""

    def __init__(self, function: Residual, at: Tensor) -> None:
        self._function = function
        self.evaluations = 0
        self.move(at)

    def move(self, at: Tensor) -> None:
        self.parameters = at
        self.residual = self._function(at)
        jacobian = torch.func.jacrev(self._function)(at)
        self.rows = JacobianRows(*jacobian.shape, lambda: iter([(slice(None), jacobian)]), 2**30)

    def at(self, parameters: Tensor) -> Tensor:
        self.evaluations += 1
        self.last = parameters
        return self._function(parameters)


def started(**options: Any) -> GaussNewton:
    optimizer = GaussNewton(**options)
    optimizer.start(nn.Linear(1, 1))
    return optimizer


def rosenbrock(p: Tensor) -> Tensor:
    return torch.stack([1 - p[0], 10 * (p[1] - p[0] ** 2)])


def exponentials(p: Tensor) -> Tensor:
    t = torch.linspace(0, 3, 12, dtype=torch.float64)
    return p[0] * torch.exp(-p[1] * t) - 2 * torch.exp(-0.7 * t)


@pytest.mark.parametrize("acceleration", [0.0, 0.75])
@pytest.mark.parametrize(
    ("function", "start", "end"),
    [(rosenbrock, [-1.2, 1.0], [1.0, 1.0]), (exponentials, [1.0, 3.0], [2.0, 0.7])],
    ids=["rosenbrock", "exponentials"],
)
def test_reaches_the_solution(function: Residual, start: list[float], end: list[float], acceleration: float) -> None:
    toy, optimizer = Toy(function, torch.tensor(start, dtype=torch.float64)), started(acceleration=acceleration)
    for _ in range(60):
        if optimizer.ended():
            break
        optimizer.step_on_rows(toy)
        toy.move(toy.last)
    assert torch.allclose(toy.parameters, torch.tensor(end, dtype=torch.float64), atol=1e-9)


def test_a_step_is_that_of_the_formulas() -> None:
    """d and a by dense algebra, with the second derivative from nested forward mode."""
    at = torch.tensor([1.3, 0.9], dtype=torch.float64)
    toy, optimizer = Toy(exponentials, at), started(damping=1e-2, gain_target=0.0, corrections=0)
    optimizer.step_on_rows(toy)
    jacobian, residual = toy.rows.matrix(), toy.residual
    mu = optimizer.report()["damping"] * float(jacobian.square().sum())  # type: ignore[operator]
    inverse = torch.linalg.inv(jacobian.T @ jacobian + mu * torch.eye(2, dtype=torch.float64))
    d = -inverse @ jacobian.T @ residual

    def slope(p: Tensor) -> Tensor:
        return torch.func.jvp(exponentials, (p,), (d,))[1]

    curvature = torch.func.jvp(slope, (at,), (d,))[1]
    a = -0.5 * inverse @ jacobian.T @ curvature
    # the second derivative is a difference at a tenth of the step, off by a thirtieth of the third
    assert (toy.last - at - d - a).norm() < 0.1 * a.norm()
    assert optimizer.report()["step_length"] == pytest.approx(float((toy.last - at).norm()))


def test_corrections_bring_the_residual_to_its_linear_model() -> None:
    """With as many residuals as parameters, r(theta + step) = R + J d has a solution, which they approach."""
    at = torch.tensor([-0.6, 0.9], dtype=torch.float64)
    gaps = []
    for corrections in (0, 1):
        toy = Toy(rosenbrock, at)
        optimizer = started(damping=1e-3, gain_target=0.0, acceleration=0.0, corrections=corrections)
        optimizer.step_on_rows(toy)
        jacobian = toy.rows.matrix()
        mu = optimizer.report()["damping"] * float(jacobian.square().sum())  # type: ignore[operator]
        d = -torch.linalg.solve(
            jacobian.T @ jacobian + mu * torch.eye(2, dtype=torch.float64), jacobian.T @ toy.residual
        )
        gaps.append(float((rosenbrock(toy.last) - toy.residual - jacobian @ d).norm()))
    assert gaps[0] > 2 * gaps[1]


def test_a_step_that_does_not_lower_the_loss_is_not_taken() -> None:
    """|p| has its minimum at a kink of the residual 1 + |p|, where no step helps."""

    def kink(p: Tensor) -> Tensor:
        return 1 + p.abs()

    at = torch.tensor([0.0], dtype=torch.float64)
    toy, optimizer = Toy(kink, at), started()
    jacobian = torch.ones(1, 1, dtype=torch.float64)
    toy.rows = JacobianRows(1, 1, lambda: iter([(slice(None), jacobian)]), 2**30)
    for k in range(6):
        assert optimizer.ended() == ""
        optimizer.step_on_rows(toy)
        assert torch.equal(toy.last, at)
        assert optimizer.report()["step_length"] == 0
        assert optimizer.report()["gain_ratio"] is None
        assert k < 5 or "no step lowers the loss" in optimizer.ended()


def test_ends_where_the_loss_hardly_falls() -> None:
    """A constant residual that cannot be lowered below 1 beside one that can."""

    def crawl(p: Tensor) -> Tensor:
        return torch.stack([torch.ones_like(p[0]), torch.exp(-p[0])])

    toy, optimizer = Toy(crawl, torch.zeros(1, dtype=torch.float64)), started(patience=5, least_gain=0.01)
    steps = 0
    while not optimizer.ended():
        optimizer.step_on_rows(toy)
        toy.move(toy.last)
        steps += 1
    assert "in 5 steps" in optimizer.ended()
    assert 5 <= steps < 40


def losses_until_it_ends(function: Residual, most: int, **options: Any) -> tuple[list[float], str]:
    """The losses before every step, and why there are no more."""
    toy, optimizer = Toy(function, torch.ones(1, dtype=torch.float64)), started(**options)
    losses = []
    while not optimizer.ended() and len(losses) < most:
        losses.append(float(toy.residual.square().sum()))
        optimizer.step_on_rows(toy)
        toy.move(toy.last)
    return losses, optimizer.ended()


def test_ends_in_its_last_digits_where_it_gains_less_than_before() -> None:
    """At a root of order 3 every step leaves the same part of the loss, which is 1 at the start."""
    eps = torch.finfo(torch.float64).eps
    options = {"patience": 3, "corrections": 0, "acceleration": 0.0, "damping": 1e-9}
    losses, reason = losses_until_it_ends(lambda p: p**3, 60, last_gain=0.9999, **options)
    rate = losses[-1] / losses[-2]
    assert 1e-4 < rate**3 < 0.02
    assert losses[-1] > eps > losses[-1] * rate
    assert "of the first" in reason
    assert "in 3 steps" in reason
    going, reason = losses_until_it_ends(lambda p: p**3, len(losses) + 5, last_gain=0.9, **options)
    assert going[: len(losses)] == losses
    assert reason == ""


def test_a_lasting_residual_is_no_last_digit() -> None:
    losses, reason = losses_until_it_ends(lambda p: torch.cat([p**3, 1e-6 + 0 * p]), 40, patience=3, last_gain=0.9999)
    assert losses[-1] > 1e-13
    assert "in 3 steps" in reason
    assert "of the first" not in reason


def test_state_goes_through_a_file() -> None:
    start = torch.tensor([-1.2, 1.0], dtype=torch.float64)
    toy, optimizer = Toy(rosenbrock, start), started()
    for _ in range(4):
        optimizer.step_on_rows(toy)
        toy.move(toy.last)
    other, copy = Toy(rosenbrock, toy.parameters), started()
    copy.load_state_dict(through_a_file(optimizer.state_dict()))
    for _ in range(4):
        optimizer.step_on_rows(toy)
        copy.step_on_rows(other)
        assert torch.equal(toy.last, other.last)
        toy.move(toy.last)
        other.move(other.last)


def attempt(least: float, below: float = 0.0) -> Callable[[float], Trial | None]:
    """Trials that are good from a damping on."""

    def of(damping: float) -> Trial | None:
        if damping < below:
            return None
        return Trial(damping, 0.5 if damping >= least else -1.0, 1.0, torch.zeros(1), 1.0)

    return of


@pytest.mark.parametrize(
    ("start", "least", "damping", "trials"),
    [(1e-4, 1e-4, 1e-4, 2), (1e-4, 2e-6, 1e-4 / 16, 4), (1e-4, 0.0, 1e-4 / 64, 4), (1e-6, 1e-5, 1.6e-5, 3)],
)
def test_least_damping_whose_gain_ratio_suffices(start: float, least: float, damping: float, trials: int) -> None:
    search = DampingPolicy(target=0.1).search(start, attempt(least))
    assert search.best is not None
    assert search.best.damping == search.damping == pytest.approx(damping)
    assert search.trials == trials


def test_nothing_helps() -> None:
    search = DampingPolicy(target=0.1, most=1.0).search(1e-3, attempt(math.inf))
    assert search.best is None
    assert 1 <= search.damping < 4


def test_dampings_that_cannot_be_resolved_are_not_taken() -> None:
    search = DampingPolicy(target=0.1).search(1e-3, attempt(0.0, below=1e-4))
    assert search.best is not None
    assert search.damping == pytest.approx(2.5e-4)


def adam_steps(optimizer: AdamGaussNewton, losses: list[float]) -> int:
    """Steps of Adam until Gauss-Newton takes over."""
    for k, loss in enumerate(losses):
        if optimizer.wants_rows:
            return k
        evaluation = Evaluation(
            torch.tensor([loss]), torch.ones(1), {"weight": torch.ones(1, 1), "bias": torch.ones(1)}
        )
        optimizer.step(evaluation, 1.0, lambda: pytest.fail("Adam asks for one gradient"), False)
    return len(losses)


@pytest.mark.parametrize(
    ("losses", "steps"),
    [
        ([0.5**k for k in range(100)], 20),  # the step given
        ([1.0] * 100, 8),  # two intervals of 4 with the same mean
        ([1.0] * 4 + [0.85] * 4 + [0.8] * 100, 12),
    ],
)
def test_adam_first(losses: list[float], steps: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    network, reference = nn.Linear(1, 1), nn.Linear(1, 1)
    reference.load_state_dict(network.state_dict())
    optimizer, adam = AdamGaussNewton(switch_at=20, stall_steps=4), Adam(learning_rate=3e-3)
    optimizer.start(network)
    adam.start(reference)
    assert optimizer.rate(0.5) == pytest.approx(1.5e-3)
    assert optimizer.horizon(100) == optimizer.gradient_steps(100) == 20
    assert optimizer.report() == {}
    assert adam_steps(optimizer, losses) == steps
    for _ in range(steps):
        gradient = {"weight": torch.ones(1, 1), "bias": torch.ones(1)}
        adam.step(Evaluation(torch.ones(1), torch.ones(1), gradient), 1.0, lambda: pytest.fail("one gradient"), False)
    assert torch.equal(network.weight, reference.weight)
    assert optimizer.rate(0.5) is None
    assert f"step {steps}: Gauss-Newton takes over from Adam" in caplog.text
    toy = Toy(rosenbrock, torch.tensor([-1.2, 1.0], dtype=torch.float64))
    optimizer.step_on_rows(toy)
    assert optimizer.report()["step_length"] > 0  # type: ignore[operator]


@pytest.mark.parametrize("steps", [3, 5, 9])
def test_adam_first_goes_through_a_file(steps: int) -> None:
    losses = [1.0] * 4 + [0.95] * 100
    whole, first, second = (AdamGaussNewton(switch_at=20, stall_steps=4) for _ in range(3))
    for optimizer in (whole, first, second):
        optimizer.start(nn.Linear(1, 1))
    expected = adam_steps(whole, losses)
    adam_steps(first, losses[:steps])
    second.load_state_dict(through_a_file(first.state_dict()))
    assert min(steps, expected) + adam_steps(second, losses[steps:]) == expected == 8
