"""How good a low-rank approximation of the whole kernel is, against its rank and its cost.

    python scripts/nystrom.py [--points 600] [--steps 20]
    python scripts/nystrom.py --tracking

For problems of the menu, a sine network of three layers of 20 units at its initial values and after some steps of
Gauss-Newton, in float64: the Nyström approximation of the kernel K of all rows with Gaussian probes, with columns of K
at points drawn at random, and with columns at points spread out along a Hilbert curve, the same share of every term.
Errors are the missing part of the trace and the relative error in the spectral norm, medians of 5 draws; cost is the
processor time over that of forming K and its eigenvalues. Writes docs/benchmarks/nystrom.csv and nystrom.md.

With --tracking prints a table of what a kernel known at one update is worth at the next: 20 updates, every 10 steps of
Adam under exact weights, after 100 steps; 300 rows of the equation and 30 of every other term. Errors are relative in
the Frobenius norm, rms over the updates; costs are products with J or its transpose. The tracked kernels start from the
exact one: K^ += sym(D Omega Omega' / s) with the increment D = K - K_before and Gaussian probes, which is unbiased, or
K^ += Q Q' D Q Q' with a basis Q of the range of D Omega. Followed eigenvectors take those found at the last update as
the probes of a Nyström approximation, instead of new ones.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import ClassVar

import pandas as pd
import torch
from torch import Tensor

from ntkrun.geometry import Sampler
from ntkrun.jacobian import Jacobian
from ntkrun.network import MLP
from ntkrun.ntk.nystrom import nystrom
from ntkrun.ntk.spectrum import effective_rank, eigenvalues, kernel
from ntkrun.ntk.systematic import hilbert_order, systematic_sample
from ntkrun.objective import Objective
from ntkrun.objective.batch import Batch
from ntkrun.objective.linearized import LinearizedRows
from ntkrun.optimizer import GaussNewton
from ntkrun.pde import PDE, Burgers, Poisson, Wave

OUT = Path(__file__).resolve().parent.parent / "docs" / "benchmarks"
PROBLEMS: dict[str, type[PDE]] = {"poisson": Poisson, "wave": Wave, "burgers": Burgers}
SIZES = (8, 16, 32, 64, 128, 256)
DRAWS = 5


def probes(kind: str, size: int, objective: Objective, batch: Batch, generator: torch.Generator) -> Tensor:
    """Omega', ``[size, N]``; columns of K are taken from every term in proportion to its rows."""
    counts = objective.row_counts(batch)
    rows = sum(counts)
    if kind == "gaussian":
        return torch.randn(size, rows, dtype=torch.float64, generator=generator)
    chosen, start = [], 0
    for name, n in zip(objective.names, counts, strict=True):
        few = min(n, max(1, round(size * n / rows)))
        if kind == "random columns" or few == n:
            own = torch.randperm(n, generator=generator)[:few]
        else:
            own = hilbert_order(objective.points(batch)[name])[systematic_sample(n, few, generator)]
        chosen.append(start + own)
        start += n
    return torch.eye(rows, dtype=torch.float64)[torch.cat(chosen)]


def measured(name: str, state: str, objective: Objective, batch: Batch) -> list[dict[str, object]]:
    """Errors and costs for all kinds of probes and sizes."""
    start = time.process_time()
    exact = kernel(objective, batch)
    spectrum = eigenvalues(exact)
    whole = time.process_time() - start
    table: list[dict[str, object]] = []
    for kind in ("gaussian", "random columns", "spread-out columns"):
        for size in SIZES:
            if size > len(exact) // 2:
                continue
            missing, spectral, seconds = [], [], []
            for draw in range(DRAWS):
                omega = probes(kind, size, objective, batch, torch.Generator().manual_seed(draw))
                start = time.process_time()
                found = nystrom(objective.jacobian(batch), omega)
                seconds.append(time.process_time() - start)
                missing.append(found.missing / float(exact.trace()))
                spectral.append(float(torch.linalg.matrix_norm(exact - found.dense(), 2) / spectrum[0]))
            own = {"problem": name, "state": state, "rows": len(exact), "parameters": objective.layout.size}
            errors = {"probes": kind, "size": size, "trace": median(missing), "spectral": median(spectral)}
            rank = float(effective_rank(spectrum))
            beyond = float(spectrum[size:].sum() / spectrum.sum())
            more = {"best_possible": beyond, "cost": median(seconds) / whole, "effective_rank": rank}
            table.append({**own, **errors, **more})
    print(pd.DataFrame(table).to_string(index=False), flush=True)
    return table


