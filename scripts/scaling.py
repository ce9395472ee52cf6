"""Weak scaling over one and two processes, and a model of what processes exchange.

Trains some steps with as many points per process, on one process, on two that torchrun starts, and on two that know
nothing of each other (so fast the machine lets two be), in turn and with one thread each: Adam with exact weights at
every step, and Gauss-Newton on the side of the parameters and on that of the kernel. Every process counts the bytes
that it hands to the others. Writes docs/benchmarks/scaling.csv and scaling.md, with the times, the counted bytes
beside those of the model, and the model for 8 to 1,024 processes.

    python scripts/scaling.py
    python scripts/scaling.py --model-only   # the page again, from scaling.csv if it is there, without any run
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "docs" / "benchmarks"
DOUBLE = 8  # bytes
LATENCY, RATE = 5e-6, 25e9  # of the network of the model: seconds per message, bytes per second and process
FLOPS = 2e12  # of a process of the model, per second, in float64
MiB = 2**20

COUNTING = """
import json, os, sys, time
from pathlib import Path
import torch
import ntkrun.runtime.distributed as ours
from ntkrun.steps.eager import Stepper

steps, calls = [0], []
original, exchange, step = ours.Ranks.sum, ours.Ranks.exchange, Stepper.step

def counted(self, tensor):
    calls.append((steps[0], tensor.numel() * tensor.element_size()))
    return original(self, tensor)

def counted_exchange(self, parts, sizes):
    calls.append((steps[0], sum(part.numel() * part.element_size() for part in parts)))
    return exchange(self, parts, sizes)

def counted_step(self, *given):
    steps[0] += 1
    before, start = len(calls), time.perf_counter()
    try:
        return step(self, *given)
    finally:
        inside.append((len(calls) - before, sum(size for _, size in calls[before:]), start))

inside = []
ours.Ranks.sum, ours.Ranks.exchange, Stepper.step = counted, counted_exchange, counted_step
out = Path(sys.argv.pop(1))
from ntkrun.cli.main import main
try:
    main()
finally:
    if os.environ.get("RANK", "0") == "0":
        out.write_text(json.dumps(inside))
