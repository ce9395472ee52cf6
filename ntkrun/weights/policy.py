"""The policy of NTK weights: from kernel traces to weights, and when."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from ntkrun.backend.transfer import constant
from ntkrun.common.state_schema import Added, Whole
from ntkrun.common.types import Fraction, NonNegative, Positive
from ntkrun.geometry import Sampler, mix_seed
from ntkrun.objective import Evaluation, Objective
from ntkrun.objective.batch import Batch
from ntkrun.weights.base import Request, Weighting, WeightUpdate
from ntkrun.weights.interval import AVERAGE, Interval


@dataclass(kw_only=True, eq=False)
class NTKWeighting(Weighting):
    """Weights lambda_i = T / t_i from the kernel traces.

    Source: Wang, Yu, Perdikaris, arXiv 2007.14527; the mean variants follow jaxpi.

    Args:
        update_every: steps between updates, the first at step 0; ``auto`` for as many as the weights allow by how much
            they change, see ``Interval``.
        normalization: ``mean``, t_i = tr(K_ii) / N_i, or ``trace``, t_i = tr(K_ii).
        total: ``sum``, T = sum_j t_j, or ``average``, T = (1/n) sum_j t_j.
        smoothing: beta in lambda <- beta lambda + (1 - beta) lambda_new; the first update of a term is not smoothed.
        floor: the least positive t_i allowed, as a fraction of the largest.
        freeze_after: the last step at which the weights may change; ``None`` for no such step.
        points: ``training``, or the number of points of their own, per term, at which kernels are taken.
            These are drawn once; traces are scaled to the number of training rows.
    """

    update_every: Positive[int] | Literal["auto"] = "auto"
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
        if self.freeze_after is not None and step > self.freeze_after:
            return False
        if self.update_every == "auto":
            return self.rows_at_hand or step >= self.interval.due
        return step % self.update_every == 0

    @property
    def every(self) -> int:
        """Steps per update, for the decision whether updates are worth being compiled."""
        return AVERAGE if self.update_every == "auto" else self.update_every

    def start(self, objective: Objective, seed: int) -> None:
        super().start(objective, seed)
        self.updates = 0
        self.interval = Interval()
        self.known = torch.zeros_like(self.weights, dtype=torch.bool)  # terms that have had a usable trace
        self.constants: dict[float | tuple[int, ...], Tensor] = {}
        self._counted: tuple[Batch, Tensor] | None = None
        if self.points != "training":
            for term in objective.terms:
                if self.points < len(term.region):
                    raise ValueError(
                        f"points={self.points}: {term.name} has {len(term.region)} boxes, of which some would have none"
                    )
            self._own_batch = objective.batch(
                {
                    term.name: Sampler(term.region, self.points, "sobol", mix_seed(seed, 3, i), term.shares)
                    .draw()
                    .to(objective.like)
                    for i, term in enumerate(objective.terms)
                }
            )

    def request(self, step: int, objective: Objective, batch: Batch) -> Request:
        if not self.due(step):
            return Request(self.weights)
        self.interval.due = step
        return self.update(step, objective, batch)

    @abstractmethod
    def update(self, step: int, objective: Objective, batch: Batch) -> Request:
        """Update the weights, or ask for a pass that does."""

    @abstractmethod
    def measured(self, evaluation: Evaluation) -> dict[str, Tensor]:
        """What an update within a pass was made from, by column of the weight log, ``[n]`` each."""

    def take(self, request: Request, evaluation: Evaluation) -> WeightUpdate | None:
        if request.rule is None:
            return request.update
        self._renew(evaluation.weights, evaluation.state["known"])
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
            self.constants[value] = constant(value, self.weights)
        return self.constants[value]

    def target(self, traces: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The weights that belong to traces, by tensor operations alone.

        T and the floor are made from usable traces alone, those that are finite and positive, so that the weights of
        their terms are what they would be without the others.

        Args:
            traces: tr(K_ii), ``[n]``.
            rows: N_i, ``[n]``.

        Returns:
            T / t_i and which terms hit the floor, ``[n]`` each; meaningless for terms whose traces are not usable.
        """
        usable = usable_traces(traces)
        t = torch.where(usable, traces / rows if self.normalization == "mean" else traces, 0)
        least = self.floor * t.max()
        floored = usable & (t < least)
        t = torch.maximum(t, least * usable)
        total = t.sum() if self.total == "sum" else t.sum() / usable.sum().clamp_min(1)
        return total / torch.where(usable, t, 1), floored

    def rule(self, traces: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The weights of an update, smoothed, and which terms hit the floor; a ``Rule`` on ``rule_state``.

        A term whose trace is not usable keeps its weight. Its first usable one is not smoothed.
        """
        before, kept, known = state["weights"], state["smoothing"], state["known"]
        usable = usable_traces(traces)
        new, floored = self.target(traces, state["rows"])
        new = torch.where((kept > 0) & known, kept * before + (1 - kept) * new, new)
        return torch.where(usable, new, before), {"floored": floored, "known": known | usable}

    def rule_state(self, rows: Tensor) -> dict[str, Tensor]:
        """What ``rule`` reads: the weights so far, how much of which is kept, and N_i of every term."""
        smoothing = self._constant(self.smoothing)
        return {"weights": self.weights, "smoothing": smoothing, "known": self.known, "rows": rows}

    def absorb(self, traces: Tensor, rows: Tensor) -> Tensor:
        """Make the weights of this update current, smoothed; returns which terms hit the floor."""
        weights, further = self.rule(traces, self.rule_state(rows))
        self._renew(weights, further["known"])
        return further["floored"]

    def _renew(self, weights: Tensor, known: Tensor) -> None:
        """Make the weights of an update current."""
        if self.update_every == "auto" and not self.rows_at_hand:
            change = float((weights / self.weights).log().abs().max()) if self.updates else math.nan
            self.interval.updated(change)
        self.weights, self.known = weights, known
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        own = {"interval": self.interval.state_dict()} if self.update_every == "auto" else {}
        return {**super().state_dict(), "updates": self.updates, "known": self.known, **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.updates = state["updates"]
        if self.update_every == "auto":
            self.interval.load_state_dict(state["interval"])
        known = state.get("known")  # version 0.1.0 did not keep it
        self.known = self.known | (self.updates > 0) if known is None else known.to(self.known)

    def state_schema(self) -> Any:
        own = {"interval": Interval.state_schema()} if self.update_every == "auto" else {}
        return {**super().state_schema(), "updates": Whole(), "known": Added(self.known), **own}


def usable_traces(traces: Tensor) -> Tensor:
    """Which traces weights can be made from: none of a term that is idle, or whose estimate went wrong."""
    return torch.isfinite(traces) & (traces > 0)
