"""Problems as users have posed them, solved with answers that are known."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.driver import ntkrun

pytestmark = pytest.mark.long

PROBLEMS = """
import torch

from ntkrun.geometry import Box
from ntkrun.pde import PDE, Coefficient, Term


class Waves(PDE):
    '''u_t + A u u_x + B u_xxx + C f = 0, of which measured u are known, and u = sin x sin t.'''

    domain = Box.of(x=(0.0, 1.0), t=(0.0, 1.0))
    coefficients = tuple(Coefficient(name=name, start=0.5) for name in "ABC")

    def terms(self):
        return (Term("residual", (self.domain,), ("u", "u_t", "u_x", "u_xxx", "A", "B", "C"), self.equation),)

    def equation(self, x, d):
        s, c = torch.sin(x.t), torch.cos(x.t)
        f = -0.5 * torch.sin(2 * x.x) * s**2 + 0.0025 * torch.cos(x.x) * s - torch.sin(x.x) * c
        return d.u_t + d.A * d.u * d.u_x + d.B * d.u_xxx + d.C * f

    def exact(self, x):
        return torch.sin(x.x) * torch.sin(x.t)


class Ball(PDE):
    '''u_t = u_rr + (2/r) u_r, u = 0 at r = 1, solved by sin(pi r) / (pi r) exp(-pi^2 t).'''

    domain = Box.of(r=(0.0, 1.0), t=(0.0, 0.2))

    def terms(self):
        return (
            Term("residual", (self.domain,), ("u_t", "u_r", "u_rr"), lambda x, d: d.u_t - d.u_rr - 2 / x.r * d.u_r),
            Term("surface", (self.domain.face("r", "high"),), ("u",), lambda x, d: d.u),
            Term("initial", (self.domain.face("t", "low"),), ("u",), lambda x, d: d.u - self.exact(x)),
        )

    def exact(self, x):
        return torch.sinc(x.r) * torch.exp(-torch.pi**2 * x.t)


class Kelvin(PDE):
    '''u'' = 0, u(0) = 300, u(1) = 400, by an output transform that no term is named for.'''

    domain = Box.of(x=(0.0, 1.0))

    def terms(self):
        return (
            Term("residual", (self.domain,), ("u_xx",), lambda x, d: d.u_xx),
            Term("boundary", self.domain.faces("x"), ("u",), lambda x, d: d.u - self.exact(x)),
        )

    def constrain(self, x, u):
        return (300 + 100 * u.u,)

    def exact(self, x):
        return 300 + 100 * x.x
"""
FILES = {
    "waves": "_target_: posed.Waves\ndata: probe.csv\npoints: {residual: 300}\n",
    "ball": "_target_: posed.Ball\npoints: {residual: 300, surface: 60, initial: 60}\n",
    "kelvin": "_target_: posed.Kelvin\npoints: {residual: 100, boundary: 2}\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "conf" / "pde").mkdir(parents=True)
    (tmp_path / "posed.py").write_text(PROBLEMS)
    for name, text in FILES.items():
        (tmp_path / "conf" / "pde" / f"{name}.yaml").write_text(text + "sampling: sobol\nresample_every: 1\ngrid: 51\n")
    yield tmp_path
    sys.modules.pop("posed", None)


def solve(problem: str, folder: Path) -> tuple[float, Path]:
    """Relative L2 error after 40 steps, and the run."""
    small = ("network.width=16", "network.depth=2", "plots=false", "threads=1", "iterations=40")
    result = ntkrun("--config-dir", "./conf", f"pde={problem}", *small, cwd=folder)
    assert result.status == 0, result.stderr
    return float(pd.read_csv(result.directory / "metrics.csv")["error/rel_l2"].iloc[-1]), result.directory


def test_three_coefficients_of_a_dispersive_equation_from_measured_values(folder: Path) -> None:
    x, t = np.random.default_rng(0).random((2, 200))
    pd.DataFrame({"x": x, "t": t, "u": np.sin(x) * np.sin(t)}).to_csv(folder / "probe.csv", index=False)
    error, run = solve("waves", folder)
    assert error < 1e-4
    found = json.loads((run / "summary.json").read_text())["coefficients"]
    for name, true in {"A": 1.0, "B": 0.0025, "C": 1.0}.items():
        assert found[name]["value"] == pytest.approx(true, rel=0.01), name


def test_a_coefficient_without_bounds_is_solved_and_named(folder: Path) -> None:
    error, run = solve("ball", folder)
    assert error < 1e-4
    (line,) = [line for line in (run / "ntkrun.log").read_text().splitlines() if "of its kernel's trace" in line]
    named = re.search(r"loss term residual: 1 of 300 points holds (\d+) % .*, most at r=(\S+), t=", line)
    assert named is not None
    assert int(named[1]) > 50
    assert float(named[2]) < 1 / 300
    assert "such points count less" in line


def test_an_output_transform_without_hard_constraints(folder: Path) -> None:
    error, run = solve("kelvin", folder)
    assert error < 1e-9
    log = (run / "ntkrun.log").read_text()
    assert "outputs are transformed by constrain(); all terms are trained" in log
    assert "of its kernel's trace" not in log
