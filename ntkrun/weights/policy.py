"""From kernel traces to weights, and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from ntkrun.checked import Fraction, NonNegative, Positive
from ntkrun.objective import Batch, Objective
from ntkrun.weights.base import Weighting


@dataclass(kw_only=True, eq=False)
class NTKWeighting(Weighting):
    """Weights lambda_i = T / t_i from the kernel traces.

    Source: Wang, Yu, Perdikaris, arXiv 2007.14527; the mean variants follow jaxpi.

    Args:
        update_every: steps between updates, the first at step 0.
        normalization: ``mean``, t_i = tr(K_ii) / N_i, or ``trace``, t_i = tr(K_ii).
        total: ``sum``, T = sum_j t_j, or ``average``, T = (1/n) sum_j t_j.
        smoothing: beta in lambda <- beta lambda + (1 - beta) lambda_new; the first update is not smoothed.
        floor: the least t_i allowed, as a fraction of the largest.
        freeze_after: the last step at which the weights may change; ``None`` for no such step.
    """

    update_every: Positive[int] = 100
    normalization: Literal["mean", "trace"] = "mean"
    total: Literal["sum", "average"] = "sum"
    smoothing: Fraction = 0.0
    floor: Annotated[float, Field(gt=0, lt=1)] = 1e-8
    freeze_after: NonNegative[int] | None = None

    def due(self, step: int) -> bool:
        """Whether the weights are to be updated at this step."""
        return step % self.update_every == 0 and (self.freeze_after is None or step <= self.freeze_after)

    def start(self, objective: Objective, seed: int) -> None:
        super().start(objective, seed)
        self.updates = 0

    def weigh(self, traces: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Weights from traces, by tensor operations alone.

        Args:
            traces: tr(K_ii), ``[n]``; negative estimates count as zero.
            rows: N_i, ``[n]``.

        Returns:
            The new weights and which terms hit the floor, ``[n]`` each.
        """
        t = traces / rows if self.normalization == "mean" else traces
        least = self.floor * t.max()
        floored = t < least
        t = torch.maximum(t, least)
        total = t.sum() if self.total == "sum" else t.mean()
        new = total / t
        if self.updates:
            new = self.smoothing * self.weights + (1 - self.smoothing) * new
        return new, floored

    def absorb(self, traces: Tensor, rows: Tensor) -> Tensor:
        """Make the weights of this update current; returns which terms hit the floor."""
        self.weights, floored = self.weigh(traces, rows)
        self.updates += 1
        return floored

    def rows(self, objective: Objective, batch: Batch) -> Tensor:
        """N_i of every term, ``[n]``."""
        return self.weights.new_tensor(objective.row_counts(batch))

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.updates = state["updates"]
