"""Memory and time of Gauss-Newton's linear algebra with very many residual rows and parameters, without the Jacobian.

    python scripts/large_step.py [--points 100000] [--width 223] [--sketch-size 128] [--memory-mib 256] [--limit-gib 4]

A sine network of three layers on the wave equation, at its initial values (100,797 parameters by default), rows
weighted by the NTK. Prints the peak resident memory of the process and the processor seconds of every part of a step:
residuals, weights, the gradient and the sketch, a step of the sketched model, and one solved to a tolerance. A step of
the optimiser makes weights, gradient and sketch once, and the others for every damping that it tries. Ends with status
1 where the memory is above the limit.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from typing import TypeVar

import torch

from ntkrun.geometry import Sampler
from ntkrun.network import MLP
from ntkrun.objective import ChunkedObjective
from ntkrun.objective.linearized import LinearizedRows
from ntkrun.optimizer.sketched import SketchedLeastSquares, SketchedSolution, Sketching
from ntkrun.pde import Wave

GIB = 2**30
Result = TypeVar("Result")


def timed(what: str, act: Callable[[], Result]) -> Result:
    """Do a part of the step and print what it took."""
    start = time.process_time()
    result = act()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
    print(f"| {what} | {time.process_time() - start:.1f} | {peak:.2f} |", flush=True)
    return result


def linearized(objective: ChunkedObjective, points: dict[str, torch.Tensor]) -> LinearizedRows:
    """The rows with NTK weights."""
    system = LinearizedRows(objective, objective.batch(points), factored=True)
    means = torch.stack([d.mean() for d in system.diagonals()])
    system.weigh(means.sum() / means)
    return system


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=100_000, help="of the residual; the other terms have a hundredth")
    parser.add_argument("--width", type=int, default=223)
    parser.add_argument("--sketch-size", type=int, default=128)
    parser.add_argument("--memory-mib", type=int, default=256, help="as kernel.memory_mib")
    parser.add_argument("--limit-gib", type=float, default=4.0)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="of the network")
    parser.add_argument("--damping", type=float, default=1e-6)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pde, dtype = Wave(), getattr(torch, arguments.dtype)
    generator = torch.Generator().manual_seed(0)
    network = MLP(arguments.width, 3, "sin", domain=pde.domain, generator=generator).to(dtype)
    objective = ChunkedObjective(pde, network, "structured", arguments.memory_mib * 2**20, 10_000)
    counts = [arguments.points if k == 0 else max(1, arguments.points // 100) for k in range(len(objective.terms))]
    points = {
        term.name: Sampler(term.region, n, "sobol", k).draw().to(dtype)
        for k, (n, term) in enumerate(zip(counts, objective.terms, strict=True))
    }
    print(f"{sum(counts)} rows, {objective.layout.size} parameters, sketch of rank {arguments.sketch_size}\n")
    print("| part | processor seconds | peak memory so far, GiB |\n|---|---:|---:|")
    timed("residuals at other parameters", lambda: objective.losses(objective.batch(points)))
    system = timed("traces and weights", lambda: linearized(objective, points))
    alone = Sketching(arguments.sketch_size, None)
    squares = timed("gradient and sketch", lambda: SketchedLeastSquares(system.rows, system.residual, alone))
    mu = arguments.damping * squares.scale
    timed("a step of the sketched model", lambda: squares.at(mu))
    squares.tolerance = arguments.tolerance
    found = timed(f"a step solved to {arguments.tolerance:.0e}", lambda: squares.at(mu))
    assert isinstance(found, SketchedSolution)
    print(f"\n{found.iterations} conjugate gradient iterations")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
    if peak > arguments.limit_gib:
        sys.exit(f"{peak:.2f} GiB, more than {arguments.limit_gib} GiB")


if __name__ == "__main__":
    main()
