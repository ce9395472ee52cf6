"""Time that grows along the training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ntkrun.geometry import Box, Table
from ntkrun.network import MLP
from ntkrun.objective import Objective
from ntkrun.pde import PDE, Columns, ProblemError, Term
from ntkrun.pde.conditions import periodic
from ntkrun.training.held_out import HeldOut
from ntkrun.training.time_marching import TimeWindow, frozen
from tests.driver import assert_refused, ntkrun
from tests.oracle import derivative, draw_batch, relative, values


class Moved(PDE):
    """u_tt + t u_xt = u_x^2, with u and u_t at t = 1; ends at which u is t."""

    def __init__(self) -> None:
        self.domain = Box.of(x=(0.0, 1.0), t=(1.0, 3.0))

    def terms(self) -> tuple[Term, ...]:
        start = (self.domain.face("t", "low"),)
        return (
            Term("residual", (self.domain,), ("u_tt", "u_xt", "u_x"), self.equation),
            Term("ends", self.domain.faces("x"), ("u",), lambda x, d: d.u - x.t),
            Term("initial", start, ("u", "u_t"), lambda x, d: torch.stack([d.u - x.x, d.u_t - x.t], dim=1)),
        )

    def equation(self, x: Columns, d: Columns) -> torch.Tensor:
        result: torch.Tensor = d.u_tt + x.t * d.u_xt - d.u_x**2
        return result


@pytest.mark.parametrize(("progress", "part"), [(0.0, 0.1), (0.4, 0.1**0.5), (0.8, 1.0), (1.0, 1.0)])
@pytest.mark.parametrize("index", [0, 1])
def test_residuals_are_those_of_a_shorter_time(progress: float, part: float, index: int) -> None:
    """Of v(x, t) = network(x, a + (t - a) / c), whose derivatives by nested autograd are taken at t = a + c (s - a)."""
    before = frozen(MLP(5, 2, domain=Moved().domain, generator=torch.Generator().manual_seed(1)).double())
    pde = TimeWindow(Moved(), index, 2, before if index else None, growing=0.1)
    network = MLP(6, 2, domain=pde.domain, generator=torch.Generator().manual_seed(2)).double()
    objective = Objective(pde, network)
    objective.progress.fill_(progress)
    points, batch = draw_batch(objective, [7, 4, 5])
    rows = objective.residuals(batch)
    a = 1.0 + index

    def shorter(y: torch.Tensor) -> torch.Tensor:
        return values(network, torch.stack([y[:, 0], a + (y[:, 1] - a) / part], dim=1))[:, 0]

    def at(name: str) -> torch.Tensor:
        s = points[name]
        return torch.stack([s[:, 0], a + part * (s[:, 1] - a)], dim=1)

    y = at("residual")
    u_tt, u_xt, u_x = (derivative(shorter, y, axes) for axes in ([1, 1], [0, 1], [0]))
    assert relative(rows[0], (u_tt + y[:, 1] * u_xt - u_x**2).detach()) < 1e-10
    y = at("ends")
    assert relative(rows[1], (shorter(y) - y[:, 1]).detach()) < 1e-10
    y = at("initial")
    known = [y[:, 0], y[:, 1]]
    if index:
        known = [derivative(lambda z: values(before, z)[:, 0], y, axes) for axes in ([], [1])]
    jumps = torch.cat([shorter(y) - known[0], derivative(shorter, y, [1]) - known[1]]).detach()
    assert relative(rows[2], jumps) < 1e-10


class Measured(Moved):
    def __init__(self) -> None:
        super().__init__()
        self.measurements = {"u": Table(("x", "t"), ("u",), torch.rand(5, 3, dtype=torch.float64))}


class Constrained(Moved):
    def constrain(self, x: Columns, u: Columns) -> tuple[torch.Tensor, ...]:
        return (x.t * u.u,)


class Repeated(Moved):
    def terms(self) -> tuple[Term, ...]:
        return (*super().terms(), periodic("repeated", self.domain, "x"))


def test_operators_are_those_of_a_shorter_time() -> None:
    """u_t - 4 u_xx + u, whose parts are scaled each by itself; nothing is left of the operator."""
    domain = Box.of(x=(0.0, 1.0), t=(0.0, 1.0))

    class Heat(PDE):
        def __init__(self) -> None:
            self.domain = domain

        def terms(self) -> tuple[Term, ...]:
            operators = {"heat": {"u_t": 1.0, "u_xx": -4.0}}
            return (Term("residual", (domain,), ("u", "u_t"), lambda x, d: d.heat + d.u * d.u_t, operators=operators),)

    pde = TimeWindow(Heat(), 0, 1, None, growing=0.25)
    network = MLP(6, 2, domain=domain, generator=torch.Generator().manual_seed(2)).double()
    objective = Objective(pde, network)
    points, batch = draw_batch(objective, [7])
    (rows,) = objective.residuals(batch)
    y = points["residual"]
    u, u_t, u_xx = (derivative(lambda z: values(network, z)[:, 0], y, axes) for axes in ([], [1], [0, 0]))
    assert relative(rows, (4 * u_t - 4 * u_xx + u * 4 * u_t).detach()) < 1e-10


@pytest.mark.parametrize(
    ("pde", "message"),
    [
        (Measured(), "growing_time=0.1: values were measured at times of their own"),
        (Constrained(), "growing_time=0.1: constrain is a function of all of time"),
        (Repeated(), "growing_time=0.1: loss term 'repeated' has integrals or a partner"),
    ],
    ids=["measured", "constrained", "partner"],
)
def test_what_cannot_grow(pde: PDE, message: str) -> None:
    with pytest.raises(ProblemError, match=f"^{message}$"):
        TimeWindow(pde, 0, 1, None, growing=0.1)


@pytest.mark.parametrize("value", ["0", "1", "-0.1", "true"])
def test_parts_that_are_none(value: str, tmp_path: Path) -> None:
    assert_refused(ntkrun("pde=van_der_pol", f"growing_time={value}", cwd=tmp_path), tmp_path, "growing_time")


@pytest.mark.long
def test_a_jump_is_found(tmp_path: Path) -> None:
    """One of Van der Pol's relaxation oscillations, mu = 10, against SciPy."""
    from scipy.integrate import solve_ivp

    start, mu, end = (0.7152302711019268, -1.5268542296612813), 10.0, 1.2
    numbers = (f"pde.mu={mu}", f"pde.u0={start[0]}", f"pde.v0={start[1]}", f"pde.end={end}")
    settings = ("time_windows=1", "iterations=100", "growing_time=0.1", "plots=false", "threads=1")
    result = ntkrun("pde=van_der_pol", *numbers, *settings, cwd=tmp_path)
    assert result.status == 0, result.stderr
    with np.load(result.directory / "solution.npz") as file:
        t, u = file["axis_t"], file["prediction"].reshape(-1)
    exact = solve_ivp(
        lambda _, y: [y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]], (0, end), start, "Radau", t, rtol=1e-10, atol=1e-12
    )
    assert np.linalg.norm(u - exact.y[0]) < 1e-4 * np.linalg.norm(exact.y[0])
    assert pd.read_csv(result.directory / "metrics.csv")["loss/residual"].iloc[-1] < 1e-6


