"""Rows of metrics.csv that are written many at a time."""

from __future__ import annotations

import math
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
import torch

from ntkrun import metric_log
from ntkrun.loggers import Guarded, Logger, TablesOnly, TensorBoard
from ntkrun.metric_log import Measured, MetricLog
from ntkrun.records import Records
from ntkrun.trouble import DivergenceError

TERMS = ("residual", "boundary")


def records(directory: Path, logger: Logger | None = None) -> Records:
    return Records(directory, TERMS, (), (), logger or TablesOnly(), 17)


def row(step: int, weight: float = 2.0) -> Measured:
    losses = torch.tensor([1 / (step + 1), step / 3], dtype=torch.float64)
    weights = torch.tensor([0.5, weight], dtype=torch.float64)
    return Measured(step, step / 8, losses, weights, None if step % 2 else step / 7, 1e-3, {})


def table(directory: Path) -> pd.DataFrame:
    return pd.read_csv(directory / "metrics.csv")


def test_rows_are_those_that_were_measured(tmp_path: Path) -> None:
    tables = records(tmp_path)
    rows = MetricLog(TERMS, tables)
    for step in range(4):
        rows.add(row(step))
    rows.write(2)
    tables.flush()
    assert table(tmp_path)["step"].tolist() == [0, 1, 2]
    rows.write(3)
    tables.close()
    written = table(tmp_path)
    assert written["seconds"].tolist() == [step / 8 for step in range(4)]
    assert written["loss/residual"].tolist() == [1 / (step + 1) for step in range(4)]
    assert written["loss"].tolist() == [0.5 / (step + 1) + 2 * (step / 3) for step in range(4)]
    assert written["error/rel_l2"].dropna().tolist() == [0, 2 / 7]


def test_a_weight_that_is_not_finite_is_found_after_the_rows_before_it(tmp_path: Path) -> None:
    tables = records(tmp_path)
    rows = MetricLog(TERMS, tables)
    for step, weight in enumerate((1.0, math.inf, 1.0)):
        rows.add(row(step, weight))
    with pytest.raises(DivergenceError, match="step 1: the weight of term boundary is not finite"):
        rows.write(2)
    tables.close()
    assert table(tmp_path)["step"].tolist() == [0]


def test_rows_wait_for_a_second_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 10.0
    monkeypatch.setattr(metric_log.time, "perf_counter", lambda: now)
    with closing(records(tmp_path)) as tables:
        rows = MetricLog(TERMS, tables)
        rows.add(row(0))
        assert not rows.due()
        now += 0.6
        rows.add(row(1))
        assert not rows.due()
        now += 0.6
        assert rows.due()
        rows.write(1)
        rows.add(row(2))
        assert not rows.due()


@pytest.mark.parametrize(("logger", "follows"), [(TensorBoard(), True), (TablesOnly(), False)])
def test_a_logger_gets_rows_as_they_come(logger: Logger, follows: bool, tmp_path: Path) -> None:
    with closing(records(tmp_path, Guarded(logger))) as tables:
        rows = MetricLog(TERMS, tables)
        rows.add(row(0))
        assert rows.due() is follows
