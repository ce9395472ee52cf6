"""Measured values that are not trained on, and tell which network is the best."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch import Tensor

from ntkrun.config.assembly import assemble
from ntkrun.config.configuration import read_configuration
from ntkrun.geometry import Table
from ntkrun.pde import Columns, Diffusion, ProblemError
from ntkrun.pde.measured import held_apart
from tests.driver import assert_refused, ntkrun
from tests.oracle import values

YAML = """
_target_: tests.experiment.test_held_out_data.Unsolved
data: probe.csv
points: {residual: 30, boundary: 8, initial: 8}
sampling: sobol
resample_every: null
grid: 6
"""
SMALL = ["--config-dir", "conf", "pde=own", "network.width=4", "network.depth=1", "iterations=3", "log_every=1"]
SMALL += ["evaluate_every=1", "plots=false"]


class Unsolved(Diffusion):
    def exact(self, x: Columns) -> Tensor | None:
        return None


def measured(path: Path, rows: int = 20) -> pd.DataFrame:
    """Values with standard deviations that differ."""
    x, t, s = np.random.default_rng(1).random((3, rows))
    frame = pd.DataFrame({"x": x, "t": t, "u": np.exp(-t) * np.sin(math.pi * x), "u_std": 0.1 + s})
    frame.to_csv(path, index=False)
    return frame


def prepared(folder: Path) -> pd.DataFrame:
    (folder / "conf" / "pde").mkdir(parents=True)
    (folder / "conf" / "pde" / "own.yaml").write_text(YAML)
    return measured(folder / "probe.csv")


def test_rows_are_trained_on_or_held_out(tmp_path: Path) -> None:
    """A fifth of them is: its weighted loss chooses the best network, and is that of an independent computation."""
    table = prepared(tmp_path)
    result = ntkrun(*SMALL, "pde.hold_out=0.2", cwd=tmp_path)
    assert result.status == 0, result.stderr
    log = (result.directory / "ntkrun.log").read_text()
    assert "16 measured values of u\n" in log
    assert "4 more measured values are held out\n" in log
    with np.load(result.directory / "points.npz") as arrays:
        trained = arrays["data"]
    assert len(trained) == 16
    held = table[~table["x"].isin(trained[:, 0])]
    assert len(held) == 4
    parts = assemble(read_configuration(yaml.safe_load((result.directory / ".hydra" / "config.yaml").read_text())))
    state = torch.load(result.directory / "checkpoint.pt", weights_only=True)
    parts.objective.network.load_state_dict(state["network"])
    network = parts.objective.network
    u = values(network, torch.tensor(held[["x", "t"]].to_numpy()))[:, 0].detach().numpy()
    scale = np.mean(trained[:, 3] ** -2.0) ** -0.5
    expected = np.mean((scale * (u - held["u"]) / held["u_std"]) ** 2)
    assert parts.held_out is not None
    losses = dict(zip(parts.objective.names, parts.held_out.losses(), strict=True))
    assert losses["data"] == pytest.approx(expected, rel=1e-9)
    row = pd.read_csv(result.directory / "metrics.csv").iloc[-1]
    total = sum(row[f"weight/{name}"] * loss for name, loss in losses.items())
    assert row["held_out_loss"] == pytest.approx(total, rel=1e-6)


def test_which_rows_are_held_out() -> None:
    rows = torch.arange(30.0).double().view(10, 3)
    tables = {name: Table(("x", "t"), (name,), rows) for name in "uv"}
    trained, held = held_apart(tables, 0.3, seed=0)
    for name in "uv":
        assert (len(trained[name].rows), len(held[name].rows)) == (7, 3)
        joined = torch.cat([trained[name].rows, held[name].rows])
        assert torch.equal(joined[joined[:, 0].argsort()], rows)
    assert torch.equal(held["u"].rows, held_apart(tables, 0.3, seed=0)[1]["u"].rows)
    chosen = torch.stack([held_apart(tables, 0.3, seed=k)[1]["u"].rows[:, 0] for k in range(40)])
    assert len(chosen.unique()) == 10  # every row has its turn
    assert [len(held_apart(tables, share, 0)[1]["u"].rows) for share in (0.01, 0.99)] == [1, 9]


def test_what_cannot_be_held_out() -> None:
    with pytest.raises(ProblemError, match=r"^there are no measured values to hold out$"):
        held_apart({}, 0.1, 0)
    one = Table(("x",), ("u",), torch.ones(1, 2).double())
    with pytest.raises(ProblemError, match=r"^there is one measured value of u, which cannot be held out and trained"):
        held_apart({"u": one}, 0.1, 0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["pde.hold_out=0.2", "pde.data=null"], ("pde.hold_out=0.2", "there are no measured values to hold out")),
        (["pde.hold_out=0.2", "time_windows=2"], ("pde.hold_out=0.2", "with time_windows no network is the best")),
        (["pde.hold_out=1"], ("pde.hold_out=1", "less than 1")),
    ],
    ids=["no data", "time windows", "all"],
)
def test_what_does_not_go_together_is_refused(options: list[str], words: tuple[str, ...], tmp_path: Path) -> None:
    prepared(tmp_path)
    assert_refused(ntkrun(*SMALL, *options, cwd=tmp_path), tmp_path, *words)
