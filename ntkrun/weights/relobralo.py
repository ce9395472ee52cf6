"""Weights from the progress of the losses since the last step and since the start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from ntkrun.common.state_schema import Generator
from ntkrun.common.types import Positive
from ntkrun.geometry import mix_seed
from ntkrun.objective import Evaluation, Objective
from ntkrun.objective.batch import Batch
from ntkrun.weights.base import Request, Weighting, WeightUpdate, flags


@dataclass(kw_only=True, eq=False)
class ReLoBRaLo(Weighting):
    """Relative loss balancing with random lookback.

    Source: Bischof, Kraus, arXiv 2110.09813. With bal_i(t, t') = n softmax_i(L_i(t) / (T L_i(t'))) and a
    Bernoulli variable rho drawn at every step,

        lambda(t) = alpha (rho lambda(t-1) + (1 - rho) bal(t, 0)) + (1 - alpha) bal(t, t-1),

    from lambda(0) = 1. The weights always sum to the number of terms. The paper's experiments
    have alpha between 0.9 and 0.999 and an expected rho near 1; the temperature wants tuning.

    A term whose loss is zero now or was at t' has no such rate: it keeps its weight and takes no part in the softmax,
    and n counts the others. The start of a term is its first loss that is not zero.

    Args:
        temperature: T; small values give all weight to the loss that does worst, large ones equal weights.
        alpha: how much of the past is kept.
        expected_rho: the probability that the past is the last weights, and not the losses at the start.
    """

    temperature: Positive[float] = 0.1
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.999
    expected_rho: Annotated[float, Field(ge=0, le=1)] = 0.99

    def start(self, objective: Objective, seed: int) -> None:
        super().start(objective, seed)
        self.generator = torch.Generator().manual_seed(mix_seed(seed, 4))
        self.first = torch.full_like(self.weights, torch.nan)
        self.previous = self.first
        self._flags = flags(self.weights)

    def request(self, step: int, objective: Objective, batch: Batch) -> Request:
        # Drawn on the processor, so that nothing waits for a device.
        rho = bool(torch.rand((), generator=self.generator) < self.expected_rho)
        state = {
            "weights": self.weights,
            "first": self.first,
            "previous": self.previous,
            "begun": self._flags[step > 0],
            "rho": self._flags[rho],
        }
        return Request(self.weights, "losses", self.rule, state)

    def rule(self, losses: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The weights that follow upon the present ones, a ``Rule``; at the first step these stay."""
        before = state["weights"]
        first = torch.where(state["begun"] & (state["first"] > 0), state["first"], losses)
        past = torch.where(state["rho"], before, self._balance(losses, first, before))
        new = self.alpha * past + (1 - self.alpha) * self._balance(losses, state["previous"], before)
        return torch.where(state["begun"], new, state["weights"]), {"first": first, "previous": losses}

    def take(self, request: Request, evaluation: Evaluation) -> WeightUpdate | None:
        self.weights = evaluation.weights
        self.first, self.previous = evaluation.state["first"], evaluation.state["previous"]
        begun = request.state["begun"] is self._flags[True]
        return WeightUpdate(self.weights, evaluation.weigh_seconds) if begun else None

    def _balance(self, losses: Tensor, earlier: Tensor, weights: Tensor) -> Tensor:
        """bal(t, t'), and the ``weights`` so far of terms whose loss is or was zero."""
        moving = (losses > 0) & (earlier > 0)
        ratios = losses / torch.where(moving, earlier, 1) / self.temperature
        # Two infinite ratios must not make infinity minus infinity of the softmax.
        ratios = torch.where(moving, ratios.clamp_max(torch.finfo(losses.dtype).max), -torch.inf)
        return torch.where(moving, moving.sum() * torch.softmax(ratios, dim=0), weights)

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "generator": self.generator.get_state(),
            "first": self.first,
            "previous": self.previous,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.generator.set_state(state["generator"])
        self.first = state["first"].to(self.weights)
        self.previous = state["previous"].to(self.weights)

    def state_schema(self) -> Any:
        return {**super().state_schema(), "generator": Generator()}
