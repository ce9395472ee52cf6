"""Weights from sketched kernel traces."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from ntkrun.checked import Positive
from ntkrun.geometry import mix_seed
from ntkrun.ntk.sketch import Derivative, Difference, Distribution, Side, Sketch
from ntkrun.objective import Batch, Evaluation, Objective
from ntkrun.weights.base import WeightUpdate
from ntkrun.weights.policy import NTKWeighting


@dataclass(kw_only=True, eq=False)
class Sketched(NTKWeighting):
    """NTK weights from randomised estimates of the traces; see ``Sketch`` for the arguments.

    The weights are ratios of unbiased estimates and therefore slightly biased themselves.
    """

    sketch_size: Positive[int] = 16
    side: Side = "residual"
    derivative: Derivative = "autodiff"
    distribution: Distribution = "coordinate"
    difference: Difference = "forward"
    delta: Positive[float] | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        self.sketch = Sketch(
            self.sketch_size, self.side, self.derivative, self.distribution, self.difference, self.delta
        )

    def start(self, objective: Objective, seed: int) -> None:
        super().start(objective, seed)
        self.generator = torch.Generator().manual_seed(mix_seed(seed, 1))

    def extras(self) -> tuple[str, ...]:
        return ("standard_error", "delta") if self.derivative == "finite_difference" else ("standard_error",)

    def evaluate(self, step: int, objective: Objective, batch: Batch) -> tuple[Evaluation, WeightUpdate | None]:
        if not self.due(step):
            return objective.gradient(batch, self.weights), None
        start = time.perf_counter()
        estimate = self.sketch.estimate(objective, batch, self.generator)
        floored = self.absorb(estimate.traces, self.rows(objective, batch))
        extras = {"standard_error": estimate.standard_errors}
        if estimate.deltas is not None:
            extras["delta"] = estimate.deltas
        seconds = time.perf_counter() - start
        update = WeightUpdate(estimate.traces, self.weights, floored, seconds, extras)
        return objective.gradient(batch, self.weights), update

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.generator.set_state(state["generator"])
