"""Everything that only a card can show, in one command and under eight minutes: tests, step times, time to accuracy.

Usage: python scripts/check_gpu.py [--budget SECONDS] [--out DIRECTORY] [--device cuda]

It installs nothing and asks no package registry. A plain checkout will do; what it needs besides torch (2.11 or newer)
may lie in any directory of PYTHONPATH, and what is missing is named. Without a CUDA device it says so and ends with 0.

1. ``pytest -m cuda``: kernels, the fused pass, chunks and sketches against the host, compiled steps with and without
   CUDA graphs, steps that wait for nothing, resumed runs bit for bit, Gauss-Newton by all solvers, NCCL.
2. Seconds of a step on the cases of ``benchmark_training.py`` and two of 100,000 points, in float32 and float64, with
   fixed weights and with exact ones at every step, beside JAX where it is installed; the peak memory of each, and the
   part of the card's rate in large matrix products that those of a step amount to.
3. Seconds to an accuracy of ntkrun's default on several problems, as ``time_to_accuracy.py`` counts them, but by the
   clock.

What does not fit into the budget is left out with a note. Writes gpu.csv, a row per turn, gpu_accuracy.csv, error
against seconds, and gpu.md. Ends with status 1 where a test or a measurement failed.

``--device cpu`` does all of it with a small case on the host, to try this script.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from training.cases import Case
    from training.lead import Program

ROOT = Path(__file__).resolve().parents[1]
NEEDED = ("torch", "numpy", "pandas", "matplotlib", "tqdm", "filelock", "hydra", "omegaconf", "pydantic", "sympy")
FURTHER = ("pillow", "jinja2")  # of whole runs
LEAST_TORCH = (2, 11)
ROUNDS, TURN = 5, 0.3  # turns of every program, and seconds of each
TESTS = 0.4  # of the budget, the most
WARM = 3  # steps before any is timed: of a CUDA graph they warm up, record and replay
ACCURACY_TARGET = 1e-6
RUN_LIMIT = 60.0  # seconds of one run to an accuracy
EVERY_STEP = "weights.update_every=1"
PROBLEMS = ("burgers", "wave", "poisson", "helmholtz", "klein_gordon", "allen_cahn")


@dataclass
class Budget:
    """Seconds that are left.

    Args:
        seconds: in all.
    """

    seconds: float
    start: float = field(default_factory=time.perf_counter)

    @property
    def left(self) -> float:
        """Seconds from now to the end."""
        return self.seconds - (time.perf_counter() - self.start)


@dataclass
class Report:
    """What is found.

    Attributes:
        lines: of the page, in Markdown.
        failed: whether something failed.
    """

    lines: list[str] = field(default_factory=list)
    failed: bool = False

    def say(self, line: str = "") -> None:
        """A line of the page, which is printed as well."""
        print(line, flush=True)
        self.lines.append(line)

    def fail(self, line: str) -> None:
        """A line about something that failed."""
        self.failed = True
        self.say(f"**failed**: {line}")


def missing(names: Sequence[str]) -> list[str]:
    """Modules that cannot be imported here."""
    other = {"pillow": "PIL"}
    return [name for name in names if importlib.util.find_spec(other.get(name, name)) is None]


def about(report: Report, device: str) -> None:
    """Machine, card and versions."""
    import torch

    jax = importlib.util.find_spec("jax") is not None
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, CUDA {torch.version.cuda}"
    report.say(f"# Check on {name_of(device)}")
    report.say()
    report.say(f"`python scripts/check_gpu.py`. {versions}, JAX {'is' if jax else 'is not'} installed.")
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        capability = f"{properties.major}.{properties.minor}"
        report.say(f"{properties.total_memory / 2**30:.0f} GiB of memory, compute capability {capability}.")
    report.say()


def name_of(device: str) -> str:
    """The card, or the host, in words."""
    import torch

    return torch.cuda.get_device_name(0) if device == "cuda" else f"the host, {platform.machine()}"


def run_tests(report: Report, device: str, budget: Budget) -> None:
    """The tests of the marker, and their last line."""
    report.say("## Tests")
    report.say()
    if missing(["pytest"]):
        report.say("pytest is not installed here: no tests were run.")
        report.say()
        return
    chosen = ["-m", "cuda"] if device == "cuda" else ["-k", "cpu and (test_chunks or free_memory)"]
    # Another torch may warn of what the one of the project's own tests does not.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default", *chosen, "tests/cuda"]
    limit = max(30.0, TESTS * budget.seconds)
    start = time.perf_counter()
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit)
        text, status = done.stdout, done.returncode
        if status and not text.strip():
            text = done.stderr
    except subprocess.TimeoutExpired as stopped:
        text, status = (stopped.stdout or b"").decode(errors="replace"), -1
    seconds = time.perf_counter() - start
    last = [line for line in text.splitlines() if line.strip()][-1:]
    if status == -1:
        report.fail(f"tests were stopped after {seconds:.0f} s: {''.join(last)}")
    elif status:
        report.fail(f"tests: {''.join(last)}")
        for line in [line for line in text.splitlines() if line.startswith(("FAILED", "ERROR", "E  "))][:40]:
            report.say(f"    {line}")
    else:
        report.say(f"{''.join(last)} (`{' '.join(command[1:])}`)")
    report.say()


def product_rate(device: str, dtype: str) -> float:
    """Floating-point operations per second of a product of large square matrices: the card's rate in practice."""
    import torch

    size = 8192 if device == "cuda" else 512
    a, b = (torch.randn(size, size, device=device, dtype=getattr(torch, dtype)) for _ in range(2))

    def seconds() -> float:
        finish(device)
        start = time.perf_counter()
        for _ in range(4):
            a @ b
        finish(device)
        return (time.perf_counter() - start) / 4

    seconds()
    return 2 * size**3 / min(seconds() for _ in range(3))