def test_held_out_losses_are_those_of_all_of_time() -> None:
    """However far the training is, which goes on from where it was."""
    pde = TimeWindow(Moved(), 0, 1, None, growing=0.1)
    objective = Objective(pde, MLP(6, 2, domain=pde.domain).double())
    held_out = HeldOut(objective, {"residual": 7, "ends": 4, "initial": 3}, 0)
    objective.progress.fill_(1.0)
    expected = held_out.losses()
    objective.progress.fill_(0.25)
    assert held_out.losses() == expected
    assert objective.progress == 0.25


# Where time grows by itself


OSCILLATOR = """
import torch

from ntkrun.geometry import Box
from ntkrun.pde import PDE, Term


class Oscillator(PDE):
    fields = ("u", "v")

    def __init__(self, ends: bool = False) -> None:
        self.domain = Box.of(t=(0.0, 2.0))
        self.ends = ends

    def terms(self):
        place = self.domain.face("t", "high" if self.ends else "low")
        return (
            Term("residual", (self.domain,), ("u", "v", "u_t", "v_t"), self.equation),
            Term("initial", (place,), ("u", "v"), lambda x, d: torch.stack([d.u - 1, d.v], dim=1)),
        )

    def equation(self, x, d):
        return torch.stack([d.u_t - d.v, d.v_t + d.u], dim=1)
"""
OSCILLATOR_YAML = "_target_: oscillator.Oscillator\nends: false\npoints: {residual: 20, initial: 1}\nsampling: sobol\n"


