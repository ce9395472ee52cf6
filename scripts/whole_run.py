"""A run as a command of its own, from the start of its process to its exit; what scripts that measure runs share."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class WholeRun:
    """What came of a run.

    Attributes:
        summary: its ``summary.json``.
        metrics: its ``metrics.csv``.
        seconds: of the whole process.
        cpu_seconds: of all its threads.
    """

    summary: Mapping[str, Any]
    metrics: pd.DataFrame
    seconds: float
    cpu_seconds: float

    @property
    def errors(self) -> pd.DataFrame:
        """The rows that have an error: step, seconds of the run, relative L2 error."""
        known = self.metrics.dropna(subset="error/rel_l2")
        return known.rename(columns={"error/rel_l2": "error"})[["step", "seconds", "error"]]

    @property
    def around(self) -> float:
        """Seconds of the process before the first step and after the last one."""
        return self.seconds - float(self.metrics["seconds"].iloc[-1])


def whole_run(
    overrides: Sequence[str],
    python: str = sys.executable,
    limit: float | None = None,
    within: Path | None = None,
) -> WholeRun:
    """Carry out ``ntkrun OVERRIDES`` in a process of its own and a directory that is removed again.

    Args:
        overrides: as on the command line.
        python: which has ntkrun.
        limit: seconds after which it is asked to stop, and counts as it is then.
        within: the working directory, where modules of problems of one's own are found; without, an empty one.

    Raises:
        RuntimeError: it ended with another exit status than 0; its last words are the message.
    """
    with tempfile.TemporaryDirectory() as place:
        command = [python, "-m", "ntkrun", *overrides, f"hydra.run.dir={place}/run"]
        start, before = time.perf_counter(), os.times()
        process = subprocess.Popen(
            command, cwd=within or place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        stopped = 0
        try:
            _, said = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            process.terminate()
            stopped = 128 + signal.SIGTERM
            _, said = process.communicate()
        seconds, after = time.perf_counter() - start, os.times()
        if process.returncode not in (0, stopped):
            raise RuntimeError(f"{' '.join(overrides)}: {said[-2000:]}")
        summary = json.loads((Path(place) / "run" / "summary.json").read_text(encoding="utf-8"))
        metrics = pd.read_csv(Path(place) / "run" / "metrics.csv")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return WholeRun(summary, metrics, seconds, cpu)


def solve(problem: str, seed: int, further: Sequence[str], within: Path | None) -> dict[str, str | float | int]:
    """Run a problem as a command; its final and best error, seconds in all and of training, and steps."""
    done = whole_run([f"pde={problem}", f"seed={seed}", *further], within=within)
    return {
        "problem": problem,
        "seed": seed,
        "error": done.summary["rel_l2"]["final"],
        "best_error": done.summary["rel_l2"]["best"],
        "seconds": done.seconds,
        "cpu_seconds": done.cpu_seconds,
        "training_seconds": done.summary["seconds"]["training"],
        "steps": done.summary["step"],
    }


def solve_all(
    file: Path, problems: Sequence[str], seeds: Sequence[int], further: Sequence[str] = (), within: Path | None = None
) -> Iterator[pd.DataFrame]:
    """Run problems from seeds, one after the other; yields the table of all runs at first and after each.

    Args:
        file: the table as CSV, written after each; rows of other problems and seeds stay.
        problems: what is run.
        seeds: with each.
        further: what is added to every command line.
        within: see ``whole_run``.
    """
    rows: list[dict[Any, Any]] = pd.read_csv(file).to_dict("records") if file.exists() else []
    yield pd.DataFrame(rows)
    for seed in seeds:
        for problem in problems:
            new = solve(problem, seed, further, within)
            print(
                ", ".join(f"{k} {f'{v:.3g}' if isinstance(v, int | float) else v}" for k, v in new.items()), flush=True
            )
            rows = [row for row in rows if (row["problem"], row["seed"]) != (problem, seed)] + [new]
            pd.DataFrame(rows).sort_values(["problem", "seed"]).to_csv(file, index=False, float_format="%.4g")
            yield pd.DataFrame(rows)
