"""Sweeps: every job stands by itself, and the end says what became of them."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch

from ntkrun.runtime.threads import available_cores
from ntkrun.training.trainer import Trainer
from tests.cli.test_resume import assert_same_end, stop_at, summary
from tests.driver import Result, assert_refused, ntkrun

__all__ = ["stop_at"]

SMALL = [
    *("pde=poisson", "network.width=8", "network.depth=2", "pde.grid=10", "iterations=20", "log_every=5"),
    *("optimizer=adam", "checkpoint_every=4", "plots=false", "progress=false", "report=false"),
]


def sweep(directory: Path, *overrides: str) -> Result:
    directory.parent.mkdir(exist_ok=True, parents=True)
    return ntkrun("-m", *SMALL, *overrides, f"hydra.sweep.dir={directory}", cwd=directory.parent)


def statuses(directory: Path) -> list[str]:
    return [json.loads((directory / str(k) / "summary.json").read_text())["status"] for k in range(jobs(directory))]


def jobs(directory: Path) -> int:
    return len(list(directory.glob("*/.hydra")))


def modified(directory: Path) -> dict[str, int]:
    """When the files that a run writes were written; Hydra writes the configuration of a skipped job anew."""
    files = [path for path in directory.rglob("*") if path.is_file() and ".hydra" not in path.parts]
    return {str(path.relative_to(directory)): path.stat().st_mtime_ns for path in files}


def test_the_end_of_a_sweep(tmp_path: Path) -> None:
    result = sweep(tmp_path / "sweep", "seed=0,1")
    assert (result.status, result.directory) == (0, tmp_path / "sweep")
    assert "2 jobs: 2 completed, 0 not" in result.stdout
    assert [line.split(":")[0] for line in result.stdout.splitlines()[:2]] == ["job 0 completed", "job 1 completed"]


def test_a_job_that_diverges_is_recorded_and_the_others_go_on(tmp_path: Path) -> None:
    run = tmp_path / "sweep"
    result = sweep(run, "optimizer=gradient_descent", "optimizer.learning_rate=1e-6,1e20,1e-7")
    assert result.status == 1
    assert statuses(run) == ["completed", "failed", "completed"]
    assert "3 jobs: 2 completed, 1 not" in result.stdout
    assert f"ntkrun: 1 failed: {summary(run / '1')['message']}" in result.stderr.splitlines()


def test_a_job_that_breaks_leaves_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit, calls = Trainer.fit, iter(range(9))

    def sometimes(self: Trainer) -> str | None:
        if next(calls) == 1:
            raise OSError("the disk fell off")
        return fit(self)

    monkeypatch.setattr(Trainer, "fit", sometimes)
    run = tmp_path / "sweep"
    result = sweep(run, "seed=0,1,2")
    assert (result.status, statuses(run)) == (1, ["completed", "failed", "completed"])
    log = (run / "1" / "ntkrun.log").read_text()
    assert log.count("Traceback (most recent call last)") == 1
    assert log.rstrip().endswith("OSError: the disk fell off")
    assert re.search(r"^ntkrun: 1 failed: OSError: the disk fell off \(.*test_sweep.py:\d+\)$", result.stderr, re.M)


def test_a_combination_that_cannot_run_is_recorded(tmp_path: Path) -> None:
    """Both values are fine by themselves."""
    run = tmp_path / "sweep"
    small = ["pde=advection,poisson", "time_windows=1,2", "iterations=4"]
    result = sweep(run, *small)
    assert (result.status, statuses(run)) == (1, ["completed", "completed", "completed", "failed"])
    message = "pde: time_windows=2: the problem has no coordinate t"
    assert summary(run / "3")["message"] == message
    assert message in (run / "3" / "ntkrun.log").read_text()
    assert "Traceback" not in (run / "3" / "ntkrun.log").read_text() + result.stderr


@pytest.mark.parametrize("value", ["network.width=4,abc", "weights=exact,exat", "seed=0,-1", "pde=poisson,helmholz"])
def test_a_value_that_cannot_be_used_stops_the_sweep_before_it_starts(value: str, tmp_path: Path) -> None:
    result = ntkrun("-m", *SMALL, value, cwd=tmp_path)
    assert_refused(result, tmp_path, value.partition("=")[0])


# Nothing leaks from one job to the next


def test_jobs_do_not_depend_on_those_before(tmp_path: Path) -> None:
    """The last job of a sweep, bit for bit as a run of its own."""
    run = tmp_path / "sweep"
    assert sweep(run, "weights=exact,sketched", "dtype=float64,float32", "seed=3").status == 0
    alone = ntkrun(
        *(option for option in SMALL if option != "report=false"), "weights=sketched", "seed=3", cwd=tmp_path
    )
    tables = [pd.read_csv(d / "metrics.csv").drop(columns="seconds") for d in (run / "3", alone.directory)]
    assert tables[0].equals(tables[1])


@pytest.mark.long
def test_settings_of_the_process_are_put_back(tmp_path: Path) -> None:
    """A user's problem may change the default dtype; a job may change the number of threads."""
    (tmp_path / "leaky.py").write_text(
        "import torch\nfrom ntkrun.pde import Poisson\n\n\nclass Leaky(Poisson):\n"
        "    def __init__(self, a: int = 4, hard_boundary: bool = False) -> None:\n        super().__init__(a)\n"
        "        if a == 1:\n            torch.set_default_dtype(torch.float64)\n"
    )
    before, path = torch.get_num_threads(), sys.path[:]
    run = tmp_path / "sweep"
    try:
        assert sweep(run, "pde._target_=leaky.Leaky", "pde.a=1,4", "threads=1,auto").status == 0
        assert [summary(run / str(k))["threads"] for k in range(4)] == [1, before, 1, before]
        alone = ntkrun(*SMALL, "pde._target_=leaky.Leaky", cwd=tmp_path).directory
        assert_same_end(alone, run / "3")
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(before)
    assert sys.path == path


