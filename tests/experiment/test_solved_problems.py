"""Problems as users pose them, solved at the default optimiser to what their closed forms say."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

import ntkrun as package
from tests.driver import Result, ntkrun

pytestmark = pytest.mark.long

QUIET = ["threads=1", "plots=false", "progress=false"]

PROBLEMS = '''
import math

import torch
from scipy.spatial import cKDTree

from ntkrun.geometry import Box, rectangle
from ntkrun.pde import PDE, Term
from ntkrun.pde.conditions import dirichlet

import numpy as np


class LShape(PDE):
    """Laplace's equation; u is given on the edge of an L."""

    def __init__(self):
        self.domain = rectangle(x=(-1.0, 1.0), y=(-1.0, 1.0)) - rectangle(x=(0.0, 1.0), y=(0.0, 1.0))

    def terms(self):
        return (
            Term("residual", (self.domain,), ("u_xx", "u_yy"), lambda x, d: d.u_xx + d.u_yy),
            dirichlet("boundary", self.domain.boundary(), self.exact),
        )

    def exact(self, x):
        return torch.exp(-math.pi * x.x) * torch.sin(math.pi * x.y)


class Cube(PDE):
    """A nonlinear equation in three dimensions."""

    domain = Box.of(x=(0.0, 1.0), y=(0.0, 1.0), z=(0.0, 1.0))

    def terms(self):
        names = ("u", "u_x", "u_y", "u_z", "u_xx", "u_yy", "u_zz")
        boundary = dirichlet("boundary", self.domain.faces("x", "y", "z"), self.exact)
        return Term("residual", (self.domain,), names, self.equation), boundary

    def equation(self, x, d):
        k, u = math.pi / 2, self.exact(x)
        slopes = u + k * torch.exp(x.x) * torch.sin(k * (x.y + x.z))
        source = u * (1 - 2 * k**2) - u * slopes
        return d.u_xx + d.u_yy + d.u_zz - d.u * (d.u_x + d.u_y + d.u_z) - source

    def exact(self, x):
        return torch.exp(x.x) * torch.sin(math.pi / 2 * x.y) * torch.sin(math.pi / 2 * x.z)


class Heat(PDE):
    """u_t = u_xx / 10 with u = 0 at the ends; nothing is said of the start."""

    domain = Box.of(x=(0.0, 1.0), t=(0.0, 1.0))

    def terms(self):
        return (
            Term("residual", (self.domain,), ("u_t", "u_xx"), lambda x, d: d.u_t - 0.1 * d.u_xx),
            dirichlet("ends", self.domain.faces("x")),
        )

    def exact(self, x):
        return torch.exp(-0.1 * math.pi**2 * x.t) * torch.sin(math.pi * x.x)


class Nearest(Heat):
    """With the value of the nearest measured place, by SciPy, at places that are boxes without extent."""

    def __init__(self, file="probe.csv"):
        self.table = np.loadtxt(file, delimiter=",", skiprows=1)

    def terms(self):
        places = tuple(Box.of(x=(x, x), t=(t, t)) for x, t, _ in self.table)
        return (*super().terms(), Term("data", places, ("u",), self.misfit))

    def misfit(self, x, d):
        near = cKDTree(self.table[:, :2]).query(torch.stack([x.x, x.t], 1).numpy())[1]
        return d.u - torch.from_numpy(self.table[near, 2]).to(d.u)
'''


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the problems, 60 values of the heat equation's solution and errors of 0.01."""
    generator = np.random.default_rng(1)
    x, t = generator.random((2, 60))
    u = np.exp(-0.1 * np.pi**2 * t) * np.sin(np.pi * x) + 0.01 * generator.standard_normal(60)
    np.savetxt(tmp_path / "probe.csv", np.stack([x, t, u], 1), delimiter=",", header="x,t,u", comments="")
    (tmp_path / "users_problems.py").write_text(PROBLEMS)
    monkeypatch.delitem(sys.modules, "users_problems", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def solve(place: Path, name: str, points: dict[str, int], *overrides: str, **keys: object) -> tuple[Result, float]:
    """A run of a problem in a directory, and its final error."""
    file = place / "conf" / "pde" / "own.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    setup = {"_target_": f"users_problems.{name}", "points": points, "sampling": "sobol", "resample_every": None}
    file.write_text(yaml.safe_dump({**setup, "grid": 31, **keys}))
    result = ntkrun("--config-dir", place / "conf", "pde=own", *QUIET, *overrides, cwd=place)
    assert result.status == 0, result.stderr
    return result, float(package.load(result.directory, trust="users_problems").summary["rel_l2"]["final"])


@pytest.mark.parametrize(
    ("name", "points", "steps", "goal"),
    [
        ("LShape", {"residual": 600, "boundary": 160}, 45, 1e-5),
        ("Cube", {"residual": 500, "boundary": 300}, 30, 1e-5),
    ],
)
def test_closed_forms_are_found(name: str, points: dict[str, int], steps: int, goal: float, place: Path) -> None:
    _, error = solve(place, name, points, f"iterations={steps}", "network.width=16", "network.depth=3")
    assert error < goal


def test_noisy_values_serve_as_a_file_or_by_a_search_of_ones_own(place: Path) -> None:
    """Both ways give the same network; a run that starts from it predicts what the closed form says."""
    small = ["network.width=12", "network.depth=2"]
    ends = {"residual": 300, "ends": 60}
    by_file, error = solve(place, "Heat", ends, *small, "iterations=30", data="probe.csv")
    _, other = solve(place, "Nearest", {**ends, "data": 60}, *small, "iterations=30")
    assert error == pytest.approx(other, rel=1e-3)
    assert error < 4e-3  # the errors of the values are 0.01, of a solution of size up to 1
    more = [*small, f"start_from={by_file.directory}", "optimizer=lbfgs", "weights=none", "iterations=50"]
    _, error = solve(place, "Heat", ends, *more, data="probe.csv")
    assert error < 4e-3
    run = package.load(by_file.directory, trust="users_problems")
    points = np.array([[0.5, 0.0], [0.5, 0.5], [0.25, 1.0]])
    u, slope = run.predict(points, derivatives=["u", "u_x"]).T
    decay = np.exp(-0.1 * np.pi**2 * points[:, 1])
    assert np.abs(u - decay * np.sin(np.pi * points[:, 0])).max() < 0.01
    assert np.abs(slope - decay * np.pi * np.cos(np.pi * points[:, 0])).max() < 0.05
