"""The ends of a sweep and of its jobs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback

from ntkrun.experiment.results import read_summary, take_refusal
from ntkrun.runtime.signals import signal_passed_on
from ntkrun.storage.atomic import WriteError


@dataclass(frozen=True)
class Job:
    """One job of a sweep, as its directory tells.

    Attributes:
        directory: the run directory.
        status: ``completed``, ``failed`` or ``interrupted``; ``failed`` also where the process was lost.
        message: one line about a failure.
    """

    directory: Path
    status: str
    message: str


class ForgetConfigurations(Callback):
    """Hydra callback that drops the configurations which a job returns.

    They are in its directory, nobody reads them here, and Hydra would keep those of all jobs until the sweep ends:
    a tenth of a MiB each.
    """

    def on_job_end(self, config: Any, job_return: JobReturn, **_: Any) -> None:
        """Drop them."""
        job_return.cfg = job_return.hydra_cfg = None


def find_jobs(directory: Path) -> list[Job]:
    """All jobs below a sweep's directory, in the order of their numbers."""
    jobs = []
    for hydra in directory.rglob(".hydra"):
        summary = read_summary(hydra.parent)
        status, message = str(summary.get("status", "interrupted")), str(summary.get("message", "before it started"))
        if refusal := take_refusal(hydra.parent):
            status, message = "failed", refusal
        elif status == "running":
            status, message = "failed", "the process ended without a word; see its log"
        jobs.append(Job(hydra.parent, status, message))
    return sorted(jobs, key=lambda job: (len(job.directory.name), str(job.directory)))


def finish_sweep(directory: Path, report: bool) -> int:
    """Say what became of the jobs, with the sweep's directory as the last line; returns the exit status.

    It is that of the signal where one has stopped the jobs.

    Args:
        directory: of the sweep.
        report: gather the runs into a report.
    """
    jobs = find_jobs(directory)
    bad = [job for job in jobs if job.status != "completed"]
    complete = not bad
    if report and any(job.status == "completed" for job in jobs):
        from ntkrun.report import write_report

        try:
            print(f"report: {write_report([directory], directory / 'report')}")
        except WriteError as error:
            print(f"ntkrun: {error}", file=sys.stderr)
            complete = False
    print(f"{len(jobs)} jobs: {len(jobs) - len(bad)} completed, {len(bad)} not")
    for job in bad:
        print(f"ntkrun: {job.directory.relative_to(directory)} {job.status}: {job.message}", file=sys.stderr)
    print(directory.resolve())
    stopped_by = signal_passed_on()
    return 128 + stopped_by if stopped_by else 0 if complete else 1