@pytest.mark.long
def test_no_figure_stays_open(tmp_path: Path) -> None:
    assert sweep(tmp_path / "sweep", "seed=0,1", "plots=true", "iterations=2").status == 0
    assert (tmp_path / "sweep" / "1" / "plots" / "losses.png").exists()
    assert not plt.get_fignums()


# Again


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("done") / "sweep"
    assert sweep(directory, "seed=0,1,2").status == 0
    return directory


def test_only_what_is_missing_is_done(done: Path, tmp_path: Path, stop_at: Callable[[int], None]) -> None:
    """A completed job is left alone, an unfinished one goes on, a new one starts."""
    run = tmp_path / "sweep"
    assert sweep(run, "seed=0").status == 0
    first = modified(run / "0")
    stop_at(13)
    assert sweep(run, "seed=0,1", "skip_completed=true").status == 143
    assert (summary(run / "1")["status"], summary(run / "1")["step"]) == ("interrupted", 13)
    stop_at(1000)
    result = sweep(run, "seed=0,1,2", "skip_completed=true")
    assert result.status == 0
    assert "job 0 completed: relative L2 error" in result.stdout
    assert "was there already" in result.stdout.splitlines()[0]
    assert modified(run / "0") == first
    assert "resuming at step 13 of 20" in (run / "1" / "ntkrun.log").read_text()
    for k in range(3):
        assert_same_end(done / str(k), run / str(k))


@pytest.mark.long
def test_a_longer_sweep_goes_on_with_its_runs(done: Path, tmp_path: Path) -> None:
    whole, longer = tmp_path / "whole", Path(shutil.copytree(done, tmp_path / "longer"))
    assert sweep(whole, "seed=0,1,2", "iterations=30", "schedule=constant").status == 0
    assert sweep(longer, "seed=0,1,2", "iterations=30", "skip_completed=true").status == 0
    assert [summary(longer / str(k))["step"] for k in range(3)] == [30, 30, 30]


def test_a_run_of_another_configuration_is_left_alone(done: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(done, tmp_path / "sweep"))
    before = {k: (run / "1" / k).read_bytes() for k in ("metrics.csv", "checkpoint.pt", "solution.npz")}
    result = sweep(run, "seed=0,7", "skip_completed=true")
    assert result.status == 1
    assert "1 failed" in result.stderr
    assert "holds a run of another configuration" in result.stderr
    assert {k: (run / "1" / k).read_bytes() for k in before} == before


# Threads


@pytest.mark.parametrize(
    ("launcher", "expected"),
    [
        ({"_target_": "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher", "n_jobs": -1}, 1),
        ({"_target_": "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher", "n_jobs": 1}, None),
        (
            {
                "_target_": "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher",
                "ray": {"remote": {"num_cpus": 3}},
            },
            3,
        ),
    ],
    ids=["all-cores", "one-at-a-time", "ray"],
)
def test_cores_are_shared_out(launcher: dict[str, Any], expected: int | None) -> None:
    from omegaconf import OmegaConf

    from ntkrun.runtime.threads import set_threads

    before = torch.get_num_threads()
    try:
        set_threads("auto", OmegaConf.create({"launcher": launcher}))
        assert torch.get_num_threads() == (available_cores() if expected is None else expected)
    finally:
        torch.set_num_threads(before)