def objective_of(pde: PDE, points: int) -> tuple[Objective, Batch]:
    """A sine network at its initial values, and points: so many of the equation, a tenth of every other term."""
    network = MLP(20, 3, "sin", domain=pde.domain, generator=torch.Generator().manual_seed(0)).double()
    objective = Objective(pde, network)
    own = {
        term.name: Sampler(term.region, points // (10 if k else 1), "sobol", k).draw()
        for k, term in enumerate(objective.terms)
    }
    return objective, objective.batch(own)


class Tracked:
    """Kernels carried from update to update, with probes of one size.

    Args:
        exact: K at the start.
        size: the number of probes.
    """

    COSTS: ClassVar = {"fresh": 2, "fresh, one iteration": 4, "unbiased": 4, "low-rank": 8, "followed": 2}

    def __init__(self, exact: Tensor, size: int) -> None:
        self.size = size
        self.before, self.unbiased, self.low_rank = exact, exact, exact
        self.vectors = torch.linalg.eigh(exact).eigenvectors[:, -size:].T
        self.generator = torch.Generator().manual_seed(size)

    def update(self, jacobian: Jacobian, exact: Tensor) -> dict[str, float]:
        """The relative errors of all kinds at the next update."""
        omega = torch.randn(self.size, len(exact), dtype=torch.float64, generator=self.generator)
        increment, self.before = exact - self.before, exact
        image = increment @ omega.T
        part = image @ omega / self.size
        self.unbiased = self.unbiased + (part + part.T) / 2
        basis = torch.linalg.qr(image).Q
        self.low_rank = self.low_rank + basis @ (basis.T @ increment @ basis) @ basis.T
        followed = nystrom(jacobian, self.vectors.contiguous())
        self.vectors = followed.vectors.T
        found = {
            "fresh": nystrom(jacobian, omega).dense(),
            "fresh, one iteration": nystrom(jacobian, omega, 1).dense(),
            "unbiased": self.unbiased,
            "low-rank": self.low_rank,
            "followed": followed.dense(),
        }
        return {kind: float((each - exact).norm() / exact.norm()) for kind, each in found.items()}


def tracking(start: int = 100, updates: int = 20, every: int = 10) -> None:
    """Print the table of tracked kernels."""
    costs = " | ".join(f"{kind} ({n}s)" for kind, n in Tracked.COSTS.items())
    print(f"| problem (rows) | change per update | s | {costs} |")
    print("|---|---:|---:" + "|---:" * len(Tracked.COSTS) + "|")
    for name in ("poisson", "wave"):
        objective, batch = objective_of(PROBLEMS[name](), 300)
        optimizer = torch.optim.Adam(objective.network.parameters(), 1e-3)
        rows = torch.tensor(objective.row_counts(batch))
        tracked: list[Tracked] = []
        errors: dict[int, list[dict[str, float]]] = {}
        changes = []
        for step in range(start + updates * every + 1):
            if step >= start and (step - start) % every == 0:
                exact, jacobian = kernel(objective, batch), objective.jacobian(batch)
                if tracked:
                    changes.append(float((exact - tracked[0].before).norm() / exact.norm()))
                for each in tracked:
                    errors.setdefault(each.size, []).append(each.update(jacobian, exact))
                tracked = tracked or [Tracked(exact, size) for size in SIZES[:4]]
            gradient = objective.fused(batch, lambda traces, rows=rows: (traces / rows).sum() * rows / traces).gradient
            for key, parameter in objective.network.named_parameters():
                parameter.grad = gradient[key]
            optimizer.step()
        for size, found in errors.items():
            cells = " | ".join(f"{rms([each[kind] for each in found]):.1e}" for kind in Tracked.COSTS)
            print(f"| {name} ({int(rows.sum())}) | {rms(changes):.1e} | {size} | {cells} |", flush=True)


def rms(values: Sequence[float]) -> float:
    """Root mean square."""
    return float(torch.tensor(values, dtype=torch.float64).square().mean().sqrt())


def page(table: pd.DataFrame) -> str:
    """The table in Markdown."""
    lines = [
        "# Low-rank approximations of the kernel",
        "",
        "Made by `python scripts/nystrom.py`, which says what is measured. The best possible part of the trace that a",
        "matrix of so small a rank can miss is that of the eigenvalues beyond it.",
        "",
        "| problem | state | rows | effective rank | probes | size | missing trace | best possible | spectral | cost |",
        "|---|---|---:|---:|---|---:|---:|---:|---:|---:|",
    ]
    for row in table.itertuples(index=False):
        errors = f"{row.trace:.1e} | {row.best_possible:.1e} | {row.spectral:.1e} | {row.cost:.2f}"
        own = f"{row.problem} | {row.state} | {row.rows} | {row.effective_rank:.1f} | {row.probes} | {row.size}"
        lines.append(f"| {own} | {errors} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=600, help="of the residual; the other terms have a tenth")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--tracking", action="store_true", help="the table of kernels carried from update to update")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.tracking:
        tracking()
        return
    table: list[dict[str, object]] = []
    for name, make in PROBLEMS.items():
        objective, batch = objective_of(make(), arguments.points)
        table += measured(name, "initial", objective, batch)
        optimizer = GaussNewton()
        optimizer.start(objective.network)
        for _ in range(arguments.steps):
            system = LinearizedRows(objective, batch)
            means = torch.stack([d.mean() for d in system.diagonals()])
            system.weigh(means.sum() / means)
            optimizer.step_on_rows(system)
        table += measured(name, f"{arguments.steps} steps", objective, batch)
    frame = pd.DataFrame(table)
    frame.to_csv(OUT / "nystrom.csv", index=False, float_format="%.4g")
    (OUT / "nystrom.md").write_text(page(frame))


if __name__ == "__main__":
    main()
