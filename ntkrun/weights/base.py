"""What a weighting is, and the one that leaves all weights at 1."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ntkrun.groups import Batch
from ntkrun.objective import Evaluation, Objective


@dataclass(frozen=True)
class WeightUpdate:
    """What one update of the weights gave, and what it was made from.

    Attributes:
        weights: the weights from now on, ``[n]``.
        seconds: cost of the update.
        columns: further columns of the weight log by name, ``[n]`` each (``trace``, ``standard_error``).
        capped: which terms' weights were capped, ``[n]``; ``None`` where nothing caps them.
    """

    weights: Tensor
    seconds: float
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    capped: Tensor | None = None


class Weighting(ABC):
    """Weights of the loss terms, kept as a tensor ``[n]``."""

    weights: Tensor

    def start(self, objective: Objective, seed: int) -> None:
        """Prepare for a run: all weights 1, of the network's dtype and device.

        Args:
            objective: the problem and network to be trained.
            seed: of the weighting's own random numbers.

        Raises:
            ValueError: the weighting does not fit the network.
        """
        self.weights = torch.ones(len(objective.terms), dtype=objective.like.dtype, device=objective.like.device)

    def columns(self) -> tuple[str, ...]:
        """Names of the further per-term columns that updates bring."""
        return ()

    @abstractmethod
    def evaluate(self, step: int, objective: Objective, batch: Batch) -> tuple[Evaluation, WeightUpdate | None]:
        """The weighted gradient at this step, and the update of the weights if one was due."""

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on, as tensors and plain values."""
        return {"weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.weights = state["weights"].to(self.weights)


class Unweighted(Weighting):
    """All weights 1."""

    def evaluate(self, step: int, objective: Objective, batch: Batch) -> tuple[Evaluation, WeightUpdate | None]:
        return objective.gradient(batch, self.weights), None
