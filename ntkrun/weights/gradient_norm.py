"""Weights from the gradients of the single loss terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from ntkrun.common.state_schema import Added, Whole
from ntkrun.common.types import Fraction, Positive
from ntkrun.objective import Evaluation, Objective
from ntkrun.objective.batch import Batch
from ntkrun.weights.base import Request, Weighting, WeightUpdate


@dataclass(kw_only=True, eq=False)
class GradientNorm(Weighting):
    """Weights that make the gradients of all terms alike in size.

    ``max_mean``, learning-rate annealing (Wang, Teng, Perdikaris, arXiv 2001.04536):
    new_i = max |grad L_ref| / mean |grad lambda_i L_i|, over all trainable parameters, lambda_i the weight so far, as
    in the programs published with the paper; the reference keeps weight 1.
    ``norm`` (Wang, Sankaran, Wang, Perdikaris, arXiv 2308.08468): new_i = sum_j ||grad L_j|| / ||grad L_i||.

    Under ``max_mean`` the weights tend to the square root of max |grad L_ref| / mean |grad L_i|. Without lambda_i in
    the denominator they would tend to that ratio itself, which drives the weight of a term that is fitted well ever
    higher. The published programs update every 10 steps with smoothing 0.9 (alpha = 0.1).

    At an update the gradient of the step is the weighted sum of the gradients of the terms. A term without a gradient,
    or with one that is not finite, keeps its weight and takes no part in those of the others.

    Args:
        update_every: steps between updates, the first at step 0.
        statistic: ``max_mean`` or ``norm``.
        reference: the term whose weight stays 1, with ``max_mean``.
        smoothing: beta = 1 - alpha in lambda <- beta lambda + (1 - beta) new; the first update of a term is not
            smoothed.
        floor: the least mean |grad L_i| or ||grad L_i|| allowed, as a fraction of the numerator, so that no new
            weight exceeds 1 / floor.
    """

    update_every: Positive[int] = 100
    statistic: Literal["max_mean", "norm"] = "norm"
    reference: str = "residual"
    smoothing: Fraction = 0.9
    floor: Annotated[float, Field(gt=0, lt=1)] = 1e-8

    def columns(self) -> tuple[str, ...]:
        return ("gradient_max", "gradient_mean") if self.statistic == "max_mean" else ("gradient_norm",)

    def start(self, objective: Objective, seed: int) -> None:
        super().start(objective, seed)
        if self.statistic == "max_mean" and self.reference not in objective.names:
            raise ValueError(f"reference={self.reference}; the loss terms are {', '.join(objective.names)}")
        self.updates = 0
        self.known = torch.zeros_like(self.weights, dtype=torch.bool)  # terms that have had a gradient

    def request(self, step: int, objective: Objective, batch: Batch) -> Request:
        if step % self.update_every:
            return Request(self.weights)
        start = objective.clock()
        losses, gradients = objective.term_gradients(batch)
        new, capped, idle, columns = self.target(gradients, self.weights, objective.names)
        smoothed = torch.where(self.known, self.smoothing * self.weights + (1 - self.smoothing) * new, new)
        self.weights = torch.where(idle, self.weights, smoothed)
        self.known = self.known | ~idle
        self.updates += 1
        # One of the n passes is the one that every step takes.
        seconds = (objective.clock() - start) * (1 - 1 / len(losses))
        gradient = objective.layout.unflatten(self.weights @ gradients)
        evaluation = Evaluation(losses, self.weights, gradient)
        update = WeightUpdate(self.weights, seconds, columns, capped, idle=idle)
        return Request(self.weights, evaluation=evaluation, update=update)

    def target(
        self, gradients: Tensor, weights: Tensor, names: tuple[str, ...]
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """The weights that belong to gradients, before smoothing.

        Args:
            gradients: of every unweighted loss, ``[n, P]``.
            weights: so far, ``[n]``.
            names: the terms.

        Returns:
            New weights, which terms hit the floor, which have no gradient that could be used and therefore no new
            weight, ``[n]`` each, and the columns to be logged.
        """
        if self.statistic == "norm":
            sizes = gradients.norm(dim=1)
            usable = torch.isfinite(sizes) & (sizes > 0)
            new, capped = self._ratio(torch.where(usable, sizes, 0).sum(), sizes, usable)
            return new, capped, ~usable, {"gradient_norm": sizes}
        largest, means = gradients.abs().amax(1), weights * gradients.abs().mean(1)
        reference = names.index(self.reference)
        others = torch.arange(len(names), device=gradients.device) != reference
        usable = torch.isfinite(means) & (means > 0) & (means[reference] > 0)
        new, capped = self._ratio(largest[reference], means, usable)
        columns = {"gradient_max": largest, "gradient_mean": means}
        return torch.where(others, new, torch.ones_like(new)), capped & others, others & ~usable, columns

    def _ratio(self, numerator: Tensor, sizes: Tensor, usable: Tensor) -> tuple[Tensor, Tensor]:
        least = self.floor * numerator
        return numerator / torch.where(usable, torch.maximum(sizes, least), 1), usable & (sizes < least)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "updates": self.updates, "known": self.known}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.updates = state["updates"]
        known = state.get("known")  # version 0.1.0 did not keep it
        self.known = self.known | (self.updates > 0) if known is None else known.to(self.known)

    def state_schema(self) -> Any:
        return {**super().state_schema(), "updates": Whole(), "known": Added(self.known)}
