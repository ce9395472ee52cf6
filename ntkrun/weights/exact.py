"""Weights from the exact kernel traces."""

from __future__ import annotations

import time
from dataclasses import dataclass

from torch import Tensor

from ntkrun.groups import Batch
from ntkrun.objective import Evaluation, Objective
from ntkrun.weights.base import WeightUpdate
from ntkrun.weights.policy import NTKWeighting


@dataclass(kw_only=True, eq=False)
class Exact(NTKWeighting):
    """NTK weights from exact traces.

    At the training points they come out of the backward pass of the gradient itself; points of their own
    take a pass of their own.
    """

    def update(self, step: int, objective: Objective, batch: Batch) -> tuple[Evaluation, WeightUpdate]:
        rows = self.rows(objective, batch)
        if self.points != "training":
            start = time.perf_counter()
            traces = objective.traces(self.kernel_batch(batch)) * self.scale(objective, batch)
            floored = self.absorb(traces, rows)
            seconds = time.perf_counter() - start
            update = WeightUpdate(self.weights, seconds, {"trace": traces}, floored)
            return objective.gradient(batch, self.weights), update
        floored = rows

        def weigh(traces: Tensor) -> Tensor:
            nonlocal floored
            floored = self.absorb(traces, rows)
            return self.weights

        evaluation = objective.fused(batch, weigh)
        assert evaluation.traces is not None
        return evaluation, WeightUpdate(self.weights, evaluation.weigh_seconds, {"trace": evaluation.traces}, floored)
