"""Memory and speed of training on many collocation points.

Trains some steps of the wave equation with exact kernel weights at every step, on 10^4, 10^5 and 10^6 residual points,
each as a command of its own, and prints the peak memory and the seconds per step. Then it trains on 10^5 points, in
turn, with one process, with two processes that share them out, and with two that train on half the points each and know
nothing of each other: so fast the machine lets two processes be. All have one thread. It ends with status 1 where the
memory of a case is above the bound: that of the program itself, as much as a chunk may take (1 GiB), and 200 bytes per
point for their coordinates and what is made of them once.

    python scripts/large_case.py
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

CHUNK = 1024.0  # MiB, by ntkrun.objective.chunked.MEMORY
PER_POINT = 200 / 2**20  # MiB


def run(directory: Path, points: int, steps: int, processes: int = 1, threads: int = 1, *further: str) -> list[float]:
    """Peak memory of a process in MiB, and seconds per step, of a run as a command."""
    start = ["-m", "ntkrun"] if processes == 1 else ["-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    arguments = [
        *("pde=wave", "optimizer=adam", f"pde.points.residual={points}", "pde.resample_every=null", "weights=exact"),
        *("weights.update_every=1", f"iterations={steps}", f"threads={threads}", "log_every=1000", "keep_best=false"),
        *("plots=false", "progress=false", f"hydra.run.dir={directory}", *further),
    ]
    command = [sys.executable, *start, *(["-m", "ntkrun"] if processes > 1 else []), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    log = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(log)
    seconds = json.loads((directory / "summary.json").read_text())["seconds"]
    return [usage.ru_maxrss / 1024, (seconds["training"] + seconds["weight_updates"]) / steps]


def memory(directory: Path, sizes: Sequence[int], steps: int) -> bool:
    """Print the table of memory; returns whether all cases are within the bound."""
    program, _ = run(directory / "program", 100, 1)
    print(f"the program itself: {program:.0f} MiB\n")
    print("| points | peak memory, MiB | bound, MiB | seconds per step | microseconds per point |")
    print("|---|---|---|---|---|")
    within = True
    for points in sizes:
        peak, seconds = run(directory / str(points), points, steps)
        bound = program + CHUNK + PER_POINT * points
        within = within and peak <= bound
        print(f"| {points} | {peak:.0f} | {bound:.0f} | {seconds:.3f} | {seconds / points * 1e6:.1f} |", flush=True)
    return within


def speed(directory: Path, points: int, steps: int, rounds: int) -> None:
    """Print the seconds per step of one process, of two, and of two that exchange nothing, in turn."""
    to_one, to_apart = [], []
    for k in range(rounds):
        (_, one), (_, two) = (run(directory / f"{n}-{k}", points, steps, n) for n in (1, 2))
        with ThreadPoolExecutor() as pool:
            halves = pool.map(lambda half, k=k: run(directory / f"{half}-{k}", points // 2, steps)[1], ("a", "b"))
            apart = max(halves)
        to_one.append(two / one)
        to_apart.append(two / apart)
        print(f"one process {one:.3f} s, two {two:.3f} s, two that exchange nothing {apart:.3f} s", flush=True)
    print(f"median ratios: two to one {median(to_one):.2f}, two to two that exchange nothing {median(to_apart):.2f}")


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, nargs="+", default=[10**4, 10**5, 10**6], help="residual points")
    parser.add_argument("--steps", type=int, default=3, help="steps of every run")
    parser.add_argument("--rounds", type=int, default=3, help="how often to measure one and two processes")
    parser.add_argument("--shared", type=int, default=10**5, help="residual points of the runs on two processes")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        within = memory(Path(name), arguments.points, arguments.steps)
        print()
        speed(Path(name), arguments.shared, arguments.steps, arguments.rounds)
    if not within:
        sys.exit("the memory of a case is above its bound")


if __name__ == "__main__":
    main()
