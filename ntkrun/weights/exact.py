"""Weights from the exact kernel traces."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ntkrun.objective import Batch, Evaluation, Objective
from ntkrun.weights.base import WeightUpdate
from ntkrun.weights.policy import NTKWeighting


@dataclass(kw_only=True, eq=False)
class Exact(NTKWeighting):
    """NTK weights from exact traces, taken from the backward pass of the gradient itself."""

    def evaluate(self, step: int, objective: Objective, batch: Batch) -> tuple[Evaluation, WeightUpdate | None]:
        if not self.due(step):
            return objective.gradient(batch, self.weights), None
        rows = self.rows(objective, batch)
        floored = rows

        def weigh(traces: Tensor) -> Tensor:
            nonlocal floored
            floored = self.absorb(traces, rows)
            return self.weights

        evaluation = objective.fused(batch, weigh)
        assert evaluation.traces is not None
        return evaluation, WeightUpdate(evaluation.traces, self.weights, floored, evaluation.kernel_seconds)
