"""A sweep ends in the same way, whoever carries out its jobs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.cli.test_resume import assert_same_end, summary
from tests.driver import ntkrun
from tests.engines.engine import SMALL, command, needs_joblib, needs_ray, needs_slurm

pytestmark = pytest.mark.long

PROBLEM = """
from ntkrun.pde import Poisson

class Mine(Poisson):
    def __init__(self, a: int = 4, hard_boundary: bool = False) -> None:
        super().__init__(a)
"""
JOBS = [*SMALL, "pde._target_=mine.Mine", "iterations=40", "optimizer=gradient_descent"]
RATES = ("1e-6", "1e20", "1e-7")


@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param(["hydra/launcher=joblib"], id="joblib", marks=needs_joblib),
        pytest.param(
            ["hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1"], id="slurm", marks=needs_slurm
        ),
        pytest.param(["hydra/launcher=ray", "+hydra.launcher.ray.init.log_to_driver=false"], id="ray", marks=needs_ray),
    ],
)
def test_jobs_of_other_processes(launcher: list[str], tmp_path: Path) -> None:
    """They share one directory, import the user's problem, take one core each, and fail alone."""
    (tmp_path / "mine.py").write_text(PROBLEM)
    rates = f"optimizer.learning_rate={','.join(RATES)}"
    environment = {**os.environ, "HOME": str(tmp_path)}  # where Ray leaves a file
    ended = subprocess.run(
        command("-m", *JOBS, rates, *launcher), cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 1, ended.stderr
    *_, count, last = ended.stdout.splitlines()
    assert count == "3 jobs: 2 completed, 1 not"
    sweeps = list((tmp_path / "outputs" / "multirun").glob("*/*"))
    assert sweeps == [Path(last)]
    summaries = [summary(sweeps[0] / str(k)) for k in range(3)]
    assert [s["status"] for s in summaries] == ["completed", "failed", "completed"]
    assert [s["threads"] for s in summaries] == [1, 1, 1]
    assert f"ntkrun: 1 failed: {summaries[1]['message']}" in ended.stderr
    assert "it/s" not in ended.stderr
    assert "Traceback" not in ended.stderr
    alone = ntkrun(*JOBS, f"optimizer.learning_rate={RATES[2]}", "threads=1", "progress=false", cwd=tmp_path)
    assert_same_end(alone.directory, sweeps[0] / "2")
