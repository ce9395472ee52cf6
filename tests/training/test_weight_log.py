"""Weight updates that are looked at and written many at a time."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor

from ntkrun.loggers import TablesOnly
from ntkrun.training.finite_checks import DivergenceError
from ntkrun.training.records import Columns, Records
from ntkrun.training.weight_log import WeightLog
from ntkrun.weights import WeightUpdate

TERMS = ("residual", "boundary")


def records(directory: Path) -> Records:
    return Records(directory, Columns(terms=TERMS, further=("trace",)), TablesOnly(), 17)


def update(k: int, flag: bool = False) -> WeightUpdate:
    weights = torch.tensor([1 + k / 3, 2 - k / 7], dtype=torch.float64)
    capped = torch.tensor([False, flag])
    return WeightUpdate(weights, None if k % 2 else 0.25, {"trace": 10 * weights}, capped)


def table(directory: Path) -> pd.DataFrame:
    return pd.read_csv(directory / "weights.csv")


def test_rows_are_those_of_the_updates(tmp_path: Path) -> None:
    tables = records(tmp_path)
    written = WeightLog(TERMS, tables)
    for k in range(6):
        written.add(10 * k, 0.5 * k, update(k))
    written.write(39)
    tables.flush()
    assert list(table(tmp_path)["step"]) == [0, 10, 20, 30]
    written.write(10**9)
    tables.close()
    found = table(tmp_path)
    for k, row in found.iterrows():
        assert isinstance(k, int)
        weights: Tensor = update(k).weights
        assert (row["step"], row["seconds"]) == (10 * k, 0.5 * k)
        assert math.isnan(row["update_seconds"]) if k % 2 else row["update_seconds"] == 0.25
        assert [row[f"weight/{term}"] for term in TERMS] == weights.tolist()
        assert [row[f"trace/{term}"] for term in TERMS] == (10 * weights).tolist()
    assert len(found) == 6


def test_one_weight_that_is_not_finite_ends_the_block_there(tmp_path: Path) -> None:
    tables = records(tmp_path)
    written = WeightLog(TERMS, tables)
    for k in range(5):
        written.add(k, 0.0, update(k))
    written.add(5, 0.0, WeightUpdate(torch.tensor([1, math.nan]), None, {"trace": torch.ones(2)}, torch.zeros(2) > 0))
    written.add(6, 0.0, update(6))
    with pytest.raises(DivergenceError, match="step 5: the weight of term boundary is not finite"):
        written.write(10**9)
    tables.close()
    assert list(table(tmp_path)["step"]) == [0, 1, 2, 3, 4]


def test_what_is_passed_over_is_said_with_its_step(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tables = records(tmp_path)
    written = WeightLog(TERMS, tables)
    for k in range(5):
        written.add(k, 0.0, update(k, flag=k >= 2))
    negative = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    written.add(5, 0.0, WeightUpdate(negative, None, {"trace": negative}, torch.tensor([False, False])))
    with caplog.at_level(logging.WARNING):
        written.write(10**9)
    tables.close()
    said = [record.message for record in caplog.records]
    assert [text.split(":")[0] for text in said] == ["step 2", "step 5"]
    assert "capped" in said[0]
    assert "the trace -1 of term residual cannot be used" in said[1]
    assert len(table(tmp_path)) == 6
