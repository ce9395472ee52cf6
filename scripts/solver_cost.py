"""What a Gauss-Newton step costs by each solver, against the numbers of rows and parameters and the size of the sketch.

    python scripts/solver_cost.py [--quick]

For every number of rows N and of parameters P (a sine network of three layers on the wave equation, some steps from
its initial values, rows weighted by the NTK, float64) one damped least squares problem is solved by every solver:

- setup: the rows of the Jacobian, and what all dampings share (Gram matrix, triangle, or sketch);
- damping: a step for one more damping;
- right side: one more solution with the same damping, as for geodesic acceleration and corrections;
- error: |d - d'| / |d'|, d' by QR where one side has at most 2,500, else by Cholesky.

A step of the optimiser is taken to be one setup, two dampings and three right sides each, which is what it makes on the
problems of the menu. Writes docs/benchmarks/solvers.csv and solvers.md, with a verdict on the fastest exact solver.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from ntkrun.geometry import Sampler
from ntkrun.network import MLP
from ntkrun.objective import Objective
from ntkrun.objective.batch import Batch
from ntkrun.objective.linearized import LinearizedRows
from ntkrun.optimizer import GaussNewton
from ntkrun.optimizer.least_squares import LeastSquares
from ntkrun.optimizer.sketched import SketchedSolution
from ntkrun.optimizer.solvers import Solver, least_squares
from ntkrun.pde import Wave

OUT = Path(__file__).resolve().parent.parent / "docs" / "benchmarks"
DAMPINGS, RIGHT_SIDES = 2, 3  # of a step
SHAPES = ((1000, 20), (4000, 20), (2000, 32), (2000, 44), (6000, 44), (4000, 64), (12000, 64), (8000, 90))
QUICK = ((1000, 20), (2000, 32))
FRACTIONS = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
REFERENCE = 2500  # the most rows or parameters, whichever are fewer, for a reference by QR


@dataclass(frozen=True)
class Timed:
    """Seconds of the parts of a step, and its relative error."""

    setup: float
    damping: float
    right_side: float
    iterations: int
    error: float

    @property
    def step(self) -> float:
        """Seconds of a step of the optimiser."""
        return self.setup + DAMPINGS * (self.damping + RIGHT_SIDES * self.right_side)


def problem(points: int, width: int, dtype: torch.dtype) -> tuple[Objective, Batch]:
    """The wave equation with about as many rows, and a sine network."""
    pde = Wave()
    generator = torch.Generator().manual_seed(0)
    network = MLP(width, 3, "sin", domain=pde.domain, generator=generator).to(dtype)
    objective = Objective(pde, network, memory=2**31)
    drawn = {
        term.name: Sampler(term.region, points * (8 if k == 0 else 1) // 11, "sobol", k).draw().to(dtype)
        for k, term in enumerate(objective.terms)
    }
    return objective, objective.batch(drawn)


def linearized(objective: Objective, batch: Batch, factored: bool) -> LinearizedRows:
    """The rows with NTK weights."""
    system = LinearizedRows(objective, batch, factored)
    means = torch.stack([d.mean() for d in system.diagonals()])
    system.weigh(means.sum() / means)
    return system


def seconds(act: Callable[[], object]) -> float:
    """Processor time of one call."""
    start = time.process_time()
    act()
    return time.process_time() - start


def measured(
    objective: Objective, batch: Batch, solver: Solver, size: int, damping: float, reference: Tensor | None
) -> tuple[Timed, Tensor]:
    """The costs of one solver, and its step."""
    start = time.process_time()
    factored = GaussNewton(solver=solver).wants_factors(10**9, 10**9)
    system = linearized(objective, batch, factored)
    squares: LeastSquares = least_squares(system.rows, system.residual, solver, size, 1e-6)
    mu = damping * squares.scale
    if solver == "qr":
        squares.at(2 * mu)  # what all dampings share is made with the first
    setup = time.process_time() - start
    start = time.process_time()
    found = squares.at(mu)
    if found is None:
        raise ValueError(f"{solver} does not resolve a damping of {damping}")
    each = time.process_time() - start
    right = seconds(lambda: found.solve(system.residual.flip(0)))
    iterations = found.iterations if isinstance(found, SketchedSolution) else 0
    error = 0.0 if reference is None else float((found.step - reference).norm() / reference.norm())
    return Timed(setup, each, right, iterations, error), found.step


def started(points: int, width: int, steps: int) -> tuple[Objective, Batch]:
    """A problem after some steps."""
    objective, batch = problem(points, width, torch.float64)
    optimizer = GaussNewton(solver="sketched")
    optimizer.start(objective.network)
    for _ in range(steps):
        optimizer.step_on_rows(linearized(objective, batch, True))
    return objective, batch


def compare(objective: Objective, batch: Batch, damping: float) -> list[dict[str, object]]:
    """All solvers on one problem."""
    rows, columns = sum(objective.row_counts(batch)), objective.layout.size
    smaller = min(rows, columns)
    choices: list[tuple[Solver, int]] = [("qr", 1)] if smaller <= REFERENCE else []
    choices += [("cholesky", 1)]
    choices += [("sketched", int(smaller * f)) for f in FRACTIONS]
    choices += [("sketch_and_solve", int(smaller * f)) for f in FRACTIONS[1:3]]
    reference: Tensor | None = None
    table: list[dict[str, object]] = []
    for solver, size in choices:
        timed, step = measured(objective, batch, solver, size, damping, reference)
        reference = step if reference is None else reference
        own = {"rows": rows, "parameters": columns, "damping": damping, "solver": solver}
        sketch = {"sketch_size": size if size > 1 else None}
        costs = {"setup": timed.setup, "per_damping": timed.damping, "per_right_side": timed.right_side}
        result = {"step": timed.step, "iterations": timed.iterations, "error": timed.error}
        table.append({**own, **sketch, **costs, **result})
        print(pd.DataFrame(table[-1:]).to_string(index=False, header=len(table) == 1), flush=True)
    return table


def page(table: pd.DataFrame) -> str:
    """The table and the verdict in Markdown."""
    lines = [
        "# Cost of the solvers of Gauss-Newton",
        "",
        "Processor seconds, float64, one thread; made by `python scripts/solver_cost.py`, which says what is measured.",
        "",
        "| rows | parameters | damping | solver | sketch | setup | per damping | per right side | step | its | error |",
        "|---:|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in table.itertuples(index=False):
        sketch = "" if pd.isna(row.sketch_size) else f"{int(row.sketch_size)}"
        times = " | ".join(f"{x:.3g}" for x in (row.setup, row.per_damping, row.per_right_side, row.step))
        error = "reference" if row.error == 0 else f"{row.error:.1e}"
        lines.append(
            f"| {row.rows} | {row.parameters} | {row.damping:.0e} | {row.solver} | {sketch} | {times} | "
            f"{row.iterations} | {error} |"
        )
    lines += ["", "## Which wins", "", "Fastest step by a solver that solves to 1e-4 or better:", ""]
    lines += [
        "| rows | parameters | damping | fastest | step, s | times faster than Cholesky |",
        "|---:|---:|---:|---|---:|---:|",
    ]
    exact = table[(table.error <= 1e-4) & (table.solver != "sketch_and_solve")]
    for (rows, columns, damping), group in exact.groupby(["rows", "parameters", "damping"]):
        best = group.loc[group.step.idxmin()]
        cholesky = group[group.solver == "cholesky"].step.min()
        name = best.solver if pd.isna(best.sketch_size) else f"{best.solver}, {int(best.sketch_size)}"
        lines.append(f"| {rows} | {columns} | {damping:.0e} | {name} | {best.step:.3g} | {cholesky / best.step:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two small problems, nothing is written")
    parser.add_argument("--shape", nargs=2, type=int, action="append", metavar=("POINTS", "WIDTH"))
    parser.add_argument("--damping", type=float, nargs="+", default=[1e-6, 1e-9, 1e-12])
    parser.add_argument("--steps", type=int, default=10, help="from the initial values")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    file = OUT / "solvers.csv"
    for points, width in arguments.shape or (QUICK if arguments.quick else SHAPES):
        at = started(points, width, arguments.steps)
        table = pd.DataFrame([row for damping in arguments.damping for row in compare(*at, damping)])
        if arguments.quick:
            continue
        if file.exists():
            keys = ["rows", "parameters", "damping", "solver", "sketch_size"]
            table = pd.concat([pd.read_csv(file), table]).drop_duplicates(keys, keep="last").sort_values(keys)
        table.to_csv(file, index=False, float_format="%.4g")
        (OUT / "solvers.md").write_text(page(pd.read_csv(file)))


if __name__ == "__main__":
    main()
