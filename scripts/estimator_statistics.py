"""Measured against predicted: the variance of every estimator of tr(K), and the automatic difference step.

Usage: python scripts/estimator_statistics.py [--repetitions R]

Prints two Markdown tables. The first compares the variance of estimates of the residual term's trace on
Poisson (tanh network 1-32-32-1, 60 points, float64, 8 probes) with the laws that docs/method.md states; the
uncertainty is one standard error. The second compares the error of difference quotients at the automatic
step with the least over fixed steps; the least in float32 is the floor that round-off sets.
"""

from __future__ import annotations

import argparse
import math

import torch
from torch import Tensor

from ntkrun.geometry import Sampler
from ntkrun.network import MLP
from ntkrun.ntk.finite_differences import Difference, balanced_step, difference_quotient
from ntkrun.ntk.sketch import Sketch
from ntkrun.objective import Objective
from ntkrun.objective.batch import Batch
from ntkrun.pde import PDE, Poisson, Wave

SIZE = 8

SKETCHES = {
    "parameter, gaussian": Sketch(SIZE, "parameter", "autodiff", "gaussian"),
    "parameter, gaussian, differences": Sketch(SIZE, "parameter", "finite_difference", "gaussian", "central"),
    "residual, gaussian": Sketch(SIZE, "residual", "autodiff", "gaussian"),
    "residual, rademacher": Sketch(SIZE, "residual", "autodiff", "rademacher"),
    "residual, rademacher, differences": Sketch(SIZE, "residual", "finite_difference", "rademacher", "central"),
    "coordinate": Sketch(SIZE, "residual", "autodiff", "coordinate"),
    "hutchpp": Sketch(SIZE, "residual", "autodiff", "gaussian", estimator="hutchpp"),
    "xtrace": Sketch(SIZE, "residual", "autodiff", "gaussian", estimator="xtrace"),
}


def build(pde: PDE, width: int, counts: tuple[int, ...], dtype: torch.dtype) -> tuple[Objective, Batch]:
    """An objective with two hidden layers and its points."""
    network = MLP(width, 2, domain=pde.domain, generator=torch.Generator().manual_seed(0)).to(dtype)
    objective = Objective(pde, network)
    points = {
        term.name: Sampler(term.region, n, "uniform", i).draw().to(dtype)
        for i, (n, term) in enumerate(zip(counts, objective.terms, strict=True))
    }
    return objective, objective.batch(points)


def predicted(name: str, kernel: Tensor) -> float | None:
    """The variance that theory gives, where it gives one in closed form."""
    square, diagonal, n = kernel.square().sum().item(), kernel.diagonal(), len(kernel)
    if name == "coordinate":
        return n**2 / SIZE * diagonal.var().item() * (1 - SIZE / n)
    if "rademacher" in name:
        return 2 * (square - diagonal.square().sum().item()) / SIZE
    return 2 * square / SIZE if "gaussian" in name else None


def variances(repetitions: int) -> None:
    """Print the first table."""
    objective, batch = build(Poisson(), 32, (60, 2), torch.float64)
    kernel = objective.jacobians(batch)[0].gram()
    trace = kernel.trace().item()
    print("| estimator | mean / exact | measured variance / trace² | predicted | measured / predicted |")
    print("|---|---:|---:|---:|---:|")
    for name, sketch in SKETCHES.items():
        generator = torch.Generator().manual_seed(0)
        samples = torch.stack([sketch.estimate(objective, batch, generator).traces[0] for _ in range(repetitions)])
        centred = samples - samples.mean()
        variance = centred.square().mean()
        error = ((centred**4).mean() - variance**2).clamp_min(0).sqrt() / math.sqrt(repetitions)
        mean_error = samples.std() / math.sqrt(repetitions)
        law = predicted(name, kernel)
        mean = f"{samples.mean() / trace:.4f} ± {mean_error / trace:.4f}"
        cells = [mean, f"{variance / trace**2:.3e}"]
        cells += ["", ""] if law is None else [f"{law / trace**2:.3e}", f"{variance / law:.3f} ± {error / law:.3f}"]
        print(f"| {name} | {' | '.join(cells)} |")


def steps() -> None:
    """Print the second table."""
    print("| problem | precision | difference | automatic step | its error | least error | at step |")
    print("|---|---|---|---:|---:|---:|---:|")
    for pde, counts in ((Poisson(), (60, 2)), (Wave(), (60, 20, 20, 20))):
        exact, exact_batch = build(pde, 32, counts, torch.float64)
        probe = torch.randn(exact.layout.size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        truth = [j.matvec(probe[None])[0] for j in exact.jacobians(exact_batch)]
        for dtype in (torch.float32, torch.float64):
            objective, batch = build(pde, 32, counts, dtype)
            direction = probe.to(dtype)

            def residuals(shift: Tensor, objective: Objective = objective, batch: Batch = batch) -> tuple[Tensor, ...]:
                return objective.residuals(batch, objective.shifted(shift))

            for difference in ("forward", "central"):
                chosen = balanced_step(residuals, direction, objective.parameter_vector().norm().item(), difference)

                def error(delta: float, difference: Difference = difference, direction: Tensor = direction) -> float:
                    quotients = difference_quotient(residuals, direction, delta, difference)
                    pairs = zip(quotients, truth, strict=True)  # noqa: B023
                    return math.sqrt(sum(((q.double() - t).norm() / t.norm()).item() ** 2 for q, t in pairs))

                trials = {10 ** (x / 2): error(10 ** (x / 2)) for x in range(-18, 0)}
                best = min(trials, key=lambda delta: trials[delta])
                precision = str(dtype).removeprefix("torch.")
                print(
                    f"| {type(pde).__name__.lower()} | {precision} | {difference} | {chosen:.1e} "
                    f"| {error(chosen):.1e} | {trials[best]:.1e} | {best:.1e} |"
                )


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=1000)
    arguments = parser.parse_args()
    with torch.no_grad():
        variances(arguments.repetitions)
        print()
        steps()


if __name__ == "__main__":
    main()
