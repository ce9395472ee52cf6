"""Inverse problems of the menu: the truth satisfies them, unknown functions have what they depend on, goals are met."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ntkrun.geometry import Box
from ntkrun.network import MLP, with_coefficients
from ntkrun.network.base import output_streams
from ntkrun.network.constrained import constrained
from ntkrun.network.separate import Part, side_by_side
from ntkrun.objective import Objective
from ntkrun.pde import PDE, BurgersInverse, Conductivity, ProblemError, VorticesInverse
from ntkrun.pde.burgers import NU
from ntkrun.pde.check import check_problem
from ntkrun.training.time_marching import TimeWindow
from tests.driver import ntkrun
from tests.oracle import dense_jacobians, draw_points, relative, term_columns
from tests.problems import Plain

SPACE = Box.of(x=(0.0, 1.0))


def two_networks(pde: PDE, second: Callable[[Box], nn.Module] = lambda box: MLP(4, 1, domain=box)) -> nn.Module:
    torch.manual_seed(2)
    return side_by_side([Part(MLP(5, 2, domain=pde.domain), (0, 1), (0,)), Part(second(SPACE), (0,), (1,))]).double()


@pytest.mark.parametrize("pde", [VorticesInverse(nu=0.3), Conductivity()], ids=["vortices", "conductivity"])
def test_the_truth_has_no_residual(pde: PDE) -> None:
    """By nested autograd of the closed form, with the true coefficients."""
    network = MLP(4, 1, domain=pde.domain, outputs=len(pde.fields))
    objective = Objective(pde, with_coefficients(network, pde.coefficients).double())
    points = draw_points(objective, [50] * len(objective.terms))

    def solution(x: Tensor) -> Tensor:
        fields = pde.exact(pde.columns(x))
        assert fields is not None
        numbers = [torch.full_like(x[:, 0], c.true or 0.0) for c in pde.coefficients]
        return torch.cat([fields, *(each[:, None] for each in numbers)], dim=1)

    for i, term in enumerate(objective.terms):
        x = points[term.name]
        residual = term.residual(pde.columns(x, None, term.columns), term_columns(solution, x, objective, i))
        assert residual.abs().max() < 1e-10, term.name


def test_values_are_those_of_the_solution_with_errors() -> None:
    clean, noisy = (VorticesInverse(values=2000, noise=noise).measurements for noise in (0.0, 0.05))
    exact = VorticesInverse().exact(VorticesInverse().columns(clean["v"].rows[:, :3]))
    for k, field in enumerate(("u", "v")):
        assert torch.equal(clean[field].rows[:, 3], exact[:, k])
        errors = noisy[field].rows[:, 3] - clean[field].rows[:, 3]
        assert errors.std() / exact[:, k].std() == pytest.approx(0.05, rel=5 / 2000**0.5)  # seven standard errors
        assert errors.mean().abs() < 5 * errors.std() / 2000**0.5
    reference = BurgersInverse().reference()
    x, t, u = BurgersInverse(values=30).measurements["u"].rows.numpy().T
    places = [np.searchsorted(reference.axes[c], z - 1e-12) for c, z in (("x", x), ("t", t))]
    assert np.array_equal(reference.values[places[0], places[1], 0], u)


# Unknown functions


@pytest.mark.parametrize("kind", ["jets", "modules"])
def test_a_field_of_some_coordinates(kind: str) -> None:
    """Its derivatives along the others vanish; rows of the Jacobian are those of reverse mode, point by point."""
    pde = Conductivity(values=5)
    network = two_networks(pde) if kind == "jets" else two_networks(pde, Plain)
    objective = Objective(pde, network)
    assert objective.route == ("structured" if kind == "jets" else "per_point")
    x = torch.rand(6, 2, dtype=torch.float64)
    moved = torch.stack([x[:, 0], torch.rand(6, dtype=torch.float64)], dim=1)
    assert torch.equal(network(x)[:, 1], network(moved)[:, 1])
    assert (network(x)[:, 0] != network(moved)[:, 0]).all()
    (group,) = (group for group in objective.probe_batch() if 0 in group.members)
    streams = group.plan.read(output_streams(network, x, group.plan))
    along_t = next(values for index, values in streams.items() if str(index) == "t")
    assert (along_t[:, 1] == 0).all()
    points = draw_points(objective, [5, 4, 5])
    batch = objective.batch(points)
    for ours, dense in zip(objective.jacobians(batch), dense_jacobians(objective, points), strict=True):
        assert relative(ours.dense(), dense) < 1e-10


def test_what_depends_on_what_is_checked() -> None:
    pde = Conductivity()
    with pytest.raises(ValueError, match="time_windows=2: the field k belongs to all of time"):
        TimeWindow(pde, 0, 2, None)
    for depends in ({"w": ("x",)}, {"k": ("y",)}, {"k": ()}, {"k": "xt"}, [("k", "x")]):
        pde.depends = depends  # type: ignore[assignment]
        with pytest.raises(ProblemError, match="expected some of the coordinates x, t by field"):
            check_problem(pde)


# Goals


QUIET = ["pde.grid=30", "progress=false", "threads=1", "plots=false"]


def summary(*arguments: str, cwd: Path) -> dict[str, Any]:
    result = ntkrun(*QUIET, *arguments, cwd=cwd)
    assert result.status == 0, result.stderr
    found: dict[str, Any] = json.loads((cwd / result.directory / "summary.json").read_text())
    return found


def test_the_conductivity_is_the_exponential_of_a_network() -> None:
    """Negative ones, with which the equation is one of heat backwards in time, are out of reach."""
    pde = Conductivity(values=5)
    inner = two_networks(pde)
    x = torch.rand(6, 2, dtype=torch.float64)
    u, log_k = inner(x).unbind(1)
    fields = constrained(inner, pde)(x)
    assert (log_k < 0).any()
    assert torch.allclose(fields, torch.stack([u, log_k.exp()], dim=1), rtol=1e-14)


@pytest.mark.long
@pytest.mark.parametrize("weights", ["none", "exact", "sketched"])
@pytest.mark.parametrize(("noise", "allowed"), [(0.0, 0.01), (0.05, 0.05)], ids=["clean", "noise"])
@pytest.mark.parametrize("problem", ["diffusion_inverse", "vortices_inverse", "conductivity"])
def test_unknowns_by_the_defaults(problem: str, noise: float, allowed: float, weights: str, tmp_path: Path) -> None:
    found = summary(f"pde={problem}", f"pde.noise={noise}", f"weights={weights}", cwd=tmp_path)
    if problem == "conductivity":
        assert found["rel_l2"]["fields"]["k"]["final"] < allowed
    for coefficient in found.get("coefficients", {}).values():
        assert coefficient["value"] == pytest.approx(coefficient["true"], rel=allowed)


@pytest.mark.long
@pytest.mark.parametrize("weights", ["none", "exact", "sketched"])
@pytest.mark.parametrize(("noise", "allowed"), [(0.0, 0.01), (0.05, 0.05)], ids=["clean", "noise"])
def test_coefficients_of_burgers_by_the_defaults(noise: float, allowed: float, weights: str, tmp_path: Path) -> None:
    found = summary("pde=burgers_inverse", f"pde.noise={noise}", f"weights={weights}", cwd=tmp_path)["coefficients"]
    for name, true in (("a", 1.0), ("nu", NU)):
        assert found[name]["value"] == pytest.approx(true, rel=allowed)
        assert found[name]["standard_error"] > 0
