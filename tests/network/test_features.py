"""Networks that read functions of the coordinates beside these."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ntkrun.geometry import Box
from ntkrun.jets import nested_streams, plan_streams
from ntkrun.network import (
    ECRN,
    MLP,
    JetNetwork,
    feature_count,
    featured_domain,
    output_streams,
    with_features,
)
from ntkrun.objective import Objective
from ntkrun.pde import PDE, Columns, ProblemError, Term, Wave
from ntkrun.training.time_marching import TimeWindow
from tests.driver import ntkrun
from tests.oracle import AsTensors, dense_jacobians, draw_batch, relative
from tests.problems import TWO

DOMAIN = Box.of(x=(0.0, 1.0), t=(0.0, 2.0))


class Source(PDE):
    """u_t = u_xx with a network that knows of a pole beyond the domain, and a field k of x alone."""

    fields = ("u", "k")
    depends = MappingProxyType({"k": ("x",)})
    domain = DOMAIN

    def terms(self) -> tuple[Term, ...]:
        return (
            Term("residual", (self.domain,), ("u_t", "u_xx", "k"), lambda x, d: d.u_t - d.k * d.u_xx),
            Term("initial", (self.domain.face("t", "low"),), ("u",), lambda x, d: d.u - x.x),
        )

    def features(self, x: Columns) -> tuple[Any, ...]:
        return (x.x + 0.5).reciprocal(), (3 * x.x * x.t).sin()


class Alone(Source):
    """Both fields of both coordinates."""

    depends = MappingProxyType({})


def by_hand(x: Tensor) -> Tensor:
    """The inputs of the network, ``[N, 4]``; coordinates are standardised, features stay as they are."""
    deviation = torch.tensor([1.0, 2.0], dtype=x.dtype) / 12**0.5
    scaled = (x - torch.tensor([0.5, 1.0], dtype=x.dtype)) / deviation
    return torch.cat([scaled, 1 / (x[:, :1] + 0.5), torch.sin(3 * x[:, :1] * x[:, 1:])], dim=1)


def network(outputs: int = 2) -> MLP:
    torch.manual_seed(0)
    return MLP(5, 1, domain=featured_domain(DOMAIN, 2), outputs=outputs).double()


@pytest.mark.parametrize("plain", [False, True])
def test_values_and_derivatives_follow_the_formula(plain: bool) -> None:
    """Those of an MLP written out on coordinates and features, by nested automatic differentiation."""
    inner = network()
    featured = with_features(AsTensors(inner) if plain else inner, Alone())
    assert isinstance(featured, JetNetwork) != plain
    first, last = inner.layers
    x = torch.rand(4, 2, dtype=torch.float64)
    plan = plan_streams(["xx", "xt", "t"], "xt")

    def formula(x: Tensor) -> Tensor:
        hidden = torch.tanh(by_hand(x) @ first.weight.T + first.bias)
        return hidden @ last.weight.T + last.bias

    assert relative(output_streams(featured, x, plan), nested_streams(formula, x, plan)) < 1e-11


def test_jacobians_are_those_of_automatic_differentiation() -> None:
    objective = Objective(Alone(), with_features(network(), Alone()))
    assert objective.route == "structured"
    points, batch = draw_batch(objective, [6, 4])
    for ours, dense in zip(objective.jacobians(batch), dense_jacobians(objective, points), strict=True):
        assert relative(ours.dense(), dense) < 1e-10


def test_parameters_steps_and_periods_are_those_of_the_network() -> None:
    inner = ECRN(2, 3, survival=0.1, domain=featured_domain(TWO, 2), periodic=True, periods={"x": 1.0})
    for featured in (with_features(inner, Alone()), with_features(AsTensors(inner), Alone())):
        assert [id(p) for p in featured.parameters()] == [id(p) for p in inner.parameters()]
        featured.start_step(0)  # type: ignore[operator]
    assert not all(inner.factors)
    assert with_features(inner, Alone()).periodic


def test_time_windows_pass_features_on() -> None:
    assert feature_count(TimeWindow(Alone(), 0, 2, None)) == feature_count(Alone()) == 2
    assert feature_count(Wave()) == 0


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (lambda x: x.x, r"^features\(\) gives no tuple of functions of the coordinates$"),
        (lambda x: (1.0,), r"^features\(\) gives no tuple of functions of the coordinates$"),
        (lambda x: (x.z,), r"^features\(\) fails with ProblemError: the point set has no 'z', only x, t$"),
    ],
    ids=["column", "number", "unknown"],
)
def test_what_is_no_feature_is_refused(features: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Alone, "features", lambda self, x: features(x))
    with pytest.raises(ProblemError, match=message):
        feature_count(Alone())


@pytest.mark.parametrize("name", ["Source", "Alone"])
def test_a_run_with_features(name: str, tmp_path: Path) -> None:
    """Its predictions are those of the networks in its checkpoint, on coordinates and features."""
    (tmp_path / "conf" / "pde").mkdir(parents=True)
    (tmp_path / "conf" / "pde" / "own.yaml").write_text(
        f"_target_: tests.network.test_features.{name}\n"
        "points: {residual: 30, initial: 10}\nsampling: sobol\nresample_every: null\ngrid: 5\n"
    )
    options = ["pde=own", "iterations=2", "network.width=5", "network.depth=1", "plots=false"]
    options += ["network.activation=tanh", "network.initialization=glorot_normal"]
    result = ntkrun("--config-dir", "conf", *options, "hydra.run.dir=run", cwd=tmp_path)
    assert result.status == 0, result.stderr
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["network"]
    prefix = "networks.0.network." if name == "Source" else "network."
    inner = network(outputs=1 if name == "Source" else 2)
    inner.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    with np.load(tmp_path / "run" / "solution.npz") as file:
        x = torch.cartesian_prod(*(torch.from_numpy(file[f"axis_{c}"]) for c in "xt"))
        first, last = inner.layers
        expected = torch.tanh(by_hand(x) @ first.weight.T + first.bias) @ last.weight.T + last.bias
        assert relative(torch.from_numpy(file["prediction"]).reshape(25, 2)[:, 0], expected[:, 0].detach()) < 1e-12
