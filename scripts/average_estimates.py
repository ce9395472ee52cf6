"""What averages of successive sketches gain: replays the estimates recorded in docs/reproduction/trajectories.csv.

    python scripts/average_estimates.py

For every problem, kind and size of sketch: the rms error of the logarithms of the weights made from single estimates,
from averages with a fixed share, and from ``weights.average=kalman``. It takes seconds; no network is trained.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from ntkrun.weights.average import averaged, no_average

TRAJECTORIES = Path(__file__).resolve().parent.parent / "docs" / "reproduction" / "trajectories.csv"
EXACT = 1e-5  # errors below are rounding in float32: all points are taken


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    table = pd.read_csv(TRAJECTORIES)
    rows = []
    for (pde, kind, size), series in table.groupby(["pde", "kind", "size"], sort=False):
        names = ("trace", "exact_trace", "standard_error", "exact_weight")
        trace, exact, error, weight = (_by_term(series, name) for name in names)
        shares = (1 / weight / exact).median(dim=0).values  # t_i in units of T per trace: one over N_i
        raw = _error(trace, exact, shares)
        if raw < EXACT:
            continue
        rows.append(
            {
                "problem": pde,
                "sketch": kind,
                "size": size,
                "single": raw,
                "fixed 0.5": _error(_fixed(trace, 0.5), exact, shares),
                "kalman": (own := _error(_kalman(trace, error), exact, shares)),
                "kalman / single": own / raw,
            }
        )
    print(pd.DataFrame(rows).to_string(index=False, float_format="%.3f"))


def _by_term(series: pd.DataFrame, name: str) -> Tensor:
    """Values, ``[updates, terms]``."""
    return torch.from_numpy(series.pivot(index="step", columns="term", values=name).to_numpy(copy=True))


def _error(trace: Tensor, exact: Tensor, shares: Tensor) -> float:
    ours, theirs = (_weights(each * shares).log() for each in (trace, exact))
    return float((ours - theirs).square().mean().sqrt())


def _weights(t: Tensor) -> Tensor:
    return t.sum(dim=1, keepdim=True) / t


def _fixed(trace: Tensor, kept: float) -> Tensor:
    logs = trace.log()
    results = [logs[0]]
    for each in logs[1:]:
        results.append(kept * results[-1] + (1 - kept) * each)
    return torch.stack(results).exp()


def _kalman(trace: Tensor, error: Tensor) -> Tensor:
    state, results = no_average(trace[0]), []
    for each, own in zip(trace, error, strict=True):
        result, state = averaged(each, own, state)
        results.append(result)
    return torch.stack(results)


if __name__ == "__main__":
    main()
