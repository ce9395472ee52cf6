"""Weight updates on their way to weights.csv."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ntkrun.training.finite_checks import UpdateCheck, all_finite
from ntkrun.training.records import Records
from ntkrun.weights import WeightUpdate


class Waiting(NamedTuple):
    """An update that is not yet written.

    Attributes:
        step: optimiser steps before it, earlier time windows included.
        elapsed: seconds of the run before it.
        update: what it gave.
    """

    step: int
    elapsed: float
    update: WeightUpdate


class WeightLog:
    """Keeps weight updates as they are made, and looks at them and writes them many at a time.

    So no step waits for the device or formats numbers, however often weights are updated.

    Args:
        names: of the loss terms.
        records: where rows go.
    """

    def __init__(self, names: Sequence[str], records: Records) -> None:
        self._check = UpdateCheck(names)
        self._records = records
        self._waiting: deque[Waiting] = deque()

    def add(self, step: int, elapsed: float, update: WeightUpdate) -> None:
        """Keep an update; see ``Waiting``."""
        self._waiting.append(Waiting(step, elapsed, update))

    def write(self, last: int) -> None:
        """Write all updates up to the step ``last``.

        Raises:
            DivergenceError: a weight is not finite. The updates before it are written.
        """
        due = []
        while self._waiting and self._waiting[0].step <= last:
            due.append(self._waiting.popleft())
        if not due:
            return
        updates = [each.update for each in due]
        tensors = {name: torch.stack([u.columns[name] for u in updates]) for name in updates[0].columns}
        tensors["weight"] = torch.stack([u.weights for u in updates])
        values = {name: tensor.tolist() for name, tensor in tensors.items()}
        if _unremarkable(tensors, updates):
            self._write(due, values)
            return
        for k, each in enumerate(due):
            self._check.look(each.step, each.update, {name: rows[k] for name, rows in values.items()})
            self._write([each], {name: rows[k : k + 1] for name, rows in values.items()})

    def _write(self, due: Sequence[Waiting], values: Mapping[str, Sequence[Sequence[float]]]) -> None:
        times = [(step, elapsed, update.seconds) for step, elapsed, update in due]
        self._records.weight_updates(times, values)


def _unremarkable(tensors: Mapping[str, Tensor], updates: Sequence[WeightUpdate]) -> bool:
    """Whether ``UpdateCheck`` would find nothing to say, by a few operations for all updates."""
    if not all_finite(tensors["weight"]):
        return False
    if "trace" in tensors and not (all_finite(tensors["trace"]) and bool((tensors["trace"] > 0).all())):
        return False
    flags = [flag for update in updates for flag in (update.capped, update.restarted, update.idle) if flag is not None]
    return not flags or not bool(torch.stack(flags).any())
