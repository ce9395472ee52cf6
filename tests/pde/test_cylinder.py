"""The defaults of pde=cylinder meet their goal: velocities, and the published forces and pressure difference."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

import ntkrun
from tests.driver import ntkrun as run_ntkrun

pytestmark = pytest.mark.long


def test_goals(tmp_path: Path) -> None:
    """Drag and lift are integrals of p n - nu du/dn along the cylinder, by the rule of equal steps."""
    result = run_ntkrun("pde=cylinder", "progress=false", "plots=false", "threads=1", cwd=tmp_path)
    assert result.status == 0, result.stderr
    directory = tmp_path / result.directory
    summary = json.loads((directory / "summary.json").read_text())
    errors = {field: found["final"] for field, found in summary["rel_l2"]["fields"].items()}
    run = ntkrun.load(directory)
    angle = 2 * math.pi * np.arange(400) / 400
    nx, ny = np.cos(angle), np.sin(angle)
    circle = np.stack([0.2 + 0.05 * nx, 0.2 + 0.05 * ny], axis=1)
    p, *slopes = run.predict(circle, derivatives=("p", "u_x", "u_y", "v_x", "v_y")).T
    along_x, along_y = (p * n - 1e-3 * (w_x * nx + w_y * ny) for n, (w_x, w_y) in ((nx, slopes[:2]), (ny, slopes[2:])))
    drag, lift = (-2 / (0.2**2 * 0.1) * each.mean() * 2 * math.pi * 0.05 for each in (along_x, along_y))
    front, back = run.predict(np.array([[0.15, 0.2], [0.25, 0.2]]))[:, 2]
    assert errors["u"] < 3e-4
    assert errors["v"] < 2e-3
    assert errors["p"] < 1e-3
    assert drag == pytest.approx(5.5795, rel=1e-3)
    assert front - back == pytest.approx(0.1175, rel=3e-3)
    assert lift == pytest.approx(0.0106, abs=0.001)  # of forces that are 500 times as large
