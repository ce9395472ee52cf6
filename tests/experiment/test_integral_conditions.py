"""Problems with integrals as users have posed them, solved."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.driver import ntkrun

PROBLEMS = """
import math

import torch

from ntkrun.geometry import Box
from ntkrun.pde import PDE, Term, integral
from ntkrun.pde.conditions import conserved, dirichlet, neumann

H = math.pi / 2


class Memory(PDE):
    def __init__(self, mean=False):
        self.mean = mean
        self.domain = Box.of(x=(0.0, H), t=(0.0, 1.0))

    def terms(self):
        heat = {} if self.mean else {"heat": integral("u", x=(0.0, H))}
        names = ("u", "u_t", "u_xx") if self.mean else ("u_t", "u_xx")
        return (
            Term("residual", (self.domain,), names, self.equation, integrals=heat),
            dirichlet("ends", self.domain.faces("x"), self.exact),
            dirichlet("initial", self.domain.face("t", "low"), lambda x: torch.sin(x.x)),
        )

    def equation(self, x, d):
        heat = H * d.u.mean() if self.mean else d.heat
        return d.u_t - d.u_xx - heat + torch.exp(-x.t)

    def exact(self, x):
        return torch.exp(-x.t) * torch.sin(x.x)


class Stationary(PDE):
    def __init__(self):
        self.domain = Box.of(x=(-4.0, 4.0))

    def terms(self):
        return (
            Term("residual", (self.domain,), ("u", "u_x", "u_xx"), lambda x, d: d.u + x.x * d.u_x + d.u_xx),
            dirichlet("ends", self.domain.faces("x")),
            conserved("mass", self.domain.face("x", "low"), integral("u", x=(-4.0, 4.0)), 1.0),
        )

    def exact(self, x):
        return torch.exp(-(x.x**2) / 2) / math.sqrt(2 * math.pi)


class Insulated(PDE):
    domain = Box.of(x=(0.0, 1.0))

    def terms(self):
        return (
            Term("residual", (self.domain,), ("u_xx",), lambda x, d: d.u_xx - torch.cos(math.pi * x.x)),
            neumann("ends", self.domain.faces("x")),
        )


class String(PDE):
    domain = Box.of(x=(0.0, 1.0))

    def terms(self):
        square = integral(lambda x, d: d.u**2, "u", x=(0.0, 1.0))
        return (
            Term("residual", (self.domain,), ("u", "u_xx"), lambda x, d: d.u_xx + math.pi**2 * d.u),
            conserved("norm", self.domain.face("x", "low"), square, 0.5),
        )
"""
MEMORY = "_target_: served.Memory\nmean: false\npoints: {residual: 200, ends: 40, initial: 40}\n"
STATIONARY = "_target_: served.Stationary\npoints: {residual: 60, ends: 2, mass: 1}\n"
COMMON = "sampling: sobol\nresample_every: null\ngrid: 41\n"
SMALL = ("network.width=12", "network.depth=2", "plots=false", "threads=1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "conf" / "pde").mkdir(parents=True)
    (tmp_path / "served.py").write_text(PROBLEMS)
    (tmp_path / "conf" / "pde" / "memory.yaml").write_text(MEMORY + COMMON)
    (tmp_path / "conf" / "pde" / "stationary.yaml").write_text(STATIONARY + COMMON)
    return tmp_path


# The normal density misses the ends by 1.3e-4, which is 2e-4 of its size.
@pytest.mark.parametrize(("problem", "error"), [("memory", 1e-5), ("stationary", 1e-3)])
def test_problems_with_integrals_are_solved(problem: str, error: float, folder: Path) -> None:
    result = ntkrun("--config-dir", "./conf", f"pde={problem}", "iterations=60", *SMALL, cwd=folder)
    assert result.status == 0, result.stderr
    assert "depends on the other points" not in result.stderr
    assert "kernel route: structured" in (result.directory / "ntkrun.log").read_text()
    assert pd.read_csv(result.directory / "metrics.csv")["error/rel_l2"].iloc[-1] < error


def test_a_mean_over_the_batch_is_told_from_an_integral(folder: Path) -> None:
    own = ("--config-dir", "./conf", "pde=memory", "pde.mean=true", "iterations=1")
    result = ntkrun(*own, *SMALL, "optimizer=adam", cwd=folder)
    assert result.status == 0, result.stderr
    log = (result.directory / "ntkrun.log").read_text()
    assert "the residual of term residual at a point depends on the other points of its batch" in log
    assert "integrals={'mass': integral('u', x=(0.0, 1.0))}" in log
    assert "outputs at one point depend" not in log  # it is the residual that mixes, not the network
    assert "kernel route: dense" in log


@pytest.mark.parametrize(
    ("problem", "points", "said"),
    [
        ("Insulated", "residual: 10, ends: 2", "no term reads u itself, only derivatives"),
        ("String", "residual: 10, norm: 1", "do not tell the solution from its negative"),
    ],
)
def test_what_terms_leave_open_is_said(problem: str, points: str, said: str, folder: Path) -> None:
    text = f"_target_: served.{problem}\npoints: {{{points}}}\n" + COMMON
    (folder / "conf" / "pde" / f"{problem.lower()}.yaml").write_text(text)
    own = ("--config-dir", "./conf", f"pde={problem.lower()}", "iterations=1")
    result = ntkrun(*own, *SMALL, "optimizer=adam", cwd=folder)
    assert result.status == 0, result.stderr
    assert said in (result.directory / "ntkrun.log").read_text()