def finish(device: str) -> None:
    """Wait for the device."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def measure_steps(report: Report, device: str, budget: Budget, out: Path) -> None:
    """Step times of all programs on all cases; a row per turn in ``gpu.csv``."""
    import pandas as pd
    from training.cases import LARGE, MAIN, SMALL
    from training.lead import Program

    report.say("## Seconds of a step")
    report.say()
    compiled = f"trainer.compile={str(device == 'cuda').lower()}"
    programs = [
        Program("ntkrun", "with_ntkrun", None, ("weights=none", compiled)),
        Program("ntkrun, exact weights every step", "with_ntkrun", None, ("weights=exact", EVERY_STEP, compiled)),
    ]
    if not missing(["jax"]):
        programs.append(Program("JAX", "with_jax", "jax"))
    cases = (*MAIN, *LARGE) if device == "cuda" else SMALL
    rows: list[dict[str, object]] = []
    rates = {}
    for dtype in ("float32", "float64"):
        room = budget.left - budget.seconds / 6  # which is left for the time to accuracy
        if room < 30:
            report.say(f"{dtype} is left out: {budget.left:.0f} s are left.")
            continue
        rates[dtype] = product_rate(device, dtype)
        rows += measure_dtype(report, dtype, cases, programs, device, room)
    table = pd.DataFrame(rows)
    table.to_csv(out / "gpu.csv", index=False, float_format="%.5g")
    if rows:
        write_steps(report, pd.read_csv(out / "gpu.csv"), cases, rates)  # so that the page says what the table does
    report.say()


def measure_dtype(
    report: Report, dtype: str, cases: Sequence[Case], programs: Sequence[Program], device: str, room: float
) -> list[dict[str, object]]:
    """Turns of all programs in one dtype. All start and compile side by side; then one at a time is at work."""
    from training.lead import Running

    rows: list[dict[str, object]] = []
    threads = len(os.sched_getaffinity(0))
    further = (f"device={device}", f"dtype={dtype}")
    end = time.perf_counter() + room

    def give_up(what: str, error: Exception) -> None:
        if time.perf_counter() >= end:
            report.say(f"{what} is left out: its time was up.")
        else:
            report.fail(f"{what}: {last_line(error)}")

    with ExitStack() as stack:
        running = []
        for case in cases:
            for program in programs:
                each = Running(program, case, threads, sys.executable, device, further)
                running.append((case, stack.enter_context(each)))
        watch = threading.Timer(room, lambda: [each.kill() for _, each in running])
        watch.daemon = True
        watch.start()
        stack.callback(watch.cancel)
        for _, each in running:
            each.begin(WARM)
        ready = []
        for case, each in running:
            try:
                each.end()
                ready.append((case, each))
            except RuntimeError as error:
                give_up(f"{dtype}, {case.name}, {each.program.name}", error)
        for case in cases:
            own = [each for other, each in ready if other is case]
            try:
                for each in own:
                    each.fit_turn(TURN)
                for k in range(ROUNDS):
                    for each in [*own[k % len(own) :], *own[: k % len(own)]] if own else []:
                        seconds = each.turn(each.steps)
                        about_it = {"dtype": dtype, "case": case.name, "program": each.program.name, "round": k}
                        rows.append({**about_it, "steps": each.steps, "seconds": seconds})
                for each in own:
                    held = each.peak_memory()
                    for row in rows:
                        if (row["dtype"], row["case"], row["program"]) == (dtype, case.name, each.program.name):
                            row["peak_bytes"] = held
            except RuntimeError as error:
                give_up(f"{dtype}, {case.name}", error)
    return rows


def last_line(error: Exception) -> str:
    """The end of what a program said, in one line."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{lines[0]} {lines[-1]}" if len(lines) > 1 else str(error)


