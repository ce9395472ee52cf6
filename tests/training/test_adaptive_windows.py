"""Time windows of lengths that a run chooses."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import ntkrun as package
from ntkrun.experiment.windows import next_ends
from ntkrun.geometry import Box
from ntkrun.pde import PDE, Columns, Term
from ntkrun.training.time_marching import TimeWindow
from tests.cli.test_resume import resume, stop_at, table
from tests.driver import Result, assert_refused, ntkrun

__all__ = ["stop_at"]  # a fixture
HERE = "tests.training.test_adaptive_windows"


class Oscillator(PDE):
    """u' = v, v' = -u from (1, 0) over three periods."""

    fields = ("u", "v")

    def __init__(self) -> None:
        self.domain = Box.of(t=(0.0, 20.0))

    def terms(self) -> tuple[Term, ...]:
        start = self.domain.face("t", "low")
        return (
            Term("residual", (self.domain,), ("u", "v", "u_t", "v_t"), self.equation),
            Term("initial", (start,), ("u", "v"), lambda x, d: torch.stack([d.u - 1, d.v], dim=1)),
        )

    def equation(self, x: Columns, d: Columns) -> Tensor:
        return torch.stack([d.u_t - d.v, d.v_t + d.u], dim=1)

    def exact(self, x: Columns) -> Tensor:
        return torch.stack([torch.cos(x.t), -torch.sin(x.t)], dim=1)


SMALL = ("network.width=6", "network.depth=1", "iterations=60", "plots=false", "threads=1", "log_every=20")


def run(directory: Path, *overrides: str) -> Result:
    (directory / "conf" / "pde").mkdir(parents=True)
    text = f"_target_: {HERE}.Oscillator\npoints: {{residual: 60, initial: 1}}\nsampling: sobol\n"
    (directory / "conf" / "pde" / "oscillator.yaml").write_text(text)
    where = f"hydra.run.dir={directory / 'run'}"
    return ntkrun("--config-dir", "./conf", "pde=oscillator", *SMALL, *overrides, where, cwd=directory)


def test_a_run_that_one_network_does_not_solve_takes_shorter_windows(tmp_path: Path) -> None:
    """By itself, where t is the only coordinate; against cos t and its derivative."""
    result = run(tmp_path)
    assert result.status == 0, result.stderr
    log = (result.directory / "ntkrun.log").read_text(encoding="utf-8")
    assert "time window 1, t from 0 to 20: the loss is still" in log
    assert not (result.directory / "best.pt").exists()  # of no window alone
    trained = package.load(result.directory, trust=HERE)
    t = np.linspace(0, 20, 501)[:, None]
    found = trained.predict(t, ["u", "v", "u_t"])
    error = np.linalg.norm(found[:, :2] - np.hstack([np.cos(t), -np.sin(t)])) / np.sqrt(501)
    assert error < 0.05
    assert np.linalg.norm(found[:, 2] + np.sin(t[:, 0])) / np.sqrt(501 / 2) < 0.1
    summary = json.loads((result.directory / "summary.json").read_text())
    assert summary["rel_l2"]["final"] == pytest.approx(error, rel=0.1)  # on a grid of other points
    assert summary["step"] == summary["iterations"] > 200
    assert pd.read_csv(result.directory / "metrics.csv")["step"].is_monotonic_increasing
    assert pd.read_csv(result.directory / "metrics.csv")["step"].is_unique
    path = tmp_path / "program.pt2"
    assert trained.export(path) < 1e-12


@pytest.mark.long
def test_a_resumed_run_chooses_the_windows_that_it_would_have_chosen(tmp_path: Path, stop_at: Any) -> None:
    """Stopped in the first attempt, in a shorter window, and in one that follows."""
    assert run(tmp_path / "whole").status == 0
    whole = tmp_path / "whole" / "run"
    for k, step in enumerate((30, 80, 190)):
        parts = tmp_path / f"parts{k}"
        stop_at(step)
        assert run(parts).status == 143
        stop_at(100000)
        assert resume(parts / "run", f"trust={HERE}").status == 0
        assert table(parts / "run" / "metrics.csv") == table(whole / "metrics.csv")


def test_a_resumed_run_goes_through_time_as_it_began(tmp_path: Path, stop_at: Any) -> None:
    """Also where it is given a limit of time, with which a new run would have all of time from the start."""
    assert run(tmp_path / "whole", "iterations=40").status == 0
    stop_at(15)
    assert run(tmp_path / "parts", "iterations=40").status == 143
    stop_at(1000)
    assert resume(tmp_path / "parts" / "run", f"trust={HERE}", "stop.seconds=1000").status == 0
    assert table(tmp_path / "parts" / "run" / "metrics.csv") == table(tmp_path / "whole" / "run" / "metrics.csv")


@pytest.mark.parametrize(
    "overrides",
    [("time_windows=1",), ("growing_time=null",), ("optimizer=adam",), ("iterations=49",), ("stop.loss=1e-20",)],
    ids=["one", "all-from-the-start", "adam", "too-short-to-tell", "target"],
)
def test_others_keep_their_one_window(overrides: tuple[str, ...], tmp_path: Path) -> None:
    result = run(tmp_path, "iterations=60", *overrides)
    assert result.status == 0, result.stderr
    assert "half of it is tried" not in (result.directory / "ntkrun.log").read_text(encoding="utf-8")
    assert not package.load(result.directory, trust=HERE).windowed


def finished(ends: list[float], left: float | None, **changes: Any) -> tuple[Any, Any]:
    """Parts and trainer of an attempt on [0, 8] that has come to its end."""
    whole = Box.of(t=(0.0, 8.0))
    parts = SimpleNamespace(
        ends=tuple(ends), pde=SimpleNamespace(domain=whole), edges=len(ends) > 1 or ends[-1] < 8, settings=None
    )
    parts.settings = SimpleNamespace(iterations=100)
    given = {"step": 60, "steps": 60, "total_steps": 500, "late": "", "reached": False, **changes}
    progress = SimpleNamespace(step=given["step"], total_steps=given["total_steps"])
    optimizer, loop = SimpleNamespace(left=lambda: left), SimpleNamespace(iterations=given["steps"])
    return parts, SimpleNamespace(
        progress=progress, optimizer=optimizer, loop=loop, late=given["late"], reached=given["reached"]
    )


@pytest.mark.parametrize(
    ("ends", "left", "changes", "expected"),
    [
        ([8.0], 1e-6, {}, None),  # solved
        ([8.0], 1e-4, {}, [4.0]),
        ([4.0], 1e-4, {}, [2.0]),
        ([2.0], 1e-11, {}, [2.0, 4.0]),
        ([2.0], 1e-6, {}, [1.0]),  # errors of windows add up
        ([2.0], 1e-15, {}, [2.0, 6.0]),  # with digits to spare
        ([2.0, 6.0], 1e-15, {}, [2.0, 6.0, 8.0]),
        ([2.0, 6.0], 1e-3, {}, [2.0, 4.0]),
        ([2.0, 4.1], 1e-11, {}, [2.0, 4.1, 6.2]),
        ([3.0, 5.7], 1e-11, {}, [3.0, 5.7, 8.0]),  # no short one at the end
        ([2.0, 8.0], 1e-11, {}, None),
        ([2.0, 8.0], 1e-3, {"reached": True}, None),
        ([4.0], 1e-3, {"late": "time is up"}, None),
        ([4.0], 1e-3, {"step": 10, "steps": 10}, None),  # too few to tell
        ([4.0], 1e-3, {"step": 10}, [2.0]),  # no step lowers the loss
        ([4.0], 1e-3, {"total_steps": 2000}, None),  # 20 times the iterations
        ([4.0], 1e-11, {"total_steps": 2000}, None),
        ([5e-7], 1e-3, {}, None),  # shorter than any
        ([4.0], None, {}, None),
    ],
)
def test_lengths_follow_the_solution(
    ends: list[float],
    left: float | None,
    changes: dict[str, Any],
    expected: list[float] | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level("WARNING"):
        found = next_ends(*finished(ends, left, **changes))
    gives_up = changes.get("total_steps") == 2000 or ends == [5e-7]
    assert ("nothing beyond is trained" in caplog.text) == gives_up
    assert (None if found is None else pytest.approx(found)) == expected


@pytest.mark.long
@pytest.mark.parametrize(("windows", "solved"), [("adaptive", True), ("1", False)])
def test_a_wave_that_goes_round_many_times(windows: str, solved: bool, tmp_path: Path) -> None:
    """sin(x - 80 t) on [0, 2 pi], of which one network finds nothing."""
    small = ("network.width=10", "iterations=60", "pde.points.residual=200", "pde.points.initial=40", "plots=false")
    result = ntkrun("pde=advection", "pde.c=80", *small, "threads=1", f"time_windows={windows}", cwd=tmp_path)
    assert result.status == 0, result.stderr
    error = json.loads((result.directory / "summary.json").read_text())["rel_l2"]["final"]
    assert error < 1e-3 if solved else error > 0.5
    advice = "try point_weights=causal or time_windows=adaptive (see"
    assert (advice in (result.directory / "ntkrun.log").read_text(encoding="utf-8")) == (not solved)


def test_a_window_of_given_ends() -> None:
    window = TimeWindow(Oscillator(), 1, 1, torch.nn.Linear(1, 2), ends=[3.0, 7.5])
    assert (window.domain.low["t"], window.domain.high["t"]) == (3.0, 7.5)
    assert all(region.high["t"] == 3.0 for region in window.terms()[1].region)


def test_adaptive_windows_want_an_optimiser_that_can_tell(tmp_path: Path) -> None:
    small = ("optimizer=adam", "iterations=5")
    assert_refused(
        ntkrun("pde=burgers", "time_windows=adaptive", *small, cwd=tmp_path), tmp_path, "time_windows", "adaptive"
    )
    result = ntkrun("pde=poisson", "time_windows=adaptive", "iterations=5", cwd=tmp_path)
    assert_refused(result, tmp_path, "the problem has no coordinate t")
