"""From kernel traces to weights, and when."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from ntkrun.common.types import Fraction, NonNegative, Positive
from ntkrun.geometry import Sampler, mix_seed
from ntkrun.objective import Evaluation, Objective
from ntkrun.objective.batch import Batch
from ntkrun.weights.base import Request, Weighting, WeightUpdate


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
        points: ``training``, or the number of points of their own, per term, at which kernels are taken.
            These are drawn once; traces are scaled to the number of training rows.
    """

    update_every: Positive[int] = 100
    normalization: Literal["mean", "trace"] = "mean"
    total: Literal["sum", "average"] = "sum"
    smoothing: Fraction = 0.0
    floor: Annotated[float, Field(gt=0, lt=1)] = 1e-8
    freeze_after: NonNegative[int] | None = None
    points: Literal["training"] | Positive[int] = "training"

    def columns(self) -> tuple[str, ...]:
        return ("trace",)

    def due(self, step: int) -> bool:
        """Whether the weights are to be updated at this step."""
        return step % self.update_every == 0 and (self.freeze_after is None or step <= self.freeze_after)

    def start(self, objective: Objective, seed: int) -> None:
        super().start(objective, seed)
        self.updates = 0
        self.constants: dict[float | tuple[int, ...], Tensor] = {}
        self._counted: tuple[Batch, Tensor] | None = None
        if self.points != "training":
            self._own_batch = objective.batch(
                {
                    term.name: Sampler(term.region, self.points, "sobol", mix_seed(seed, 3, i))
                    .draw()
                    .to(objective.like)
                    for i, term in enumerate(objective.terms)
                }
            )

    def request(self, step: int, objective: Objective, batch: Batch) -> Request:
        return self.update(step, objective, batch) if self.due(step) else Request(self.weights)

    @abstractmethod
    def update(self, step: int, objective: Objective, batch: Batch) -> Request:
        """Update the weights, or ask for a pass that does."""

    @abstractmethod
    def measured(self, evaluation: Evaluation) -> dict[str, Tensor]:
        """What an update within a pass was made from, by column of the weight log, ``[n]`` each."""

    def take(self, request: Request, evaluation: Evaluation) -> WeightUpdate | None:
        if request.rule is None:
            return request.update
        self.weights = evaluation.weights
        self.updates += 1
        columns = self.measured(evaluation)
        return WeightUpdate(self.weights, evaluation.weigh_seconds, columns, evaluation.state["floored"])

    def kernel_batch(self, batch: Batch) -> Batch:
        """The points at which kernels are taken."""
        return batch if self.points == "training" else self._own_batch

    def scale(self, objective: Objective, batch: Batch) -> Tensor:
        """Training rows per kernel row of every term, ``[n]``."""
        return self.rows(objective, batch) / self.rows(objective, self.kernel_batch(batch))

    def rows(self, objective: Objective, batch: Batch) -> Tensor:
        """N_i of every term, ``[n]``."""
        if self._counted is None or self._counted[0] is not batch:  # points mostly stay the same for many steps
            self._counted = batch, self._constant(objective.row_counts(batch))
        return self._counted[1]

    def _constant(self, value: float | tuple[int, ...]) -> Tensor:
        """A tensor of the weights' kind, made once: on a device, making one waits for a copy."""
        if value not in self.constants:
            self.constants[value] = self.weights.new_tensor(value)
        return self.constants[value]

    def target(self, traces: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The weights that belong to traces, by tensor operations alone.

        Args:
            traces: tr(K_ii), ``[n]``; negative estimates count as zero.
            rows: N_i, ``[n]``.

        Returns:
            T / t_i and which terms hit the floor, ``[n]`` each.
        """
        t = traces / rows if self.normalization == "mean" else traces
        least = self.floor * t.max()
        floored = t < least
        t = torch.maximum(t, least)
        total = t.sum() if self.total == "sum" else t.mean()
        return total / t, floored

    def fill(self, traces: Tensor, rows: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Replace traces that are not finite or not positive by those which the weights so far stand for.

        From lambda_i = T / t_i: with T = sum t_j / sum 1 / lambda_j over the terms j whose traces can be used, the
        trace of any other term is that of t_i = T / lambda_i.

        Args:
            traces: tr(K_ii), ``[n]``.
            rows: N_i, ``[n]``.
            weights: lambda_i so far, ``[n]``.

        Returns:
            The traces and which of them are their own, ``[n]`` each; where none is, no trace is finite.
        """
        usable = torch.isfinite(traces) & (traces > 0)
        size = rows if self.normalization == "mean" else torch.ones_like(rows)
        nothing = torch.zeros_like(traces)
        total = torch.where(usable, traces / size, nothing).sum() / torch.where(usable, 1 / weights, nothing).sum()
        return torch.where(usable, traces, total / weights * size), usable

    def rule(self, traces: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The weights of an update, smoothed, and which terms hit the floor; a ``Rule`` on ``rule_state``.

        A term whose trace is not finite or not positive keeps its weight.
        """
        before, kept = state["weights"], state["smoothing"]
        filled, usable = self.fill(traces, state["rows"], before)
        new, floored = self.target(filled, state["rows"])
        new = torch.where(kept > 0, kept * before + (1 - kept) * new, new)
        return torch.where(usable, new, before), {"floored": floored & usable}

    def rule_state(self, rows: Tensor) -> dict[str, Tensor]:
        """What ``rule`` reads: the weights so far, how much of them is kept, and N_i of every term."""
        smoothing = self._constant(self.smoothing if self.updates else 0.0)
        return {"weights": self.weights, "smoothing": smoothing, "rows": rows}

    def absorb(self, traces: Tensor, rows: Tensor) -> Tensor:
        """Make the weights of this update current, smoothed; returns which terms hit the floor."""
        self.weights, further = self.rule(traces, self.rule_state(rows))
        self.updates += 1
        return further["floored"]

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.updates = state["updates"]
