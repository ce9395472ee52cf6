"""Jobs that Slurm stops and starts again."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.test_resume import assert_same_end, checkpoint, summary
from tests.driver import ntkrun
from tests.engines.engine import SMALL, command, needs_slurm, rows, wait_until

pytestmark = needs_slurm
RUN = [*SMALL, "iterations=2000", "threads=1", "progress=false"]
SWEEP = ["-m", *RUN, "seed=0", "hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1"]


@dataclass(frozen=True)
class Ended:
    """A run that has been disturbed at a step."""

    directory: Path
    step: int


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbs."""
    return ntkrun(*RUN, cwd=tmp_path_factory.mktemp("whole")).directory


def slurm(*arguments: str) -> str:
    return subprocess.run(arguments, capture_output=True, text=True).stdout.strip()


def started_again(job: str) -> bool:
    """Whether a job runs for the second time; it need not wait for two minutes, as Slurm lets it."""
    about = slurm("scontrol", "show", "job", job)
    if "JobState=PENDING" in about:
        slurm("scontrol", "update", f"JobId={job}", "StartTime=now")
    return "Restarts=0" not in about and "JobState=RUNNING" in about


def disturb(directory: Path, job: str, *how: str) -> int:
    """Have a job stopped and started again; returns the step at which it stopped."""
    wait_until(lambda: rows(directory / "metrics.csv") > 10)
    slurm(*how, job)
    wait_until(lambda: summary(directory)["status"] == "interrupted")
    step = int(summary(directory)["step"])
    assert checkpoint(directory)["progress"]["step"] == step
    wait_until(lambda: started_again(job))
    return step


def run_sweep(folder: Path, how: tuple[str, ...], *more: str) -> Ended:
    """A sweep of one job that is disturbed."""
    name, run = folder.name, folder / "sweep"
    process = subprocess.Popen(
        command(*SWEEP, f"hydra.sweep.dir={run}", f"hydra.launcher.name={name}", *more),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        wait_until(lambda: bool(slurm("squeue", "-h", "-n", name, "-o", "%A")), process)
        step = disturb(run / "0", slurm("squeue", "-h", "-n", name, "-o", "%A"), *how)
        stdout, _ = process.communicate(timeout=60)
    finally:
        slurm("scancel", f"--name={name}")
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert stdout.splitlines()[-2:] == ["1 jobs: 1 completed, 0 not", str(run)]
    return Ended(run / "0", step)


def requeued_by_slurm(folder: Path) -> Ended:
    return run_sweep(folder, ("scontrol", "requeue"))


def requeued_by_submitit(folder: Path) -> Ended:
    """What happens shortly before the end of a job's time, which is short enough here to seem over at once."""
    return run_sweep(
        folder, ("scancel", "--signal=USR2"), "hydra.launcher.timeout_min=5", "hydra.launcher.max_num_timeout=1"
    )


def run_by_itself(folder: Path) -> Ended:
    run = folder / "run"
    script = shlex.join(command(*RUN, f"hydra.run.dir={run}"))
    job = slurm("sbatch", "--parsable", "--requeue", f"--chdir={folder}", f"--wrap=exec {script}")
    try:
        step = disturb(run, job, "scontrol", "requeue")
        wait_until(lambda: summary(run)["status"] == "completed")
        wait_until(lambda: not slurm("squeue", "-h", "-j", job, "-t", "running,completing"))
    finally:
        slurm("scancel", job)
    return Ended(run, step)


CASES = {case.__name__: case for case in (requeued_by_slurm, requeued_by_submitit, run_by_itself)}


@pytest.fixture(scope="module")
def running(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Ended]]]:
    """All cases at once, for most of their time is waiting."""
    with ThreadPoolExecutor(len(CASES)) as pool:
        yield {name: pool.submit(case, tmp_path_factory.mktemp(name)) for name, case in CASES.items()}


@pytest.mark.parametrize("name", CASES)
def test_a_job_goes_on_where_it_stopped(name: str, whole: Path, running: dict[str, Future[Ended]]) -> None:
    ended = running[name].result()
    assert summary(ended.directory)["status"] == "completed"
    assert f"resuming at step {ended.step} of 2000" in (ended.directory / "ntkrun.log").read_text()
    assert_same_end(whole, ended.directory)


def test_a_job_that_gives_way_to_another_goes_on(whole: Path, tmp_path: Path) -> None:
    """Within the time of grace, in which Slurm leaves it to the job to be requeued."""
    partitions = slurm("sinfo", "-h", "-o", "%R").split()
    if not {"low", "high"} <= set(partitions):
        pytest.skip("this Slurm has no partitions low and high")
    urgent = f"sbatch -p high --exclusive -o {tmp_path}/urgent.log --wrap true; : "
    ended = run_sweep(tmp_path, ("bash", "-c", urgent), "hydra.launcher.partition=low")
    assert f"resuming at step {ended.step} of 2000" in (ended.directory / "ntkrun.log").read_text()
    assert_same_end(whole, ended.directory)
