"""How terms share passes, and what a wrong problem is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from ntkrun.geometry import Box
from ntkrun.network import MLP
from ntkrun.objective import Objective
from ntkrun.pde import PDE, Columns, Poisson, ProblemError, Term, Wave
from tests.oracle import dense_jacobians, draw_batch, relative, residual_rows
from tests.problems import ONE, System, mlp


def test_terms_with_equal_needs_share_a_pass() -> None:
    pde = Wave()
    objective = Objective(pde, mlp(pde.domain))
    _, batch = draw_batch(objective, [4, 3, 2, 2])
    assert [group.members for group in batch] == [(0,), (1, 2), (3,)]
    assert [group.plan.streams for group in batch] == [4, 1, 2]


def test_terms_of_few_points_join_a_larger_pass() -> None:
    """With the same residuals, traces and gradient."""
    pde = Poisson()
    objective = Objective(pde, mlp(pde.domain).double())
    points, batch = draw_batch(objective, [40, 2])
    assert [group.members for group in batch] == [(0, 1)]
    for ours, expected in zip(objective.residuals(batch), residual_rows(objective, points), strict=True):
        assert relative(ours, expected) < 1e-11
    evaluation = objective.fused(batch, lambda traces: traces.sum() / traces)
    traces = torch.stack([dense.square().sum() for dense in dense_jacobians(objective, points)])
    assert evaluation.traces is not None
    assert relative(evaluation.traces, traces) < 1e-12
    plain = objective.gradient(batch, evaluation.weights)
    assert relative(objective.layout.flatten(evaluation.gradient), objective.layout.flatten(plain.gradient)) < 1e-12


def test_residuals_against_nested_autograd() -> None:
    pde = System()
    objective = Objective(pde, mlp(pde.domain, 2).double())
    points, batch = draw_batch(objective, [6, 5, 4])
    for ours, expected in zip(objective.residuals(batch), residual_rows(objective, points), strict=True):
        assert relative(ours, expected) < 1e-11


def test_gradient_leaves_no_grad_behind() -> None:
    pde = Poisson()
    objective = Objective(pde, mlp(pde.domain))
    _, batch = draw_batch(objective, [5, 2])
    objective.gradient(batch, torch.ones(2))
    assert all(p.grad is None for p in objective.network.parameters())


def test_fused_gradients_lie_in_memory_as_their_parameters_do() -> None:
    """Torch's fused Adam reads both in the order of memory, whatever the strides."""
    objective = Objective(Wave(), mlp(Wave().domain).double())
    _, batch = draw_batch(objective, [9, 4, 3, 2])
    weights = objective.like.new_tensor([1.0, 2.0, 3.0, 4.0])
    expected = objective.gradient(batch, weights).gradient
    for name, gradient in objective.fused(batch, lambda _: weights).gradient.items():
        assert relative(gradient, expected[name]) < 1e-12
        assert gradient.is_contiguous()


def test_weights_scale_the_gradient_of_their_term() -> None:
    pde = Poisson()
    objective = Objective(pde, mlp(pde.domain).double())
    _, batch = draw_batch(objective, [5, 2])
    both, first, second = (
        objective.layout.flatten(objective.gradient(batch, torch.tensor(w).double()).gradient)
        for w in ([3.0, 7.0], [1.0, 0.0], [0.0, 1.0])
    )
    assert relative(both, 3 * first + 7 * second) < 1e-12


def problem(**changes: object) -> PDE:
    """A problem of one term with something changed."""
    options = {"name": "residual", "region": (ONE,), "derivatives": ("u_x",), "residual": lambda x, d: d.u_x}
    term = Term(**{**options, **changes})  # type: ignore[arg-type]

    class Wrong(PDE):
        domain: ClassVar[Box] = ONE  # type: ignore[misc]

        def terms(self) -> tuple[Term, ...]:
            return (term,)

    return Wrong()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"derivatives": ("w_x",)}, "loss term 'residual'.*no field 'w'"),
        ({"derivatives": ("u_y",)}, "no coordinate 'y'; the coordinates are x"),
        ({"residual": lambda x, d: d.u_xx}, "loss term 'residual' has no 'u_xx', only u_x"),
        ({"residual": lambda x, d: d.u_x * x.t}, "the point set has no 't', only x"),
        ({"residual": lambda x, d: d.u_x.sum()}, r"the residual has shape \[\], expected \[3\]"),
        ({"residual": lambda x, d: d.u_x.repeat(3)}, r"shape \[9\]"),
        ({"residual": lambda x, d: d.u_x[:, None] - x.x}, "3 residuals per point at 3 points but 2 at 2"),
        ({"residual": lambda x, d: torch.stack([d.u_x] * 3)}, r"shape \[3, 2\], expected \[2\].*stack.* dim=1"),
        ({"residual": lambda x, d: d.u_x.double()}, "the residual is of float64, the run of float32"),
        ({"residual": lambda x, d: d.u_x / 0}, "loss term 'residual': the residual is not finite at x=0"),
        ({"residual": lambda x, d: x.x}, "does not depend on the network"),
    ],
    ids=[
        *("field", "coordinate", "undeclared", "missing-coordinate", "scalar", "too-long"),
        *("outer", "stacked", "type", "not-finite", "no-network"),
    ],
)
def test_wrong_problems_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        Objective(problem(**changes), MLP(4, 1, domain=ONE))


def test_number_of_outputs_must_fit() -> None:
    with pytest.raises(ProblemError, match="the network has 1 outputs; the fields are u, v"):
        Objective(System(), mlp(System().domain, 1))


def test_the_line_at_fault_is_named() -> None:
    """The innermost one outside of libraries, also where a library raises."""

    def residual(x: Columns, d: Columns) -> torch.Tensor:
        return torch.cat([d.u_x, x.x[:, None]])

    place = f"{Path(__file__).name}:{residual.__code__.co_firstlineno + 1}"
    with pytest.raises(ProblemError, match=rf"its residual fails at the 3 points .* with RuntimeError: .*{place}\)$"):
        Objective(problem(residual=residual), MLP(4, 1, domain=ONE))


class Network(torch.nn.Module):
    """A linear map whose output is changed by a function."""

    def __init__(self, change: Callable[[torch.Tensor], object]) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(1, 1)
        self.change = change

    def forward(self, x: torch.Tensor) -> object:
        return self.change(self.linear(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda u: None, "the network gives a NoneType, expected a Tensor"),
        (lambda u: u[:, 0], r"the network gives shape \[3\] on points \[3, 1\], expected \[3, 1\]"),
        (lambda u: u.repeat(1, 2), "the network has 2 outputs; the fields are u"),
        (lambda u: u.double(), "the network gives float64 on points of float32"),
        (lambda u: u.detach(), "the network gives values that do not depend on trainable parameters"),
        (lambda u: u / 0, "the network is not finite at x=0"),
        (lambda u: u.nothing, r"the network fails on points \[3, 1\] with AttributeError.*test_objective.py"),
    ],
    ids=["none", "shape", "outputs", "type", "detached", "not-finite", "raising"],
)
def test_wrong_networks_are_named(change: Callable[[torch.Tensor], object], message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        Objective(problem(), Network(change))