"""


@dataclass(frozen=True)
class Case:
    """What is trained.

    Attributes:
        name: of the case.
        points: of the residual, per process.
        settings: of the run.
    """

    name: str
    points: int
    settings: tuple[str, ...]


COMMON: tuple[str, ...] = (
    "pde=wave",
    "pde.sampling=sobol",
    "pde.resample_every=null",
    "pde.hard_boundary=false",
    "dtype=float64",
    "log_every=1000",
    "threads=1",
)
COMMON += ("keep_best=false", "plots=false", "progress=false", "pde.grid=10", "weights=exact", "weights.update_every=1")
COMMON += (
    "pde.points.boundary=100",
    "pde.points.initial=100",
    "pde.points.initial_velocity=100",
    "trainer.compile=false",
    "network.depth=2",
)
GAUSS_NEWTON = ("optimizer=gauss_newton", "optimizer.solver=cholesky")
CASES = (
    Case("adam", 20_000, ("optimizer=adam", "network.width=64")),
    Case("gauss_newton, parameters", 2_000, (*GAUSS_NEWTON, "network.width=20")),
    Case("gauss_newton, kernel", 300, (*GAUSS_NEWTON, "network.width=48")),
)

KINDS = ("one", "two", "apart")
TERMS = 4  # of the wave
WARM = 2  # steps that are not timed: buffers and connections are made in them
OTHERS = 300  # rows of its boundary and initial conditions
COLUMNS = ("case", "kind", "round", "points", "parameters", "seconds_per_step", "calls_per_step", "bytes_per_step")


def run(case: Case, kind: str, directory: Path, steps: int) -> dict[str, Any]:
    """One run as a command; its seconds (from one step to the next, the median), calls and bytes per step."""
    processes = 2 if kind == "two" else 1
    counter = directory.with_suffix(".py")
    counter.parent.mkdir(parents=True, exist_ok=True)
    counter.write_text(COUNTING)
    counts = directory.with_suffix(".json")
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    arguments = [*COMMON, *case.settings, f"pde.points.residual={case.points * processes}", f"iterations={steps}"]
    command = [*start, str(counter), str(counts), *arguments, f"hydra.run.dir={directory}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if result.returncode:
        sys.exit(result.stderr)
    summary = json.loads((directory / "summary.json").read_text())
    inside = json.loads(counts.read_text())
    starts = [start for _, _, start in inside]
    return {
        "points": case.points * processes,
        "parameters": summary["parameters"],
        "seconds_per_step": median(after - before for before, after in pairwise(starts[WARM:])),
        "calls_per_step": sum(calls for calls, _, _ in inside) / steps,
        "bytes_per_step": sum(size for _, size, _ in inside) / steps,
    }


def measure(case: Case, rounds: int, steps: int, folder: Path) -> list[dict[str, Any]]:
    """Rows of scaling.csv."""
    rows = []
    for k in range(rounds):
        for kind in KINDS:
            base = folder / f"{case.name.replace(', ', '-')}-{kind}-{k}"
            if kind == "apart":
                with ThreadPoolExecutor() as pool:
                    both = list(pool.map(lambda half, base=base: run(case, "one", base / half, steps), "ab"))
                found = max(both, key=lambda each: each["seconds_per_step"])
            else:
                found = run(case, kind, base, steps)
            rows.append({"case": case.name, "kind": kind, "round": k, **found})
            print(case.name, kind, f"{found['seconds_per_step']:.4f} s", flush=True)
    return rows


def exchanged(kind: str, terms: int, parameters: int, rows: int, processes: int) -> float:
    """Numbers that a process hands to others in a step, without vectors of the length of rows or parameters.

    Losses, traces and gradients of every term; or J'J; or its own rows in everybody's columns, and JJ'.
    """
    if kind == "adam":
        return terms * (2 + parameters)
    return parameters**2 if kind == "parameters" else rows * parameters / processes + rows**2


def seconds(numbers: float, processes: int, messages: int = 1) -> float:
    """Of an all-reduce of so many float64: 2 log2 R latencies, and 2 (R - 1) / R of the bytes through every process."""
    latency = 2 * (processes - 1).bit_length() * LATENCY * messages
    return latency + 2 * (processes - 1) / processes * DOUBLE * numbers / RATE


@dataclass(frozen=True)
class Modelled:
    """A step in the model, in seconds.

    Attributes:
        shared: work that is shared out.
        each: work that every process does alike.
        exchange: of what must be handed round.
        numbers: that are exchanged.
    """

    shared: float
    each: float
    exchange: float
    numbers: float

    @property
    def efficiency(self) -> float:
        """The part of the time that goes into work that is shared out."""
        return self.shared / (self.shared + self.each + self.exchange)


def adam(processes: int, points: int = 10**5, parameters: int = 10**6, streams: int = 6, terms: int = 3) -> Modelled:
    """So many points per process: forward and backward passes of Taylor mode against one gradient per term."""
    numbers = exchanged("adam", terms, parameters, 0, processes)
    work = 3 * 2 * parameters * streams * points / FLOPS
    return Modelled(work, 0.0, seconds(numbers, processes), numbers)


def parameter_side(processes: int, rows: int = 20_000, parameters: int = 5_000) -> Modelled:
    """So many rows per process: J'J of them, half of which is computed, and a Cholesky factor by everybody."""
    numbers = exchanged("parameters", 0, parameters, 0, processes)
    return Modelled(rows * parameters**2 / FLOPS, parameters**3 / 3 / FLOPS, seconds(numbers, processes), numbers)


