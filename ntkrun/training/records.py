"""The tables of a run: metrics.csv, weights.csv, and steps.csv where the optimiser has something to tell of each."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from ntkrun.common.state_schema import Added, NoneOr, Shaped, Whole
from ntkrun.loggers import Logger
from ntkrun.storage.table import LARGEST, Kept, Table, Value
from ntkrun.training.evaluation import Errors

log = logging.getLogger(__name__)

LEAST = "least_point_weight"
HELD_OUT = "held_out_loss"
COEFFICIENT = "coefficient"
EPOCH = "epoch"


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What the tables of a run have columns for.

    Attributes:
        terms: names of the loss terms.
        further: further per-term columns of weights.csv (``trace``, ``standard_error``).
        weighted_points: terms whose points have weights; metrics.csv has the smallest of each.
        fields: names of the fields whose errors metrics.csv has each by itself.
        held_out: whether it has a loss at held-out points.
        coefficients: names of the unknown coefficients.
        batched: terms of whose points every step takes a batch; metrics.csv has the epochs of each.
        steps: columns of steps.csv; without any there is no such table.
    """

    terms: tuple[str, ...]
    further: tuple[str, ...] = ()
    weighted_points: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    held_out: bool = False
    coefficients: tuple[str, ...] = ()
    batched: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()

    def of_terms(self, kind: str) -> list[str]:
        """The columns of a kind of numbers, one for every term."""
        return [f"{kind}/{term}" for term in self.terms]

    @property
    def later(self) -> list[str]:
        """Columns of metrics.csv that version 0.1.0 does not have."""
        return [*(f"error/{field}" for field in self.fields), *([HELD_OUT] if self.held_out else [])]

    def tables(self) -> dict[str, list[str]]:
        """The columns of every table, by its name."""
        metrics = [
            *("step", "seconds", "loss", *self.of_terms("loss"), *self.of_terms("weight")),
            *("error/rel_l2", *self.later, "lr"),
            *(f"{COEFFICIENT}/{name}" for name in self.coefficients),
            *(f"{LEAST}/{term}" for term in self.weighted_points),
            *(f"{EPOCH}/{term}" for term in self.batched),
        ]
        weights = ["step", "seconds", "update_seconds", *self.of_terms("weight")]
        weights += [column for kind in self.further for column in self.of_terms(kind)]
        steps = {"steps": ["step", "seconds", *self.steps]} if self.steps else {}
        return {"metrics": metrics, "weights": weights, **steps}


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """What a row of metrics.csv says of the network before its step, besides its losses.

    Attributes:
        errors: relative L2 errors, if a solution is known and they are due.
        held_out: else losses at held-out points by term, if they are due.
        rate: learning rate, where there is one.
        coefficients: the unknown coefficients by name.
        epochs: how often all points of a term were taken, by term, where steps take batches of them.
    """

    errors: Errors | None
    held_out: Sequence[float] | None
    rate: float | None
    coefficients: Mapping[str, float]
    epochs: Mapping[str, float] = field(default_factory=dict)


class Records:
    """The tables of a run.

    Args:
        directory: the run directory.
        columns: of the tables.
        logger: gets a copy of every row of metrics.csv, with the numbers of the last weight update and step.
        digits: see ``Table``.
        keep_below: see ``Table``.
        saved: of the checkpoint that the run goes on from, what ``state_dict`` gave, read by ``tables_schema``.
    """

    def __init__(
        self,
        directory: Path,
        columns: Columns,
        logger: Logger,
        digits: int,
        keep_below: int | None = None,
        saved: Mapping[str, Any] | None = None,
    ) -> None:
        self._columns = columns
        self._logger = logger
        self._last_update: dict[str, Value] = {}
        self._last_step: dict[str, Value] = {}
        self._tables: dict[str, Table] = {}
        try:
            for name, own in columns.tables().items():
                kept = _kept((saved or {}).get(name))
                self._tables[name] = Table(directory / f"{name}.csv", own, digits, keep_below, kept, columns.later)
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
        least_point_weights: Mapping[str, float],
        of_network: Metrics,
    ) -> None:
        """Append a row of metrics.csv; of ``losses`` and of those at held-out points it has the weighted sums, too."""
        total = sum(w * value for w, value in zip(weights, losses, strict=True))
        row: dict[str, Value] = {"step": step, "seconds": round(seconds, 6), "loss": total}
        row |= self._values("loss", losses) | self._values("weight", weights)
        row |= {f"{LEAST}/{term}": value for term, value in least_point_weights.items()}
        row |= {f"{COEFFICIENT}/{name}": value for name, value in of_network.coefficients.items()}
        row |= {f"{EPOCH}/{term}": value for term, value in of_network.epochs.items()}
        errors = of_network.errors
        if errors is not None:
            row |= {f"error/{field}": each for field, each in errors.fields.items()}
        if of_network.held_out is not None:
            row[HELD_OUT] = sum(w * value for w, value in zip(weights, of_network.held_out, strict=True))
        row |= {"error/rel_l2": None if errors is None else errors.total, "lr": of_network.rate}
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
        values = zip(*(columns[kind] for kind in ("weight", *self._columns.further)), strict=True)
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

    @property
    def pictures(self) -> int:
        """How many pictures of the solution the logger wants along the run."""
        return self._logger.pictures

    def picture(self, step: int, solution: Mapping[str, NDArray[Any]]) -> None:
        """Hand the solution before a step to the logger."""
        self._logger.picture(step, solution)

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

    def _values(self, kind: str, values: Sequence[float]) -> dict[str, Value]:
        return dict(zip(self._columns.of_terms(kind), values, strict=True))


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
