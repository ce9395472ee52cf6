"""Point weights that gather where residuals stay large."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ntkrun.common.state_schema import EmptyOr, Shaped
from ntkrun.common.types import Fraction, Positive
from ntkrun.objective import Objective
from ntkrun.objective.batch import Batch
from ntkrun.point_weights.base import PointWeights, fill_up, plain_residuals, select_terms


@dataclass(kw_only=True, eq=False)
class ResidualAttention(PointWeights):
    """Residual-based attention: L_i = mean((lambda_k r_k)^2), so that the weight of row k is lambda_k^2.

    At every step lambda_k <- gamma lambda_k + eta |r_k| / max |r|, from 0; lambda_k stays below
    eta / (1 - gamma). With several residuals per point, each has its own lambda_k and its own maximum.

    Source: Anagnostopoulos, Toscano, Stergiopulos, Karniadakis, arXiv 2307.00379.

    Args:
        gamma: decay per step.
        eta: learning rate.
        terms: names of the terms that are weighted; ``None`` for those whose region is the whole domain.
    """

    gamma: Fraction = 0.999
    eta: Positive[float] = 0.01
    terms: list[str] | None = None

    def start(self, objective: Objective, fixed_points: bool) -> None:
        if not fixed_points:
            raise ValueError("residual attention keeps a weight for every point and needs points that stay the same")
        self._names = select_terms(objective, self.terms)
        self._like = objective.like.detach()
        self._components = dict(zip(objective.names, objective.components, strict=True))
        self.attention: dict[str, Tensor] = {}

    def update(self, objective: Objective, batch: Batch) -> None:
        for name, residual in plain_residuals(objective, batch, self._names).items():
            size = residual.abs()
            share = size / size.amax(0).clamp_min(torch.finfo(size.dtype).tiny)
            before = self.attention.get(name, torch.zeros_like(share))
            self.attention[name] = self.gamma * before + self.eta * share

    def apply(self, objective: Objective, batch: Batch) -> Batch:
        """The batch with its point weights; before the first ``update`` these are 1."""
        weights = {name: attention.square() for name, attention in self.attention.items()}
        return objective.weigh_points(batch, fill_up(objective, batch, weights))

    def least(self) -> dict[str, float]:
        return {name: float(attention.square().min()) for name, attention in self.attention.items()}

    def columns(self) -> tuple[str, ...]:
        return self._names

    def state_dict(self) -> dict[str, Any]:
        return {"attention": dict(self.attention)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.attention = {name: attention.to(self._like) for name, attention in state["attention"].items()}

    def state_schema(self, counts: Mapping[str, int]) -> Any:
        shapes = {name: (counts[name], self._components[name]) for name in self._names}
        return {"attention": EmptyOr({name: Shaped(shape, self._like) for name, shape in shapes.items()})}
