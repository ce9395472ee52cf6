"""Whether a long sweep in one process keeps anything of its jobs: memory, open files, figures, threads.

Usage: python scripts/long_sweep.py [--jobs 200] [--after 20] [--over rates] [key=value ...]

Runs `ntkrun -m` over seeds, learning rates or widths, four kinds of jobs in turn (exact and sketched weights, with and
without plots), by the basic launcher in this very process, and looks after every job. Prints the resident set, the open
files, the open figures and the threads after the first jobs and at the end, and leaves with exit status 1 where the
resident set has grown by 5 % or more or one of the others at all. Further overrides hold for all jobs, as
trainer.compile=true; steps of every other width are compiled anew.

The resident set of one job says little, for the kinds differ: medians over whole rounds of all kinds are compared.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from hydra.experimental.callback import Callback
from matplotlib import pyplot as plt

from ntkrun.cli.main import main as ntkrun

SMALL = ("optimizer=adam", "network.width=16", "network.depth=2", "iterations=20", "log_every=5", "pde.grid=50")
QUIET = ("progress=false", "report=false", "threads=1")
KINDS = ("weights=exact,sketched", "plots=true,false")
OVER: dict[str, Callable[[int], str]] = {  # what differs from round to round
    "seeds": lambda k: f"seed={k}",
    "rates": lambda k: f"optimizer.learning_rate={1e-4 * (1 + k):.1e}",
    "widths": lambda k: f"network.width={8 + k}",
}
GROWTH = 0.05  # of the resident set, allowed after the first jobs


@dataclass(frozen=True)
class Holdings:
    """What the process holds after a job.

    Attributes:
        memory: resident set in MiB.
        files: open file descriptors.
        figures: open figures of pyplot.
        threads: of the process.
        python_threads: those that Python knows of.
    """

    memory: float
    files: int
    figures: int
    threads: int
    python_threads: int

    @classmethod
    def now(cls) -> Holdings:
        """Look (Linux)."""
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        files = len(os.listdir("/proc/self/fd")) - 1  # without the one that is open for looking
        figures = len(plt.get_fignums())
        threads = int(fields["Threads"])
        return cls(int(fields["VmRSS"].split()[0]) / 1024, files, figures, threads, threading.active_count())


_seen: list[Holdings] = []


class Watch(Callback):
    """Hydra callback that looks after every job."""

    def on_job_end(self, config: Any, job_return: Any, **_: Any) -> None:
        """Note what the process holds."""
        _seen.append(Holdings.now())


def sweep(jobs: int, directory: Path, *overrides: str, over: str = "seeds") -> list[Holdings]:
    """Carry out jobs in this process, at least so many; returns what it held after each.

    Args:
        jobs: how many.
        directory: of the sweep.
        overrides: for all jobs.
        over: what differs from round to round, a key of ``OVER``.

    Raises:
        RuntimeError: a job failed.
    """
    _seen.clear()
    values = [OVER[over](k) for k in range(-(-jobs // 4))]
    rounds = values[0].split("=")[0] + "=" + ",".join(value.split("=")[1] for value in values)
    arguments = ["-m", *SMALL, rounds, *KINDS, *QUIET, *overrides]
    arguments += [f"hydra.sweep.dir={directory}", f"+hydra.callbacks.watch._target_={__name__}.Watch"]
    try:
        ntkrun(arguments)
    except SystemExit as end:
        if end.code != 0:
            raise RuntimeError(f"the sweep ended with exit status {end.code}") from None
    return list(_seen)


def verdicts(seen: list[Holdings], after: int) -> list[tuple[str, bool]]:
    """What has grown since the first jobs, in words, and whether it may have.

    Args:
        seen: after every job.
        after: number of first jobs, whose growth does not count; a whole number of rounds of four.
    """
    first, last = seen[after - 4 : after], seen[-4:]
    before, now = (median(h.memory for h in round_) for round_ in (first, last))
    growth = now / before - 1
    out = [(f"resident set: {before:.1f} MiB, {now:.1f} MiB, {100 * growth:+.2f} %", growth < GROWTH)]
    for name in ("files", "figures", "threads", "python_threads"):
        counts = [max(getattr(h, name) for h in part) for part in (seen[:after], seen[after:])]
        out.append((f"{name.replace('_', ' ')}: at most {counts[0]}, at most {counts[1]}", counts[1] <= counts[0]))
    return out


def main() -> None:
    """Measure, print, and leave with the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--after", type=int, default=20, help="first jobs, whose growth does not count")
    parser.add_argument("--every", type=int, default=20, help="jobs between lines")
    parser.add_argument("--over", choices=OVER, default="seeds", help="what differs from round to round")
    parser.add_argument("overrides", nargs="*", help="for all jobs")
    arguments = parser.parse_args()
    if not 4 <= arguments.after <= arguments.jobs - 4:
        parser.error("expected at least one round of four jobs before --after and one behind it")
    with tempfile.TemporaryDirectory() as directory, open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        seen = sweep(arguments.jobs, Path(directory) / "sweep", *arguments.overrides, over=arguments.over)
    print("job  resident set, MiB  files  figures  threads  Python threads")
    for k, h in enumerate(seen, start=1):
        if k == 1 or k % arguments.every == 0:
            print(f"{k:3}  {h.memory:17.1f}  {h.files:5}  {h.figures:7}  {h.threads:7}  {h.python_threads:14}")
    print(f"after {arguments.after} jobs, after {len(seen)} jobs:")
    found = verdicts(seen, arguments.after)
    for text, holds in found:
        print(f"  {text}: {'holds' if holds else 'DOES NOT HOLD'}")
    sys.exit(0 if all(holds for _, holds in found) else 1)


if __name__ == "__main__":
    main()
