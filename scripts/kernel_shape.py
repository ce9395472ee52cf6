"""How near kernels are to rank one at initialisation, and how much their diagonals vary: ranges over seeds.

    python scripts/kernel_shape.py --seeds 10

For the equation's block of poisson and wave under a 64x3 tanh network in float64, with 200 points per term that are
drawn anew for every seed: the share of the largest eigenvalue in the trace, the standard deviation of the diagonal over
its mean, and, for every term, 1^T K 1 / (N tr K). docs/method.md quotes these ranges.
"""

from __future__ import annotations

import argparse

import torch

from ntkrun.geometry import Sampler
from ntkrun.network import MLP
from ntkrun.ntk.spectrum import diagonal_blocks, kernel
from ntkrun.objective import Objective
from ntkrun.pde import PDE, Poisson, Wave

POINTS = 200


def blocks(pde: PDE, seed: int) -> dict[str, torch.Tensor]:
    """K_ii by term."""
    generator = torch.Generator().manual_seed(seed)
    network = MLP(64, 3, domain=pde.domain, outputs=1, generator=generator).double()
    objective = Objective(pde, network)
    points = {
        term.name: Sampler(term.region, POINTS, "uniform", 10 * seed + i).draw()
        for i, term in enumerate(objective.terms)
    }
    batch = objective.batch(points)
    return dict(
        zip(objective.names, diagonal_blocks(kernel(objective, batch), objective.row_counts(batch)), strict=True)
    )


def show(what: str, values: list[float]) -> None:
    """The range of some values."""
    print(f"  {what}: {min(values):.3g} to {max(values):.3g}")


def main() -> None:
    """Print the ranges."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    seeds = parser.parse_args().seeds
    for pde in (Poisson(), Wave()):
        found = [blocks(pde, seed) for seed in range(seeds)]
        own = [each["residual"] for each in found]
        print(type(pde).__name__)
        show("largest eigenvalue / trace", [float(torch.linalg.eigvalsh(k)[-1] / k.trace()) for k in own])
        show("spread of the diagonal", [float(k.diagonal().std() / k.diagonal().mean()) for k in own])
        sums = {
            name: [float(each[name].sum() / (len(each[name]) * each[name].trace())) for each in found]
            for name in found[0]
        }
        for name, values in sums.items():
            show(f"sum of the entries / (rows x trace), {name}", values)
        if "initial_velocity" in sums:
            pairs = zip(sums["initial_velocity"], sums["residual"], strict=True)
            show("its ratio between initial velocity and equation", [a / b for a, b in pairs])


if __name__ == "__main__":
    main()
