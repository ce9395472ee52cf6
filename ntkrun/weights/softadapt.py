"""Weights from the rates at which the losses change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ntkrun.common.types import Positive
from ntkrun.objective import Evaluation, Objective
from ntkrun.objective.batch import Batch
from ntkrun.weights.base import Request, Weighting, WeightUpdate, flags


@dataclass(kw_only=True, eq=False)
class SoftAdapt(Weighting):
    """Larger weights for losses that shrink more slowly.

    Source: Heydari, Thompson, Mehmood, arXiv 1912.12355. With the rates s_i = (L_i(t) - L_i(t - k)) / k over
    the k steps between updates, lambda_i = n exp(beta s_i) / sum_j exp(beta s_j). In the paper the weights sum
    to 1; here, times n, to the number of terms, so that equal rates give weight 1. All weights are 1 until the
    first rates are known, at step k. A term whose losses over the k steps are all zero keeps its weight, and n counts
    the others.

    Args:
        update_every: k, steps between updates.
        beta: sharpness; 0 keeps all weights equal, negative values favour the losses that shrink fastest.
        normalized: divide the rates by the sum of their absolute values; without this the weights depend on
            the units of the losses.
        loss_weighted: multiply exp(beta s_i) by the mean of L_i over the last k steps.
    """

    update_every: Positive[int] = 100
    beta: float = 0.1
    normalized: bool = True
    loss_weighted: bool = False

    def columns(self) -> tuple[str, ...]:
        return ("rate",)

    def start(self, objective: Objective, seed: int) -> None:
        super().start(objective, seed)
        self.previous = torch.full_like(self.weights, torch.nan)
        self.sums = torch.zeros_like(self.weights)
        self._flags = flags(self.weights)

    def request(self, step: int, objective: Objective, batch: Batch) -> Request:
        due = step % self.update_every == 0
        state = {
            "weights": self.weights,
            "previous": self.previous,
            "sums": self.sums,
            "due": self._flags[due],
            "known": self._flags[due and step > 0],
        }
        return Request(self.weights, "losses", self.rule, state)

    def rule(self, losses: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The weights of a step, a ``Rule``: others than before where an update is due and rates are known."""
        sums = state["sums"] + losses
        rates = (losses - state["previous"]) / self.update_every
        new = torch.where(sums > 0, self.target(rates, sums / self.update_every), state["weights"])
        weights = torch.where(state["known"], new, state["weights"])
        previous = torch.where(state["due"], losses, state["previous"])
        return weights, {"rate": rates, "previous": previous, "sums": torch.where(state["due"], 0.0, sums)}

    def take(self, request: Request, evaluation: Evaluation) -> WeightUpdate | None:
        self.weights = evaluation.weights
        self.previous, self.sums = evaluation.state["previous"], evaluation.state["sums"]
        if request.state["known"] is not self._flags[True]:
            return None
        return WeightUpdate(self.weights, evaluation.weigh_seconds, {"rate": evaluation.state["rate"]})

    def target(self, rates: Tensor, means: Tensor) -> Tensor:
        """The weights that belong to rates and mean losses, ``[n]`` each; zero where the mean is."""
        tiny = torch.finfo(rates.dtype).tiny
        if self.normalized:
            rates = rates / rates.abs().sum().clamp_min(tiny)
        exponents = self.beta * rates
        if self.loss_weighted:
            exponents = exponents + means.log()
        moving = means > 0
        return moving.sum() * torch.softmax(torch.where(moving, exponents, -torch.inf), dim=0)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "previous": self.previous, "sums": self.sums}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.previous = state["previous"].to(self.weights)
        self.sums = state["sums"].to(self.weights)
