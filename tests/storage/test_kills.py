"""SIGKILL, and processes that want the same folder or the same run. Processes are forked from one that has torch."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from ntkrun.cli.main import main
from ntkrun.storage.checkpoint import load_checkpoint
from tests.cli.test_resume import SMALL, assert_resume_refused, assert_same_end, resume, start, summary

pytestmark = pytest.mark.long

SCRIPT = Path(__file__).parents[2] / "scripts" / "kill_test.py"
TOGETHER = 16


@pytest.fixture(scope="module")
def processes() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["ntkrun.cli.hydra_job", "ntkrun.cli.preflight", "hydra._internal.hydra", "torch._dynamo"]
    )
    return context


def act(arguments: list[str], folder: Path, barrier: Barrier) -> None:
    multiprocessing.set_start_method("fork", force=True)  # else tqdm's lock outlives a process that is killed
    os.chdir(folder)
    with open(f"{os.getpid()}.txt", "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    barrier.wait()
    main(arguments)


def test_killed_runs_end_like_those_left_alone() -> None:
    """The script's own thirty runs in small: killed anywhere, while writing, and again after resuming."""
    killed = subprocess.run([sys.executable, str(SCRIPT), "--kills", "3"], capture_output=True, text=True)
    assert killed.returncode == 0, killed.stdout + killed.stderr
    last = killed.stdout.splitlines()[-1]
    assert re.fullmatch(r"3 runs killed, \d of them again after resuming; ends that differ: 0", last)


def test_a_run_in_progress_is_not_resumed_and_one_that_was_killed_is(processes: Any, tmp_path: Path) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    long = [*SMALL, "schedule=constant", "iterations=1000000", "checkpoint_every=17", "trainer.compile=false"]
    command = [*long, f"hydra.run.dir={run}"]
    alone = processes.Barrier(1)
    process = processes.Process(target=act, args=(command, tmp_path, alone))
    process.start()
    try:
        deadline = time.monotonic() + 60
        while not (run / "checkpoint.pt").exists():
            assert process.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGSTOP)  # so that it changes nothing while that is looked at
        assert_resume_refused(run, [], f"another process is working on the run in {run}")
    finally:
        process.kill()
        process.join()
    assert process.exitcode == -signal.SIGKILL
    assert summary(run)["status"] == "running"
    step = load_checkpoint(run).state["progress"]["step"]
    assert resume(run, f"iterations={step + 5}").status == 0
    assert start(whole, "schedule=constant", f"iterations={step + 5}").status == 0
    assert_same_end(whole, run)


def test_runs_that_start_together_have_whole_directories_of_their_own(processes: Any, tmp_path: Path) -> None:
    barrier = processes.Barrier(TOGETHER)
    command = [*SMALL, "iterations=6"]
    jobs = [
        processes.Process(target=act, args=([*command, f"seed={seed}"], tmp_path, barrier)) for seed in range(TOGETHER)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0] * TOGETHER
    directories = [path.parent for path in tmp_path.rglob("summary.json")]
    assert len(directories) == TOGETHER
    assert sorted(json.loads((d / "summary.json").read_text())["seed"] for d in directories) == list(range(TOGETHER))
    for directory in directories:
        assert summary(directory)["status"] == "completed"
        with open(directory / "metrics.csv") as file:
            assert [row["step"] for row in csv.DictReader(file)] == ["0", "5", "6"]
        state = load_checkpoint(directory)
        assert (state.trouble, state.state["progress"]["step"]) == ("", 6)
    printed = {path.read_text().splitlines()[-1] for path in tmp_path.glob("*.txt")}
    assert printed == {str(directory) for directory in directories}
