"""The row after the last step, against the row that a longer run has there."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.cli.test_resume import WAVE, resume, start, table


@pytest.mark.parametrize("kind", ["causal", "residual_attention"])
@pytest.mark.parametrize("steps", [0, 10])
def test_point_weights_are_those_of_the_rows_own_residuals(kind: str, steps: int, tmp_path: Path) -> None:
    """And a run that is made longer goes on as if it had never had this row."""
    options = (*WAVE, "pde.resample_every=null", f"point_weights={kind}", "schedule=constant")
    short, long = tmp_path / "short", tmp_path / "long"
    assert start(short, *options, f"iterations={steps}").status == 0
    assert start(long, *options, "iterations=20").status == 0
    ours, theirs = (pd.read_csv(run / "metrics.csv").set_index("step").loc[steps] for run in (short, long))
    for name in ours.index[ours.index.str.startswith(("loss/", "least"))]:
        assert ours[name] == pytest.approx(theirs[name], rel=1e-6), name
    assert resume(short, "iterations=20").status == 0
    assert table(short / "metrics.csv") == table(long / "metrics.csv")
