"""The tables of a run: metrics.csv, weights.csv, and steps.csv where the optimiser has something to tell of each."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import IO

from ntkrun.loggers import Logger
from ntkrun.storage.atomic import sync, write_text_atomically, writing
from ntkrun.training.evaluation import Errors

Value = float | int | None

LEAST = "least_point_weight"
HELD_OUT = "held_out_loss"


class TableError(ValueError):
    """A table that this run cannot continue."""


class Table:
    """A CSV file that grows row by row.

    Args:
        path: the file.
        columns: its columns, ``step`` first.
        digits: significant digits of floats; 9 keep a float32 exactly, 17 a float64.
        keep_below: of an older file that is continued, only rows with a smaller step are kept.
        later: columns that files of earlier versions may lack; they are added, empty in the older rows.

    Raises:
        TableError: the older file has other columns.
        WriteError: here and in all methods, the file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        columns: Sequence[str],
        digits: int,
        keep_below: int | None = None,
        later: Collection[str] = (),
    ) -> None:
        self.columns = tuple(columns)
        self._spec = f".{digits}g"
        if keep_below is None or not path.exists():
            write_text_atomically(path, _lines([self.columns]))
        else:
            # A killed process may have left half a row at the end, without the line's end, and a crash of the
            # machine anything after what the checkpoint has put on the disk.
            text = path.read_text(encoding="utf-8", errors="replace")
            lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
            try:
                rows = list(csv.reader(lines))
            except csv.Error as error:
                raise TableError(f"{path} is not a table of this run: {error}") from None
            older = tuple(rows[0]) if rows else ()
            if older != tuple(c for c in self.columns if c in older or c not in later):
                raise TableError(f"{path} has other columns than this run writes")
            kept = [row for row in rows[1:] if len(row) == len(older) and _step(row) < keep_below]
            if older != self.columns:
                by_name = [dict(zip(older, row, strict=True)) for row in kept]
                kept = [[row.get(column, "") for column in self.columns] for row in by_name]
            write_text_atomically(path, _lines([self.columns, *kept]))
        self._path = path
        with writing(path):
            self._file: IO[str] = open(path, "a", newline="")  # noqa: SIM115 (closed by close)

    def add(self, row: Mapping[str, Value]) -> None:
        """Append one row; absent columns stay empty."""
        self.add_all([[row.get(column) for column in self.columns]])

    def add_all(self, rows: Iterable[Sequence[Value]]) -> None:
        """Append rows that have a value for every column, empty for ``None``."""
        lines = "".join(",".join(map(self._format, row)) + "\n" for row in rows)
        with writing(self._path):
            self._file.write(lines)

    def flush(self) -> None:
        """Put everything on the disk."""
        with writing(self._path):
            sync(self._file)

    def close(self) -> None:
        """Flush and close."""
        with writing(self._path):
            self._file.close()

    def _format(self, value: Value) -> str:
        if value is None:
            return ""
        return str(value) if isinstance(value, int) else format(value, self._spec)


class Records:
    """The tables of a run.

    Args:
        directory: the run directory.
        terms: names of the loss terms.
        columns: further per-term columns of weights.csv (``trace``, ``standard_error``).
        weighted_points: terms whose points have weights; metrics.csv has the smallest of each.
        fields: names of the fields whose errors metrics.csv has each by itself.
        held_out: whether it has a loss at held-out points.
        steps: columns of steps.csv; without any there is no such table.
        logger: gets a copy of every row of metrics.csv, with the numbers of the last weight update and step.
        digits: see ``Table``.
        keep_below: see ``Table``.
    """

    def __init__(
        self,
        directory: Path,
        terms: Sequence[str],
        columns: Sequence[str],
        weighted_points: Sequence[str],
        fields: Sequence[str],
        held_out: bool,
        steps: Sequence[str],
        logger: Logger,
        digits: int,
        keep_below: int | None = None,
    ) -> None:
        self._terms = tuple(terms)
        self._further = tuple(columns)
        self._logger = logger
        self._last_update: dict[str, Value] = {}
        self._last_step: dict[str, Value] = {}
        later = [*(f"error/{field}" for field in fields), *([HELD_OUT] if held_out else [])]
        metrics = [
            "step", "seconds", "loss", *self._names("loss"), *self._names("weight"), "error/rel_l2", *later, "lr",
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
                self._tables[name] = Table(directory / f"{name}.csv", own, digits, keep_below, later)
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
    ) -> None:
        """Append a row of metrics.csv; of ``losses`` and of those at held-out points it has the weighted sums, too."""
        total = sum(w * value for w, value in zip(weights, losses, strict=True))
        row: dict[str, Value] = {"step": step, "seconds": round(seconds, 6), "loss": total}
        row |= self._values("loss", losses) | self._values("weight", weights)
        row |= {f"{LEAST}/{term}": value for term, value in least_point_weights.items()}
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

    def close(self) -> None:
        """Flush and close all files."""
        with ExitStack() as stack:
            for table in self._tables.values():
                stack.callback(table.close)

    def _names(self, kind: str) -> list[str]:
        return [f"{kind}/{term}" for term in self._terms]

    def _values(self, kind: str, values: Sequence[float]) -> dict[str, Value]:
        return dict(zip(self._names(kind), values, strict=True))


def _step(row: Sequence[str]) -> float:
    """The step of a row, beyond all others where there is none."""
    return int(row[0]) if row[0].isdecimal() else math.inf


def _lines(rows: Iterable[Sequence[str]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()
