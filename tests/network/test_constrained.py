from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from ntkrun.geometry import Box
from ntkrun.jets import nested_streams, plan_streams
from ntkrun.network import ECRN, MLP, JetNetwork, constrained, output_streams
from ntkrun.objective import Objective
from ntkrun.pde import PDE, Cavity, Columns, ProblemError, Term, Wave
from ntkrun.training.time_marching import TimeWindow
from tests.driver import ntkrun
from tests.oracle import AsTensors, draw_batch, relative, values
from tests.problems import TWO, Anchored


def test_jets_and_plain_modules_agree() -> None:
    """In value and derivatives, with the same parameters."""
    pde = Anchored()
    network = MLP(5, 1, domain=TWO, outputs=2).double()
    jets, plain = constrained(network, pde), constrained(AsTensors(network), pde)
    assert isinstance(jets, JetNetwork)
    assert not isinstance(plain, JetNetwork)
    x = torch.rand(4, 2, dtype=torch.float64)
    plan = plan_streams(["xx", "xt", "t"], "xt")
    assert relative(output_streams(jets, x, plan), output_streams(plain, x, plan)) < 1e-11
    assert relative(output_streams(jets, x, plan), nested_streams(lambda z: values(jets, z), x, plan)) < 1e-11


def test_values_follow_the_formula() -> None:
    network = MLP(5, 1, domain=TWO, outputs=2).double()
    x = torch.rand(4, 2, dtype=torch.float64)
    u, z = values(network, x), x[:, :1]
    lift = torch.sin(z) * (1 - 2 * torch.exp(z)) + torch.cos(z) - 1
    expected = lift + torch.tanh(3 * z - z * z) * (u - u**3 / 2)
    assert relative(values(constrained(network, Anchored()), x), expected) < 1e-13


@pytest.mark.parametrize("plain", [False, True])
def test_the_condition_holds_exactly(plain: bool) -> None:
    """Whatever the parameters are."""
    network: nn.Module = MLP(5, 1, domain=TWO, outputs=2)
    if plain:
        network = AsTensors(network)  # type: ignore[arg-type]
    end = torch.tensor([[0.0, 0.3], [0.0, 0.9]])
    assert not values(constrained(network, Anchored()), end).any()


def test_parameters_are_those_of_the_network() -> None:
    network = MLP(5, 1, domain=TWO, outputs=2)
    wrapped = constrained(network, Anchored())
    assert [id(p) for p in wrapped.parameters()] == [id(p) for p in network.parameters()]


def test_periodicity_and_steps_are_passed_on() -> None:
    network = ECRN(2, 3, survival=0.1, domain=TWO, outputs=2, periodic=True, periods={"x": 1.0})
    for wrapped in (constrained(network, Anchored()), constrained(AsTensors(network), Anchored())):
        wrapped.start_step(0)  # type: ignore[operator]
    assert constrained(network, Anchored()).periodic
    assert not constrained(AsTensors(network), Anchored()).periodic
    assert not constrained(MLP(domain=TWO, outputs=2), Anchored()).periodic
    assert not all(network.factors)


def test_number_of_outputs_is_checked() -> None:
    network = constrained(MLP(5, 1, domain=Box.of(x=(0, 1), t=(0, 1))), Anchored())
    with pytest.raises(ProblemError, match="the network has 1 outputs; the fields are u, v"):
        values(network, torch.rand(2, 2))


class Scaled(PDE):
    """u'' = 0 with u(0) = 300 and u(1) = 400 in kelvin, for a network of values near 1: u = 300 + 100 N."""

    domain = Box.of(x=(0.0, 1.0))

    def __init__(self, built_in: frozenset[str] | None = None) -> None:
        if built_in is not None:
            self.built_in = built_in

    def terms(self) -> tuple[Term, ...]:
        return (
            Term("residual", (self.domain,), ("u_xx",), lambda x, d: d.u_xx),
            Term("boundary", self.domain.faces("x"), ("u",), lambda x, d: d.u - 300 - 100 * x.x),
        )

    def constrain(self, x: Columns, u: Columns) -> tuple[Any, ...]:
        return (300 + 100 * u.u,)

    def exact(self, x: Columns) -> Tensor:
        return 300 + 100 * x.x


class Marched(Scaled):
    """The same with a time that nothing depends on."""

    domain = Box.of(x=(0.0, 1.0), t=(0.0, 1.0))


@pytest.mark.parametrize("plain", [False, True])
def test_constrain_alone_is_an_output_transform(plain: bool) -> None:
    """All terms are trained, their residuals and Jacobians those of 300 + 100 N."""
    pde = Scaled()
    assert pde.constrains
    network = MLP(5, 1, domain=pde.domain).double()
    bare = Objective(pde, AsTensors(network) if plain else network)
    whole = Objective(pde, constrained(AsTensors(network) if plain else network, pde))
    assert whole.names == ("residual", "boundary")
    assert whole.built_in == ()
    points, batch = draw_batch(whole, [4, 3])
    theirs = bare.residuals(bare.batch(points))
    edge = points["boundary"][:, 0]
    assert relative(whole.residuals(batch)[0], 100 * theirs[0]) < 1e-12
    assert relative(whole.residuals(batch)[1], 100 * (theirs[1] + 300 + 100 * edge) - 100 * edge) < 1e-12
    for ours, plain_rows in zip(whole.jacobians(batch), bare.jacobians(bare.batch(points)), strict=True):
        assert relative(ours.gram(), 1e4 * plain_rows.gram()) < 1e-12


def test_an_empty_set_switches_constrain_off() -> None:
    """As the problems of the menu do without ``hard_boundary``; without a ``constrain`` there is nothing to switch."""
    assert not Scaled(frozenset()).constrains
    assert Scaled(frozenset({"boundary"})).constrains
    assert not Wave().constrains
    assert Wave(hard_boundary=True).constrains
    assert not Cavity().constrains


def test_time_windows_pass_a_transform_on() -> None:
    assert TimeWindow(Marched(), 0, 2, None).constrains
    assert not TimeWindow(Marched(frozenset()), 0, 2, None).constrains
    assert not TimeWindow(Wave(), 0, 2, None).constrains


def test_a_run_with_an_output_transform(tmp_path: Path) -> None:
    """What is trained, evaluated and saved is the transformed network."""
    (tmp_path / "conf" / "pde").mkdir(parents=True)
    (tmp_path / "conf" / "pde" / "scaled.yaml").write_text(
        "_target_: tests.network.test_constrained.Scaled\nbuilt_in: null\n"
        "points: {residual: 50, boundary: 2}\nsampling: sobol\nresample_every: 1\ngrid: 11\n"
    )
    options = ["pde=scaled", "optimizer=adam", "iterations=300", "dtype=float64", "network.width=10", "plots=false"]
    result = ntkrun("--config-dir", "conf", *options, "hydra.run.dir=run", cwd=tmp_path)
    assert result.status == 0, result.stderr
    assert "transformed by constrain(); all terms are trained" in (tmp_path / "run" / "ntkrun.log").read_text()
    metrics = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert metrics["error/rel_l2"].iloc[-1] < 1e-2  # 0.9 without the transform
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["network"]
    network = MLP(10, 3, domain=Scaled.domain).double()
    network.load_state_dict({name.removeprefix("network."): value for name, value in state.items()})
    with np.load(tmp_path / "run" / "solution.npz") as file:
        x = torch.from_numpy(file["axis_x"])[:, None]
        assert np.abs(file["prediction"] - (300 + 100 * values(network, x).detach().numpy())).max() < 1e-10
