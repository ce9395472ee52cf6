"""Reference trajectories: what a few small runs recorded when their numbers were last looked at.

Usage: python -m tests.reference

writes the tables in ``tests/data`` anew, after a change that is meant to change numbers; say in its commit which and
why.

All is float64, and what is drawn are whole numbers and uniform variates, which every machine draws alike: normal ones
depend on its vector instructions. Rounding is then all that differs between machines: the tables of runs with two
threads, with the plainest kernels of torch (``ATEN_CPU_CAPABILITY=default``) and with the plainest of MKL
(``MKL_CBWR=COMPATIBLE``) differ from these by less than 1e-14.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pandas as pd
import torch

from tests.driver import ntkrun

DATA = Path(__file__).parent / "data"
TABLES = ("metrics", "weights")
TOLERANCE = 1e-10  # relative, of every number

COMMON = [
    *(
        "optimizer=adam",
        "dtype=float64",
        "network.width=12",
        "network.depth=2",
        "network.initialization=glorot_uniform",
        "seed=3",
    ),
    *(
        "iterations=30",
        "log_every=5",
        "evaluate_every=5",
        "pde.grid=20",
        "plots=false",
        "progress=false",
        "keep_best=false",
        "device=cpu",
    ),
]
RUNS = {
    "poisson_none": [
        *("pde=poisson", "weights=none", "pde.points.residual=40", "pde.sampling=uniform"),
        *("schedule=exponential", "schedule.every=10"),
    ],
    "wave_exact": [
        *("pde=wave", "weights=exact", "weights.update_every=1", "network.activation=sin"),
        *("pde.points.residual=30", "pde.points.boundary=20", "pde.points.initial=10"),
    ],
    "beam_exact": [
        *("pde=beam", "weights=exact", "weights.update_every=7", "weights.normalization=trace"),
        *("weights.total=average", "weights.smoothing=0.5", "pde.points.residual=30"),
    ],
    "klein_gordon_sketched": [
        *("pde=klein_gordon", "weights=sketched", "weights.sketch_size=8", "weights.update_every=5"),
        *("network=modified_mlp", "network.activation=gelu", "pde.points.residual=80", "pde.sampling=uniform"),
    ],
}


def trajectory(name: str, directory: Path) -> dict[str, pd.DataFrame]:
    """The tables that a run records, without times."""
    torch.set_default_dtype(torch.float64)  # for the initial values
    try:
        result = ntkrun(*RUNS[name], *COMMON, f"hydra.run.dir={directory / name}", cwd=directory)
    finally:
        torch.set_default_dtype(torch.float32)
    assert result.status == 0, result.stderr
    tables = {table: pd.read_csv(directory / name / f"{table}.csv") for table in TABLES}
    return {name: table[[c for c in table.columns if not c.endswith("seconds")]] for name, table in tables.items()}


def path(name: str, table: str) -> Path:
    return DATA / f"reference_{name}_{table}.csv"


def main() -> None:
    for name in RUNS:
        with tempfile.TemporaryDirectory() as directory:
            for table, values in trajectory(name, Path(directory)).items():
                if len(values):
                    values.to_csv(path(name, table), index=False, float_format="%.15g", lineterminator="\n")


if __name__ == "__main__":
    main()