def write_steps(report: Report, table: pd.DataFrame, cases: Sequence[Case], rates: dict[str, float]) -> None:
    """The table of step times: medians, ratios round by round, memory, and rates."""
    for dtype, rate in rates.items():
        report.say(f"{dtype}: products of large matrices run at {rate / 1e12:.3g} TFLOP/s here.")
    report.say()
    report.say("| dtype | case (points) | program | ms per step | times ntkrun | of that rate | peak memory, MiB |")
    report.say("|---|---|---|---:|---:|---:|---:|")
    for dtype in rates:
        for case in cases:
            own = table[(table["dtype"] == dtype) & (table["case"] == case.name)]
            if own.empty:
                continue
            wide = own.pivot(index="round", columns="program", values="seconds")
            work = 2 * sum(m * k * n for m, k, n in case.products())
            for program in own["program"].unique():
                seconds = float(wide[program].median())
                ratio = float((wide[program] / wide["ntkrun"]).median()) if "ntkrun" in wide else math.nan
                peak = own[own["program"] == program].get("peak_bytes")
                held = f"{float(peak.iloc[0]) / 2**20:,.0f}" if peak is not None and peak.notna().all() else ""
                share = 100 * work / seconds / rates[dtype]
                report.say(
                    f"| {dtype} | {case.name} ({case.points:,}) | {program} | {1e3 * seconds:.4g} | {ratio:.3g} | "
                    f"{share:.2g} % | {held} |"
                )


def measure_accuracy(report: Report, device: str, budget: Budget, out: Path) -> None:
    """Seconds of whole runs until their error is below an accuracy."""
    import pandas as pd
    from time_to_accuracy import ACCURACIES, reached
    from whole_run import whole_run

    report.say("## Time to accuracy")
    report.say()
    report.say(
        f"Defaults of ntkrun, one seed; each run ends at a relative L2 error of {ACCURACY_TARGET:.0e}, or is stopped. "
        "Seconds of training by the clock, errors included."
    )
    report.say()
    heads = " | ".join(f"{a:.0e}" for a in ACCURACIES if a >= ACCURACY_TARGET)
    tables = []
    rows = [f"| problem | {heads} | least | seconds |", f"|---|{'---:|' * (heads.count('|') + 3)}"]
    notes = []
    for problem in PROBLEMS if device == "cuda" else PROBLEMS[2:3]:
        limit = min(RUN_LIMIT, budget.left - 15)
        if limit < 15:
            notes.append(f"{problem} is left out: {max(0.0, budget.left):.0f} s are left.")
            continue
        overrides = [f"pde={problem}", "seed=0", f"device={device}", "plots=false", "progress=false"]
        every = ["log_every=2", "evaluate_every=2", f"stop.error={ACCURACY_TARGET}"]
        try:
            run = whole_run([*overrides, *every], limit=limit)
        except (RuntimeError, OSError, ValueError) as error:
            report.fail(f"{problem}: {last_line(error)}")
            continue
        curve = run.errors
        tables.append(curve.assign(problem=problem))
        cells = [reached(curve, a) for a in ACCURACIES if a >= ACCURACY_TARGET]
        words = " | ".join("" if math.isinf(each) else f"{each:.2f}" for each in cells)
        rows.append(f"| {problem} | {words} | {curve['error'].min():.1e} | {curve['seconds'].max():.1f} |")
    for line in [*rows, "", *notes]:
        report.say(line)
    if tables:
        pd.concat(tables).to_csv(out / "gpu_accuracy.csv", index=False, float_format="%.5g")


def main() -> int:
    """Check, as the command line says; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--budget", type=float, default=450.0, help="seconds in all")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks", help="where the tables go")
    arguments = parser.parse_args()
    budget, report = Budget(arguments.budget), Report()
    if absent := missing(NEEDED):
        print(f"not installed here, nor on PYTHONPATH: {', '.join(absent)}; nothing was checked")
        return 0 if "torch" in absent and arguments.device == "cuda" else 1
    import torch

    if arguments.device == "cuda" and not torch.cuda.is_available():
        print(f"torch {torch.__version__} finds no CUDA device here: nothing was checked")
        return 0
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < LEAST_TORCH:
        print(f"torch {torch.__version__} is older than {'.'.join(map(str, LEAST_TORCH))}")
        return 1
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "2")  # of each of many programs that compile side by side
    arguments.out.mkdir(parents=True, exist_ok=True)
    about(report, arguments.device)
    parts: list[Callable[[], None]] = [
        lambda: run_tests(report, arguments.device, budget),
        lambda: measure_steps(report, arguments.device, budget, arguments.out),
    ]
    if lacking := missing(FURTHER):
        report.say(f"not installed here: {', '.join(lacking)}; no whole runs were made")
    else:
        parts.append(lambda: measure_accuracy(report, arguments.device, budget, arguments.out))
    for part in parts:
        part()
    report.say()
    report.say(f"{arguments.budget - budget.left:.0f} s in all.")
    (arguments.out / "gpu.md").write_text("\n".join(report.lines) + "\n", encoding="utf-8")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