@pytest.mark.parametrize(
    ("overrides", "grows"),
    [
        ((), True),
        (("growing_time=null",), False),
        (("optimizer=adam",), False),
        (("stop.loss=1e-9",), False),
        (("pde.ends=true",), False),
    ],
    ids=["default", "null", "adam", "target", "from-the-end"],
)
def test_time_grows_by_itself_in_problems_in_time_alone(
    overrides: tuple[str, ...], grows: bool, tmp_path: Path
) -> None:
    (tmp_path / "conf" / "pde").mkdir(parents=True)
    (tmp_path / "oscillator.py").write_text(OSCILLATOR)
    (tmp_path / "conf" / "pde" / "oscillator.yaml").write_text(OSCILLATOR_YAML)
    small = ("network.width=4", "network.depth=1", "iterations=3", "plots=false", "threads=1")
    result = ntkrun("--config-dir", "./conf", "pde=oscillator", *small, *overrides, cwd=tmp_path)
    assert result.status == 0, result.stderr
    log = (result.directory / "ntkrun.log").read_text(encoding="utf-8")
    assert ("time grows from 0.1 of its interval to all of it over the first 80 % of the steps" in log) == grows
    assert json.loads((result.directory / "summary.json").read_text()).get("growing_time") == (0.1 if grows else None)


@pytest.mark.long
def test_an_orbit_of_lorenz_is_found_without_windows(tmp_path: Path) -> None:
    """By itself, against the stored solution; with all of time from the start the error is 1."""
    settings = ("time_windows=1", "growing_time=auto", "network.width=20", "pde.points.residual=200", "iterations=300")
    result = ntkrun("pde=lorenz", *settings, "pde.resample_every=auto", "plots=false", "threads=1", cwd=tmp_path)
    assert result.status == 0, result.stderr
    assert pd.read_csv(result.directory / "metrics.csv")["error/rel_l2"].iloc[-1] < 1e-3


# What a run says that has not got there


VAN_DER_POL = (
    "pde=van_der_pol",
    "growing_time=null",
    "pde.mu=10",
    "pde.end=20",
    "network.width=6",
    "plots=false",
    "threads=1",
)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("time_windows=1",), "try growing_time=0.1 or time_windows=adaptive (see"),
        (
            ("time_windows=2", "pde.points.residual=30"),
            "try growing_time=0.1 or time_windows=adaptive; what follows begins with what this window has missed (see",
        ),
    ],
    ids=["whole", "windows"],
)
def test_a_run_far_from_a_solution_says_what_to_try(overrides: tuple[str, ...], words: str, tmp_path: Path) -> None:
    result = ntkrun(*VAN_DER_POL, "iterations=50", *overrides, cwd=tmp_path)
    assert result.status == 0, result.stderr
    log = (result.directory / "ntkrun.log").read_text(encoding="utf-8")
    rows = pd.read_csv(result.directory / "steps.csv")["loss"]
    left = rows[len(rows) - 1 if "time_windows=1" in overrides else 49] / rows[0]
    assert f"the loss is still {left:.1g} of the first" in log
    assert words in log


@pytest.mark.parametrize("overrides", [("iterations=49",), ("stop.error=1e-9",), ("optimizer=adam",)])
def test_nothing_is_said_of_others(overrides: tuple[str, ...], tmp_path: Path) -> None:
    """Runs too short to tell, with targets of their own, or of which losses of that size are all there is to expect."""
    result = ntkrun(*VAN_DER_POL, "time_windows=1", "iterations=50", *overrides, cwd=tmp_path)
    assert result.status == 0, result.stderr
    assert "of the first" not in (result.directory / "ntkrun.log").read_text(encoding="utf-8")
