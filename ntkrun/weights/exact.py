"""Weights from the exact kernel traces."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ntkrun.objective import Evaluation, Objective
from ntkrun.objective.batch import Batch
from ntkrun.weights.base import Request, WeightUpdate
from ntkrun.weights.policy import NTKWeighting


@dataclass(kw_only=True, eq=False)
class Exact(NTKWeighting):
    """NTK weights from exact traces.

    At the training points they come out of the backward pass of the gradient itself; points of their own
    take a pass of their own.
    """

    def update(self, step: int, objective: Objective, batch: Batch) -> Request:
        if self.points == "training":
            state = self.rule_state(self.rows(objective, batch))
            return Request(self.weights, "traces", self.rule, state, every=self.every)
        start = objective.clock()
        traces = objective.traces(self.kernel_batch(batch)) * self.scale(objective, batch)
        floored = self.absorb(traces, self.rows(objective, batch))
        update = WeightUpdate(self.weights, objective.clock() - start, {"trace": traces}, floored)
        return Request(self.weights, update=update)

    def measured(self, evaluation: Evaluation) -> dict[str, Tensor]:
        assert evaluation.traces is not None
        return {"trace": evaluation.traces}
