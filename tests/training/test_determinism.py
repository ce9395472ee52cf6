"""The same numbers again: in another process, with other threads, and after a change of the program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from ntkrun.jets import functions
from ntkrun.network import mlp
from ntkrun.weights.policy import NTKWeighting
from tests.cli.test_resume import table
from tests.driver import ntkrun
from tests.reference import RUNS, TOLERANCE, path, trajectory

# Steps that draw points and probes, update weights by both routes, and are large enough to be shared among threads.
OVERRIDES = {
    "exact": [
        *("pde=wave", "weights=exact", "weights.update_every=1"),
        *("pde.points.residual=150", "pde.resample_every=5"),
    ],
    "sketched": [
        *("pde=helmholtz", "weights=sketched", "weights.update_every=10", "weights.distribution=rademacher"),
        *("pde.points.residual=150", "pde.points.boundary=40"),
    ],
}
COMMON = [
    *("network.width=64", "network.depth=2", "iterations=50", "log_every=10", "pde.grid=20", "plots=false"),
    *("optimizer=adam", "progress=false", "seed=7", "device=cpu"),
]


@pytest.fixture(params=OVERRIDES)
def overrides(request: pytest.FixtureRequest) -> list[str]:
    return [*OVERRIDES[request.param], *COMMON]


def run(directory: Path, *overrides: str) -> Path:
    assert ntkrun(*overrides, f"hydra.run.dir={directory}", cwd=directory.parent).status == 0
    return directory


def test_the_same_run_gives_the_same_bytes_but_for_times(overrides: list[str], tmp_path: Path) -> None:
    """The second one in a process of its own."""
    one, other = run(tmp_path / "one", *overrides, "threads=1"), tmp_path / "other"
    command = [sys.executable, "-m", "ntkrun", *overrides, "threads=1", f"hydra.run.dir={other}"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    for name in ("metrics.csv", "weights.csv"):
        assert table(one / name) == table(other / name)
        assert len(table(one / name)) > 5


def test_the_number_of_threads_changes_rounding_only(tmp_path: Path) -> None:
    """Threads add up in another order: n numbers of one sign to n eps, 3e-13 here, which 50 steps spread little."""
    before, overrides = torch.get_num_threads(), [*OVERRIDES["exact"], *COMMON, "dtype=float64"]
    try:
        runs = [run(tmp_path / str(n), *overrides, f"threads={n}") for n in (1, 2)]
    finally:
        torch.set_num_threads(before)
    for name in ("metrics.csv", "weights.csv"):
        one, two = (pd.read_csv(directory / name) for directory in runs)
        columns = [column for column in one.columns if not column.endswith("seconds")]
        np.testing.assert_allclose(two[columns], one[columns], rtol=1e-10)


@pytest.mark.parametrize("name", RUNS)
def test_reference_trajectories(name: str, tmp_path: Path) -> None:
    """Only a change that is meant to change numbers may change these; ``tests/reference.py`` writes them anew."""
    assert_as_recorded(name, tmp_path)


def scale_weights(patch: pytest.MonkeyPatch) -> None:
    target = NTKWeighting.target

    def scaled(self: NTKWeighting, traces: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        weights, floored = target(self, traces, rows)
        return weights * (1 + 1e-6), floored

    patch.setattr(NTKWeighting, "target", scaled)


def scale_second_derivative(patch: pytest.MonkeyPatch) -> None:
    def scaled(z: Tensor, order: int) -> list[Tensor]:
        derivatives = functions.tanh(z, order)
        return [d * (1 + 1e-6) if k == 2 else d for k, d in enumerate(derivatives)]

    patch.setitem(mlp.ACTIVATIONS, "tanh", scaled)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("wave_exact", scale_weights),
        ("klein_gordon_sketched", scale_weights),
        ("poisson_none", scale_second_derivative),
        ("beam_exact", scale_second_derivative),
    ],
)
def test_reference_trajectories_notice_an_error_of_a_millionth(
    name: str, fault: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_as_recorded(name, tmp_path)


def assert_as_recorded(name: str, directory: Path) -> None:
    for what, values in trajectory(name, directory).items():
        if not len(values):
            assert not path(name, what).exists()
            continue
        recorded = pd.read_csv(path(name, what))
        assert list(values.columns) == list(recorded.columns)
        np.testing.assert_allclose(values, recorded, rtol=TOLERANCE)
