"""How good a low-rank approximation of the whole kernel is, against its rank and its cost.

    python scripts/nystrom.py [--points 600] [--steps 20]

For problems of the menu, a sine network of three layers of 20 units at its initial values and after some steps of
Gauss-Newton, in float64: the Nyström approximation of the kernel K of all rows with Gaussian probes, with columns of K
at points drawn at random, and with columns at points spread out along a Hilbert curve, the same share of every term.
Errors are the missing part of the trace and the relative error in the spectral norm, medians of 5 draws; cost is the
processor time over that of forming K and its eigenvalues. Writes docs/benchmarks/nystrom.csv and nystrom.md.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median

import pandas as pd
import torch
from torch import Tensor

from ntkrun.geometry import Sampler
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
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table: list[dict[str, object]] = []
    for name, make in PROBLEMS.items():
        pde = make()
        generator = torch.Generator().manual_seed(0)
        network = MLP(20, 3, "sin", domain=pde.domain, generator=generator).double()
        objective = Objective(pde, network)
        points = {
            term.name: Sampler(term.region, arguments.points // (10 if k else 1), "sobol", k).draw()
            for k, term in enumerate(objective.terms)
        }
        batch = objective.batch(points)
        table += measured(name, "initial", objective, batch)
        optimizer = GaussNewton()
        optimizer.start(network)
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
