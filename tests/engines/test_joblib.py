"""Stopping jobs that run side by side."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cli.test_resume import checkpoint, summary
from tests.engines.engine import SMALL, command, needs_joblib, rows, wait_until

pytestmark = [pytest.mark.long, *needs_joblib]
STEPS = 1_000_000


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A sweep whose first two jobs are at work, in a process group of its own as from a terminal."""
    jobs = ["-m", *SMALL, f"iterations={STEPS}", "seed=0,1,2,3", "hydra.sweep.dir=sweep"]
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    process = subprocess.Popen(
        command(*jobs, *launcher),
        cwd=tmp_path,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        wait_until(lambda: all(rows(tmp_path / "sweep" / k / "metrics.csv") > 2 for k in "01"), process)
        yield process
    finally:
        if members(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def members(group: int) -> list[int]:
    """The processes of a group that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # one that ends meanwhile
            state, _, its_group, *_ = stat.read_text().rpartition(")")[2].split()
            if int(its_group) == group and state != "Z":
                found.append(int(stat.parent.name))
    return found


def assert_stopped(folder: Path) -> None:
    for k in range(2):
        ended = summary(folder / str(k))
        assert ended["status"] == "interrupted"
        assert checkpoint(folder / str(k))["progress"]["step"] == ended["step"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_stops_all_jobs(number: signal.Signals, sweep: subprocess.Popen[str], tmp_path: Path) -> None:
    if number is signal.SIGINT:
        os.killpg(sweep.pid, number)  # as Ctrl-C does
    else:
        sweep.send_signal(number)
    stdout, _ = sweep.communicate(timeout=60)
    assert sweep.returncode == 128 + number
    assert_stopped(tmp_path / "sweep")
    assert stdout.splitlines()[-2:] == ["4 jobs: 0 completed, 4 not", str(tmp_path / "sweep")]
    wait_until(lambda: not members(sweep.pid))


def test_jobs_do_not_outlive_their_sweep(sweep: subprocess.Popen[str], tmp_path: Path) -> None:
    sweep.kill()
    wait_until(lambda: all(summary(tmp_path / "sweep" / k)["status"] != "running" for k in "01"))
    assert_stopped(tmp_path / "sweep")
    wait_until(lambda: not members(sweep.pid))


def test_the_end_tells_of_killed_workers(tmp_path: Path) -> None:
    """joblib gives the whole sweep up then."""
    (tmp_path / "killed.py").write_text(
        "import os, signal\nimport multiprocessing\nfrom ntkrun.pde import Poisson\n\n\nclass Killed(Poisson):\n"
        "    def __init__(self, a: int = 4, hard_boundary: bool = False) -> None:\n        super().__init__(a)\n"
        "        if a == 5 and multiprocessing.current_process().name != 'MainProcess':\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    jobs = ["-m", *SMALL, "iterations=20", "pde._target_=killed.Killed", "pde.a=4,5,3", "hydra.sweep.dir=sweep"]
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    done = subprocess.run(command(*jobs, *launcher), cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "ntkrun: the sweep ended early: TerminatedWorkerError: " in done.stderr
    assert "ntkrun: 1 failed: the process ended without a word; see its log" in done.stderr
    assert done.stdout.splitlines()[-2].startswith("3 jobs: ")
    assert done.stdout.splitlines()[-1] == str(tmp_path / "sweep")
