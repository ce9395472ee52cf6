"""Kill runs at random moments, resume them, and compare their ends with that of a run that was left alone.

    python scripts/kill_test.py
    python scripts/kill_test.py --kills 4 --seed 7

Every run is killed with SIGKILL at a moment drawn from its life, a good part of which is the writing of checkpoints.
Of three runs, one is killed at that moment, one as soon after it as a temporary file is there, and one at that moment
and then again at some moment after it was resumed. The exit status is 1 if any end differs.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ntkrun.cli.main import main as ntkrun

ITERATIONS = 100
RUN = [  # with everything that has a state of its own: random points, recursive sketches, smoothing, spectra
    *("pde=wave", "pde.sampling=uniform", "pde.resample_every=5", "pde.grid=20"),
    *("pde.points.residual=60", "pde.points.boundary=20", "pde.points.initial=20", "pde.points.initial_velocity=20"),
    *("weights=sketched", "weights.sketch_size=8", "weights.update_every=3", "weights.smoothing=0.5"),
    *("optimizer=adam", "weights.corrector=recursive", "network=mlp", "network.width=16", "network.depth=2"),
    *("diagnostics=spectrum", "diagnostics.steps=[50]", "diagnostics.points=10"),
    *(f"iterations={ITERATIONS}", "log_every=7", "checkpoint_every=2", "threads=1", "progress=false", "plots=false"),
]
PRELOAD = [
    "ntkrun.cli.hydra_job",
    "ntkrun.cli.preflight",
    "hydra._internal.hydra",
    "torch._dynamo",
]  # what takes seconds to import
PROCESSES = multiprocessing.get_context("forkserver")


def act(arguments: list[str], output: Path) -> None:
    """The command line, in a process of its own."""
    multiprocessing.set_start_method("fork", force=True)  # else tqdm's lock outlives a process that is killed
    with open(output, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    ntkrun(arguments)


def launch(arguments: list[str], directory: Path) -> Any:
    """Start a command whose output goes beside the run directory."""
    process = PROCESSES.Process(target=act, args=(arguments, directory.with_suffix(".txt")))
    process.start()
    return process


def finish(arguments: list[str], directory: Path) -> None:
    """Carry out a command that has to end well."""
    process = launch(arguments, directory)
    process.join()
    if process.exitcode:
        sys.exit(f"{arguments} ended with {process.exitcode}:\n{directory.with_suffix('.txt').read_text()}")


def kill(process: Any, directory: Path, moment: float, while_writing: bool) -> bool:
    """Kill a process at a moment of its life; returns whether it still lived."""
    process.join(moment)
    while while_writing and process.is_alive() and not any(directory.glob(".*.tmp")):
        pass
    alive = process.is_alive()
    process.kill()
    process.join()
    return alive and process.exitcode == -signal.SIGKILL


def phase(directory: Path) -> str:
    """What a run was doing when it was killed, by what it has left."""
    leftovers = [path.name for path in directory.rglob(".*.tmp")]
    if any(name.startswith(".checkpoint.pt") for name in leftovers):
        return "writing a checkpoint"
    if leftovers:
        return "writing another file"
    if not (directory / "ntkrun.log").exists():
        return "before the run began"
    if not (directory / "checkpoint.pt").exists():
        return "before the first checkpoint"
    step = torch.load(directory / "checkpoint.pt", weights_only=True)["progress"]["step"]
    return "between checkpoints" if step < ITERATIONS else "after the last checkpoint"


def differences(one: Path, other: Path) -> list[str]:
    """What differs between the ends of two runs, apart from times."""
    found = [name for name in ("metrics.csv", "weights.csv") if table(one / name) != table(other / name)]
    for name in ("checkpoint.pt", "best.pt"):
        a, b = (dict(flat(torch.load(directory / name, weights_only=True))) for directory in (one, other))
        same = a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a if not timed(key))
        found += [] if same else [name]
    for name in ("solution.npz", "points.npz", "spectrum.npz"):
        with np.load(one / name) as a, np.load(other / name) as b:
            found += [] if a.files == b.files and all((a[key] == b[key]).all() for key in a.files) else [name]
    names = [{str(path.relative_to(directory)) for path in directory.rglob("*")} for directory in (one, other)]
    return found + sorted(names[0] ^ names[1])


def table(path: Path) -> list[list[str]]:
    """A table as text, without times."""
    with open(path, newline="") as file:
        header, *rows = csv.reader(file)
    kept = [i for i, column in enumerate(header) if not column.endswith("seconds")]
    return [[row[i] for i in kept] for row in [header, *rows]]


def flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """All values of a checkpoint with their places."""
    if isinstance(value, dict | list):
        for k, v in value.items() if isinstance(value, dict) else enumerate(value):
            yield from flat(v, f"{key}.{k}")
    else:
        yield key, value


def timed(key: str) -> bool:
    """Whether a value of a checkpoint depends on the clock; tables, compared by themselves, hold times."""
    return ".seconds" in key or key.startswith(".tables")


def equal(a: Any, b: Any) -> bool:
    """Whether two values of a checkpoint are the same, bit for bit."""
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else bool(a == b)


def main() -> None:
    """Kill, resume, compare, and print how often that was done and what was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="runs to kill (30)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    given = parser.parse_args()
    chance = random.Random(given.seed)
    PROCESSES.set_forkserver_preload(PRELOAD)
    with tempfile.TemporaryDirectory() as temporary:
        whole = Path(temporary) / "whole"
        finish([*RUN, f"hydra.run.dir={whole}"], whole)  # the first one starts the server
        start = time.monotonic()
        finish([*RUN, f"hydra.run.dir={whole}"], whole)
        life = time.monotonic() - start
        phases: Counter[str] = Counter()
        again = changed = done = 0
        while done < given.kills:
            run = Path(temporary) / f"run-{done}"
            command = [*RUN, f"hydra.run.dir={run}"]
            if not kill(launch(command, run), run, chance.uniform(0, life), while_writing=done % 3 == 1):
                shutil.rmtree(run)
                continue  # it had ended before
            phases[phase(run)] += 1
            resume = [f"resume={run}"] if (run / ".hydra" / "overrides.yaml").exists() else command
            if done % 3 == 2 and kill(launch(resume, run), run, chance.uniform(0, life), while_writing=False):
                again += 1
                phases[phase(run)] += 1
            finish(resume, run)
            if different := differences(whole, run):
                changed += 1
                print(f"run {done} ended differently: {', '.join(different)}")
            done += 1
    print(f"life of the run left alone: {life:.1f} s, {ITERATIONS // 2} checkpoints")
    for name, count in phases.most_common():
        print(f"killed {name}: {count}")
    print(f"{done} runs killed, {again} of them again after resuming; ends that differ: {changed}")
    sys.exit(1 if changed else 0)


if __name__ == "__main__":
    main()
