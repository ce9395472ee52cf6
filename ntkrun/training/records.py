"""The tables of a run: metrics.csv, weights.csv, and steps.csv where the optimiser has something to tell of each."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from ntkrun.common.state_schema import Added, NoneOr, Shaped, Whole
from ntkrun.loggers import Logger
from ntkrun.storage.table import LARGEST, Kept, Table, Value
from ntkrun.training.evaluation import Errors

log = logging.getLogger(__name__)

LEAST = "least_point_weight"
HELD_OUT = "held_out_loss"
COEFFICIENT = "coefficient"


class Records:
    """The tables of a run.

    Args:
        directory: the run directory.
        terms: names of the loss terms.
        columns: further per-term columns of weights.csv (``trace``, ``standard_error``).
        weighted_points: terms whose points have weights; metrics.csv has the smallest of each.
        fields: names of the fields whose errors metrics.csv has each by itself.
        held_out: whether it has a loss at held-out points.
        coefficients: names of the unknown coefficients.
        steps: columns of steps.csv; without any there is no such table.
        logger: gets a copy of every row of metrics.csv, with the numbers of the last weight update and step.
        digits: see ``Table``.
        keep_below: see ``Table``.
        saved: of the checkpoint that the run goes on from, what ``state_dict`` gave, read by ``tables_schema``.
    """

    def __init__(
        self,
        directory: Path,
        terms: Sequence[str],
        columns: Sequence[str],
        weighted_points: Sequence[str],
        fields: Sequence[str],
        held_out: bool,
        coefficients: Sequence[str],
        steps: Sequence[str],
        logger: Logger,
        digits: int,
        keep_below: int | None = None,
        saved: Mapping[str, Any] | None = None,
    ) -> None:
        self._terms = tuple(terms)
        self._further = tuple(columns)
        self._logger = logger
        self._last_update: dict[str, Value] = {}
        self._last_step: dict[str, Value] = {}
        later = [*(f"error/{field}" for field in fields), *([HELD_OUT] if held_out else [])]
        metrics = [
            "step", "seconds", "loss", *self._names("loss"), *self._names("weight"), "error/rel_l2", *later, "lr",
            *(f"{COEFFICIENT}/{name}" for name in coefficients),
            *(f"{LEAST}/{term}" for term in weighted_points),
        ]  # fmt: skip
        weights = ["step", "seconds", "update_seconds", *self._names("weight")]
        for column in columns:
            weights += self._names(column)
        tables = {"metrics": metrics, "weights": weights}
        if steps:
            tables["steps"] = ["step", "seconds", *steps]
        self._tables: dict[str, Table] = {}
        try:
            for name, own in tables.items():
                kept = _kept((saved or {}).get(name))
                self._tables[name] = Table(directory / f"{name}.csv", own, digits, keep_below, kept, later)
                if self._tables[name].trouble:
                    log.warning(self._tables[name].trouble)
        except BaseException:
            self.close()
            raise

    def metrics(
        self,
        step: int,
        seconds: float,
        losses: Sequence[float],
        weights: Sequence[float],
        errors: Errors | None,
        held_out: Sequence[float] | None,
        learning_rate: float | None,
        least_point_weights: Mapping[str, float],
        coefficients: Mapping[str, float],
    ) -> None:
        """Append a row of metrics.csv; of ``losses`` and of those at held-out points it has the weighted sums, too."""
        total = sum(w * value for w, value in zip(weights, losses, strict=True))
        row: dict[str, Value] = {"step": step, "seconds": round(seconds, 6), "loss": total}
        row |= self._values("loss", losses) | self._values("weight", weights)
        row |= {f"{LEAST}/{term}": value for term, value in least_point_weights.items()}
        row |= {f"{COEFFICIENT}/{name}": value for name, value in coefficients.items()}
        if errors is not None:
            row |= {f"error/{field}": each for field, each in errors.fields.items()}
        if held_out is not None:
            row[HELD_OUT] = sum(w * value for w, value in zip(weights, held_out, strict=True))
        row |= {"error/rel_l2": None if errors is None else errors.total, "lr": learning_rate}
        self._tables["metrics"].add(row)
        copied = {**self._last_update, **self._last_step, **row}
        finite = {name: float(v) for name, v in copied.items() if v is not None and math.isfinite(v)}
        self._logger.log(step, {name: value for name, value in finite.items() if name != "step"})

    def weight_updates(
        self, times: Sequence[tuple[int, float, float | None]], columns: Mapping[str, Sequence[Sequence[float]]]
    ) -> None:
        """Append rows of weights.csv, at least one.

        Args:
            times: of every update its step, the seconds before it and its own, if they were measured.
            columns: for ``weight`` and the further columns the values of every update, by term.
        """
        values = zip(*(columns[kind] for kind in ("weight", *self._further)), strict=True)
        rows: list[list[Value]] = [
            [step, round(seconds, 6), own if own is None else round(own, 6), *chain.from_iterable(of_one)]
            for (step, seconds, own), of_one in zip(times, values, strict=True)
        ]
        self._tables["weights"].add_all(rows)
        self._last_update = dict(zip(self._tables["weights"].columns, rows[-1], strict=True))

    def step(self, step: int, seconds: float, values: Mapping[str, Value]) -> None:
        """Append a row of steps.csv.

        Args:
            step: optimiser steps before it.
            seconds: of the run until it was done.
            values: by column.
        """
        self._tables["steps"].add({"step": step, "seconds": round(seconds, 6), **values})
        self._last_step = {f"step/{name}": value for name, value in values.items()}

    def flush(self) -> None:
        """Put all rows on the disk, before a checkpoint that counts on them."""
        for table in self._tables.values():
            table.flush()
        self._logger.flush()

    def state_dict(self, step: int) -> dict[str, Any]:
        """What a checkpoint at this step knows of the rows before it."""
        return {name: _saved(table.kept(step)) for name, table in self._tables.items()}

    def close(self) -> None:
        """Flush and close all files."""
        with ExitStack() as stack:
            for table in self._tables.values():
                stack.callback(table.close)

    def _names(self, kind: str) -> list[str]:
        return [f"{kind}/{term}" for term in self._terms]

    def _values(self, kind: str, values: Sequence[float]) -> dict[str, Value]:
        return dict(zip(self._names(kind), values, strict=True))


def tables_schema() -> Any:
    """What a checkpoint's knowledge of tables must look like, see ``ntkrun.common.state_schema``."""
    like = torch.zeros((), dtype=torch.uint8)
    one = {
        "length": Whole(0, LARGEST),
        "checksum": Whole(0, 2**32 - 1),
        "rows": NoneOr(Shaped((None,), like, most=LARGEST)),
    }
    return NoneOr(dict.fromkeys(("metrics", "weights", "steps"), Added(one)))


def _saved(kept: Kept) -> dict[str, Any]:
    rows = None if kept.rows is None else torch.frombuffer(bytearray(kept.rows), dtype=torch.uint8)
    return {"length": kept.length, "checksum": kept.checksum, "rows": rows}


def _kept(saved: Mapping[str, Any] | None) -> Kept | None:
    if saved is None:
        return None
    rows = saved["rows"]
    return Kept(saved["length"], saved["checksum"], None if rows is None else rows.numpy().tobytes())
