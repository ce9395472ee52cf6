"""Constant weights."""

from __future__ import annotations

from dataclasses import dataclass

from ntkrun.common.types import NonNegative
from ntkrun.objective import Objective
from ntkrun.weights.base import Weighting


@dataclass(kw_only=True, eq=False)
class Fixed(Weighting):
    """Weights given by hand.

    Args:
        values: weights by term; terms that are not named have weight 1. Hard constraints may
            be named and have no effect.
    """

    values: dict[str, NonNegative[float]] | None = None

    def start(self, objective: Objective, seed: int) -> None:
        super().start(objective, seed)
        values = self.values or {}
        unknown = [name for name in values if name not in (*objective.names, *objective.built_in)]
        if unknown:
            raise ValueError(f"values names {', '.join(unknown)}; the loss terms are {', '.join(objective.names)}")
        self.weights = self.weights.new_tensor([values.get(name, 1.0) for name in objective.names])