def kernel_side(processes: int, rows: int = 5_000, parameters: int = 10**6) -> Modelled:
    """So many rows in all: an all-to-all of rows in columns, whose share each process multiplies, and JJ' added up."""
    numbers = exchanged("kernel", 0, parameters, rows, processes)
    strips = -(-rows * parameters * DOUBLE // (256 * MiB * processes))
    columns = (processes - 1) * (strips * LATENCY + DOUBLE * rows * parameters / processes**2 / RATE)
    work = rows**2 * parameters / processes / FLOPS
    return Modelled(work, rows**3 / 3 / FLOPS, columns + seconds(rows**2, processes), numbers)


def model_table() -> str:
    """The model for 8 to 1,024 processes."""
    lines = [
        "| processes | Adam: shared, exchange | efficiency | parameter side: shared, each, exchange | efficiency "
        "| kernel side: shared, each, exchange | efficiency |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for processes in (8, 16, 32, 64, 128, 256, 512, 1024):
        a, p, k = adam(processes), parameter_side(processes), kernel_side(processes)
        lines.append(
            f"| {processes:,} | {1e3 * a.shared:,.0f}, {1e3 * a.exchange:.1f} | {a.efficiency:.2f} "
            f"| {1e3 * p.shared:.0f}, {1e3 * p.each:.0f}, {1e3 * p.exchange:.1f} | {p.efficiency:.2f} "
            f"| {1e3 * k.shared:,.0f}, {1e3 * k.each:.0f}, {1e3 * k.exchange:,.0f} | {k.efficiency:.2f} |"
        )
    return "\n".join(lines)


def measured_table(rows: Sequence[dict[str, Any]]) -> str:
    """Medians of times, and counted bytes beside those of the model."""
    lines = [
        "| case | points, one and two | parameters | one, s | two, s | apart, s | one / two | apart / two "
        "| exchanges per step | MiB per step | of the model |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for case in CASES:
        own = {kind: [row for row in rows if row["case"] == case.name and row["kind"] == kind] for kind in KINDS}
        if not all(own.values()):
            continue
        one, two, apart = (median(float(row["seconds_per_step"]) for row in own[kind]) for kind in KINDS)
        last = own["two"][-1]
        parameters, points = int(last["parameters"]), int(last["points"])
        side = case.name.rpartition(" ")[2]
        expected = DOUBLE * exchanged(side, TERMS, parameters, points + OTHERS, 2) / MiB
        lines.append(
            f"| {case.name} | {points // 2:,}, {points:,} | {parameters:,} | {one:.3f} | {two:.3f} | {apart:.3f} "
            f"| {one / two:.2f} | {apart / two:.2f} | {float(last['calls_per_step']):.1f} "
            f"| {float(last['bytes_per_step']) / MiB:.2f} | {expected:.2f} |"
        )
    return "\n".join(lines)


def write(rows: Sequence[dict[str, Any]]) -> None:
    """Write scaling.csv and scaling.md; the model alone where nothing has been measured."""
    if rows:
        with open(BENCHMARKS / "scaling.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    rounds = 1 + max((int(row["round"]) for row in rows), default=-1)
    text = "# Several processes: measured for two, modelled for more\n\nMade by `python scripts/scaling.py"
    text += "`.\n" if rows else " --model-only`; nothing has been measured yet.\n"
    if rows:
        text += (
            "\n## Measured\n\nAs many points per process, Gloo, one thread each, float64, not compiled, medians of "
            f"{rounds} round{'s' * (rounds > 1)}, in turn on two cores of a shared machine. *Apart* are two runs side "
            "by side that exchange nothing: so fast the machine lets two be. Bytes are those that every process hands "
            "to the others; those of the model leave out vectors as long as the rows or the parameters.\n\n"
            f"{measured_table(rows)}\n"
        )
    text += (
        f"\n## Modelled\n\n**A model, not a measurement.** Processes of {FLOPS / 1e12:g} TFLOP/s in float64, a network "
        f"of {RATE / 1e9:g} GB/s per process and {LATENCY * 1e6:g} µs per message; milliseconds per step. Adam: 10⁵ "
        "points per process, 10⁶ parameters, three terms, six streams. Parameter side: 20,000 rows per process, 5,000 "
        "parameters. Kernel side: 5,000 rows in all, 10⁶ parameters.\n\n"
        f"{model_table()}\n\nWhat follows is said in [Performance](../performance.md#a-model-for-many-processes).\n"
    )
    (BENCHMARKS / "scaling.md").write_text(text, encoding="utf-8")


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often to measure each")
    parser.add_argument("--steps", type=int, default=20, help="steps of every run")
    parser.add_argument("--cases", nargs="+", choices=[case.name for case in CASES], help="some of them")
    parser.add_argument("--model-only", action="store_true", help="the page again from scaling.csv")
    arguments = parser.parse_args()
    if arguments.model_only:
        measured = BENCHMARKS / "scaling.csv"
        with open(measured if measured.exists() else os.devnull, newline="", encoding="utf-8") as file:
            write(list(csv.DictReader(file)))
        return
    cases = [case for case in CASES if arguments.cases is None or case.name in arguments.cases]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        for case in cases:
            rows += measure(case, arguments.rounds, arguments.steps, Path(name))
            write(rows)


if __name__ == "__main__":
    main()
