"""Rows of metrics.csv on their way there."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from ntkrun.records import Records
from ntkrun.trouble import check_evaluation

PATIENCE = 1.0  # seconds that a row may wait while steps go on


class Measured(NamedTuple):
    """A row that is not yet written.

    Attributes:
        step: optimiser steps before it, earlier time windows included.
        elapsed: seconds of the run before it.
        losses, weights: of the terms, ``[n]``.
        error: relative L2 error, if it was computed.
        rate: learning rate.
        least: smallest point weights by term.
    """

    step: int
    elapsed: float
    losses: Tensor
    weights: Tensor
    error: float | None
    rate: float
    least: Mapping[str, float]


class MetricLog:
    """Keeps rows as they are measured, and writes them some at a time.

    Reading numbers back and formatting them takes as long as the shortest steps, most of it because the processor has
    forgotten the code since the last row; several at a time take little more than one.

    Args:
        names: of the loss terms.
        records: where rows go.
    """

    def __init__(self, names: Sequence[str], records: Records) -> None:
        self._names = tuple(names)
        self._records = records
        self._waiting: deque[Measured] = deque()
        self._since = 0.0

    def add(self, row: Measured) -> None:
        """Keep a row."""
        if not self._waiting:
            self._since = time.perf_counter()
        self._waiting.append(row)

    def due(self) -> bool:
        """Whether a row has waited long enough, or somebody follows the rows as they come."""
        return self._records.followed or time.perf_counter() - self._since > PATIENCE

    def write(self, last: int) -> None:
        """Write all rows up to the step ``last``, whose losses are known to be finite.

        Raises:
            DivergenceError: a weight is not finite. The rows before it are written.
        """
        while self._waiting and self._waiting[0].step <= last:
            row = self._waiting.popleft()
            losses, weights = row.losses.tolist(), row.weights.tolist()
            check_evaluation(row.step, self._names, weights, {})
            self._records.metrics(row.step, row.elapsed, losses, weights, row.error, row.rate, row.least)
