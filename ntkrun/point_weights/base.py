"""What point weights are, and the choice to have none."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from ntkrun.objective import Objective
from ntkrun.residuals import Batch


class PointWeights(ABC):
    """Weights w_k of the points of a loss term: L_i = mean(w_k r_k^2).

    Rows are multiplied by sqrt(w_k), so kernels, traces and sketches are those of the weighted rows:
    tr K_ii = sum_k w_k |dr_k / dtheta|^2.

    Attributes:
        varying: whether the weights change from step to step.
    """

    varying: ClassVar[bool] = True

    def start(self, objective: Objective, fixed_points: bool) -> None:  # noqa: B027, most need no preparation
        """Prepare for a run.

        Args:
            objective: the problem and network to be trained.
            fixed_points: whether the points stay the same over the run.

        Raises:
            ValueError: the point weights do not fit the problem or its sampling.
        """

    def update(self, objective: Objective, batch: Batch) -> None:  # noqa: B027, most hold no state
        """Take note of the residuals at a step, before ``apply``; called once per step."""

    @abstractmethod
    def apply(self, objective: Objective, batch: Batch) -> Batch:
        """The batch with its point weights, by ``Objective.weigh_points``."""

    def least(self) -> dict[str, float]:
        """The smallest weight in use of every term that has point weights, by term."""
        return {}

    def columns(self) -> tuple[str, ...]:
        """Names of the terms that have point weights."""
        return ()

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on, as tensors and plain values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027, most hold no state
        """Restore what ``state_dict`` gave."""


class Uniform(PointWeights):
    """All points of a term count alike."""

    varying = False

    def apply(self, objective: Objective, batch: Batch) -> Batch:
        return batch
