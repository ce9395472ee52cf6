"""Point weights that hold back later times until earlier ones are learnt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ntkrun.common.types import NonNegative, Positive
from ntkrun.objective import Objective
from ntkrun.objective.batch import Batch
from ntkrun.point_weights.base import PointWeights, fill_up, plain_residuals, select_terms


@dataclass(kw_only=True, eq=False)
class Causal(PointWeights):
    """A point counts once the residuals at earlier times are small.

    Time is cut into equal intervals. A point in interval i has weight

        w_i = exp(-epsilon sum_{k < i} L_k),

    where L_k is the mean over the points of interval k of their squared residuals, summed over the residuals of a
    point, at the present step; an interval without points counts as zero. Source: Wang, Sankaran, Perdikaris,
    arXiv 2203.07404.

    Args:
        epsilon: how small the residuals must be, roughly 1 / epsilon in sum.
        chunks: number of intervals.
        terms: names of the terms that are weighted; ``None`` for those whose region is the whole domain.
    """

    epsilon: NonNegative[float] = 1.0
    chunks: Positive[int] = 32
    terms: list[str] | None = None

    def start(self, objective: Objective, fixed_points: bool) -> None:
        domain = objective.pde.domain
        if "t" not in domain.free:
            raise ValueError(f"causal weights need a coordinate t; this problem has {', '.join(domain.coordinates)}")
        self._names = select_terms(objective, self.terms)
        self._axis = domain.coordinates.index("t")
        self._interval = domain.low["t"], domain.high["t"]
        self._earlier = objective.like.new_ones(self.chunks, self.chunks).tril(-1)
        self.weights = {name: objective.like.new_ones(self.chunks) for name in self._names}

    def update(self, objective: Objective, batch: Batch) -> None:
        points = objective.points(batch)
        for name, residual in plain_residuals(objective, batch, self._names).items():
            chunk = self._chunk(points[name])
            # A product with indicators, not a scatter, whose order of summation differs between runs on a device.
            members = (chunk == torch.arange(self.chunks, device=chunk.device)[:, None]).to(residual)
            means = members @ residual.square().sum(1) / members.sum(1).clamp_min(1)
            self.weights[name] = torch.exp(-self.epsilon * (self._earlier @ means))

    def apply(self, objective: Objective, batch: Batch) -> Batch:
        points = objective.points(batch)
        weights = {name: self.weights[name][self._chunk(points[name])][:, None] for name in self._names}
        return objective.weigh_points(batch, fill_up(objective, batch, weights))

    def least(self) -> dict[str, float]:
        return {name: float(weights.min()) for name, weights in self.weights.items()}

    def columns(self) -> tuple[str, ...]:
        return self._names

    def state_dict(self) -> dict[str, Any]:
        return {"weights": dict(self.weights)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.weights = {name: state["weights"][name].to(own) for name, own in self.weights.items()}

    def _chunk(self, points: Tensor) -> Tensor:
        """The interval of every point, ``[N]``; the end of the domain belongs to the last one."""
        start, end = self._interval
        position = (points[:, self._axis] - start) * (self.chunks / (end - start))
        return position.long().clamp(0, self.chunks - 1)
