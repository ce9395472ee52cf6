"""How long a training step takes in ntkrun, in DeepXDE, in PINA and in plain JAX, beside the arithmetic it needs.

Usage: python scripts/benchmark_training.py --python rivals/bin/python [--threads T] [--cases NAME ...]
       python scripts/benchmark_training.py --plot-only

after

    python3 -m venv rivals && rivals/bin/pip install -c constraints.txt 'torch==2.13.0' '.[benchmark]'

with the same torch as ours. Programs that the given Python lacks are named and left out.

All programs train the same network from the same initial values at the same points, which stay fixed, so that the step
alone is compared, with the same unweighted loss, with Adam, in float32 and on the same cores. That they do the same is
checked: after 10 steps the parameters must have moved alike. ntkrun is timed in its own training loop, compiled
(trainer.compile=true); compilation, like that of JAX, comes before. DeepXDE makes the calls of its own loop, and PINA
is in its own trainer. `matrix products` are those alone that a step in Taylor mode cannot do without, by torch: the
arithmetic floor of a step.

Every program waits in a warm process of its own and has its turn in every round, in changing order. Ratios are formed
round by round; tables give medians and quartiles. Weightings of ntkrun are compared with `weights=none` in turns of
whole hundreds of steps, on two larger cases as well. The number of points grows on wave, 4 layers of 50, and the width
on wave, 3 layers, 1,000 points (and 600 others).

Writes docs/benchmarks/training.csv, a row per turn, after every case (rows of other cases are kept), training.md,
training.png and training_growth.png.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
from training.cases import CASES, MAIN, WEIGHED, Case
from training.lead import Program, Running, differences
from training.page import OUT, write_page

COMPILED = "trainer.compile=true"
OURS = Program("ntkrun", "with_ntkrun", None, ("weights=none", COMPILED))
EAGER = Program("ntkrun, not compiled", "with_ntkrun", None, ("weights=none", "trainer.compile=false"))
JAX = Program("JAX", "with_jax", "jax")
DEEPXDE = Program("DeepXDE", "with_deepxde", "deepxde")
PINA = Program("PINA", "with_pina", "pina-mathlab")
TORCH = Program("torch, nested autograd", "with_torch")
FLOOR = Program("matrix products", "with_products")

RIVALS = (OURS, JAX, DEEPXDE, PINA, TORCH, EAGER, FLOOR)
GROWTH = (OURS, JAX, DEEPXDE, FLOOR)
WEIGHTINGS = (
    Program("weights=none", "with_ntkrun", None, ("weights=none", COMPILED), 100),
    Program("exact, every step", "with_ntkrun", None, ("weights=exact", "weights.update_every=1", COMPILED), 100),
    Program("exact, every 100", "with_ntkrun", None, ("weights=exact", "weights.update_every=100", COMPILED), 100),
    Program(
        "sketched, every 100", "with_ntkrun", None, ("weights=sketched", "weights.update_every=100", COMPILED), 100
    ),
    Program("new points, every step", "with_ntkrun", None, ("weights=none", "pde.resample_every=1", COMPILED), 100),
)
CHECKED_STEPS, DIFFERENCE = 10, 0.02
PARTS = ("rivals", "weightings")


def measure(case: Case, part: str, programs: Sequence[Program], arguments: argparse.Namespace) -> pd.DataFrame:
    """One row per turn of every program.

    Raises:
        RuntimeError: a program ended, or computes something else than the others.
    """
    rows = []
    with ExitStack() as stack:
        running = []
        for program in programs:
            running.append(stack.enter_context(Running(program, case, arguments.threads, arguments.python)))
            running[-1].turn(CHECKED_STEPS if not case.series else 2)
            print(f"  {program.name} is ready", flush=True)
        if part == "rivals" and not case.series:
            check(case, [each for each in running if each.program is not FLOOR])
        for each in running:
            each.fit_turn(arguments.seconds)
        for k in range(arguments.rounds):
            turn = k % len(running)
            for each in [*running[turn:], *running[:turn]]:
                rows.append(
                    {"part": part, "case": case.name, "program": each.program.name, "round": k, "steps": each.steps}
                    | {"seconds": each.turn(each.steps)}
                )
    return pd.DataFrame(rows)


def check(case: Case, running: Sequence[Running]) -> None:
    """Look whether all programs have moved the parameters alike.

    Raises:
        RuntimeError: one has not.
    """
    found = differences(case, running)
    print(
        "  parameters after some steps differ by " + ", ".join(f"{d:.1e} ({n})" for n, d in found.items()), flush=True
    )
    if wrong := [name for name, difference in found.items() if not difference < DIFFERENCE]:
        raise RuntimeError(f"{case.name}: {', '.join(wrong)} trained something else than {running[0].program.name}")


def machine() -> str:
    """The processor, in words."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {len(os.sched_getaffinity(0))} cores"


def installed(programs: Sequence[Program], python: str) -> dict[str, str]:
    """Versions of the programs that there are; says in one line which are missing."""
    found = {program.name: program.version(python) for program in programs}
    if missing := [name for name, version in found.items() if version is None]:
        print(f"not installed for {python}, left out: {', '.join(missing)}")
    return {name: version for name, version in found.items() if version is not None}


def main() -> None:
    """Measure, or only draw what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=os.path.realpath("rivals/bin/python"), help="has the packages of others")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.5, help="of a turn, at least")
    parser.add_argument(
        "--cases", nargs="+", choices=list(CASES), metavar="CASE", help=f"only these: {', '.join(CASES)}"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="only these")
    parser.add_argument("--plot-only", action="store_true", help="make page and figures from the table")
    arguments = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    if not arguments.plot_only:
        if not Path(arguments.python).exists():
            parser.error(f"{arguments.python}: no such Python")
        versions = installed(RIVALS, arguments.python)
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty"], capture_output=True, text=True
        ).stdout.strip()
        about = {"threads": arguments.threads, "machine": machine(), "commit": commit}
        for case in [CASES[name] for name in arguments.cases or CASES]:
            own = PARTS if case in MAIN else PARTS[1:] if case in WEIGHED else PARTS[:1]
            for part in [each for each in own if each in arguments.parts]:
                print(f"{case.name}, {part}", flush=True)
                chosen = WEIGHTINGS if part == "weightings" else GROWTH if case.series else RIVALS
                programs = [p for p in chosen if part == "weightings" or p.name in versions]
                table = measure(case, part, programs, arguments)
                table["version"] = table["program"].map(versions).fillna(versions[OURS.name])
                merge(table.assign(**about), case, part)
    print(write_page())


def merge(table: pd.DataFrame, case: Case, part: str) -> None:
    """Put new rows in the place of older ones of the same case and part."""
    path = OUT / "training.csv"
    if path.exists():
        older = pd.read_csv(path)
        table = pd.concat([older[(older["case"] != case.name) | (older["part"] != part)], table])
    table.to_csv(path, index=False, float_format="%.5g")


if __name__ == "__main__":
    main()
