"""The beginning and the end of a sweep."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback

from ntkrun.cli.sweep_jobs import forget_jobs, noted_jobs
from ntkrun.common.errors import one_line
from ntkrun.runtime.signals import signal_passed_on
from ntkrun.storage.atomic import WriteError, writing
from ntkrun.storage.lock import NAME as LOCK
from ntkrun.storage.lock import BusyError, locked


class ForgetConfigurations(Callback):
    """Hydra callback that drops the configurations which a job returns.

    They are in its directory, nobody reads them here, and Hydra would keep those of all jobs until the sweep ends:
    a tenth of a MiB each.
    """

    def on_job_end(self, config: Any, job_return: JobReturn, **_: Any) -> None:
        """Drop them."""
        job_return.cfg = job_return.hydra_cfg = None


@dataclass
class Sweep:
    """A sweep that this process carries out, alone in its directory.

    Attributes:
        directory: of the sweep; below it are those of the jobs, unless told otherwise.
        report: whether it ends with a report.
        planned: number of its jobs; 0 where its sweeper decides on the way.
    """

    directory: Path
    report: bool
    planned: int
    _held: ExitStack = field(default_factory=ExitStack)
    _made: list[Path] = field(default_factory=list)

    def begin(self) -> None:
        """Make the directory and keep other sweeps out of it until the end.

        Raises:
            BusyError: another sweep works there.
            WriteError: the directory cannot be made.
        """
        self._made = [path for path in (self.directory, *self.directory.parents) if not path.exists()]
        with writing(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
        try:
            self._held.enter_context(locked(self.directory))
        except BusyError:
            raise BusyError(f"another process is working in {self.directory}") from None
        forget_jobs(self.directory)

    def withdraw(self) -> bool:
        """Take back a sweep that is over before its first job; returns whether it is that."""
        if noted_jobs(self.directory):
            return False
        self._held.close()
        if self._made:
            for name in ("multirun.yaml", LOCK):
                (self.directory / name).unlink(missing_ok=True)
        with suppress(OSError):  # others use it by now
            for path in self._made:
                path.rmdir()
        return True

    def finish(self, failure: str = "") -> int:
        """Say what became of the jobs, with the sweep's directory as the last line; returns the exit status.

        It is that of the signal where one has stopped the jobs.

        Args:
            failure: what has ended the sweep early.
        """
        self._held.close()
        jobs = noted_jobs(self.directory, range(self.planned))
        bad = [job for job in jobs if job.status != "completed"]
        complete = not bad and not failure
        if self.report and len(bad) < len(jobs):
            complete &= _report(self.directory, [Path(job.directory) for job in jobs if job.directory])
        print(f"{len(jobs)} jobs: {len(jobs) - len(bad)} completed, {len(bad)} not")
        if failure:
            print(f"ntkrun: the sweep ended early: {one_line(failure)}", file=sys.stderr)
        for job in bad:
            name = os.path.relpath(job.directory, self.directory) if job.directory else job.number
            print(f"ntkrun: {name} {job.status}: {one_line(job.message)}", file=sys.stderr)
        print(self.directory.resolve())
        stopped_by = signal_passed_on()
        return 128 + stopped_by if stopped_by else 0 if complete else 1


def _report(directory: Path, jobs: Sequence[Path]) -> bool:
    """Gather the runs of a sweep, wherever they are; returns whether that could be done."""
    from ntkrun.report import write_report

    try:
        print(f"report: {write_report([directory, *filter(Path.is_dir, jobs)], directory / 'report')}")
    except (WriteError, ValueError) as error:
        print(f"ntkrun: {one_line(error)}", file=sys.stderr)
        return False
    return True
