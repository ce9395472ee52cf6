"""Weights learnt as the variances of the terms."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ntkrun.checked import Positive
from ntkrun.groups import Batch
from ntkrun.objective import Evaluation, Objective
from ntkrun.weights.base import Weighting, WeightUpdate


@dataclass(kw_only=True, eq=False)
class Uncertainty(Weighting):
    """Every residual is seen as Gaussian noise whose log-variance s_i is learnt along with the network.

    The negative log-likelihood is sum_i (exp(-s_i) L_i + s_i) / 2, from s_i = 0; an Adam optimiser of their own
    updates the s_i at every step. The weight of L_i in the gradient is therefore exp(-s_i) / 2, 1/2 at the
    start, and tends to 1 / (2 L_i).

    Source: Kendall, Gal, Cipolla, arXiv 1705.07115; for PINNs Xiang, Peng, Liu, Yao, arXiv 2104.06217.

    Args:
        learning_rate: of the log-variances.
    """

    learning_rate: Positive[float] = 1e-3

    def start(self, objective: Objective, seed: int) -> None:
        super().start(objective, seed)
        self.log_variances = torch.zeros_like(self.weights)
        self.optimizer = torch.optim.Adam([self.log_variances], lr=self.learning_rate, fused=True)
        self.weights = self._factors()

    def evaluate(self, step: int, objective: Objective, batch: Batch) -> tuple[Evaluation, WeightUpdate | None]:
        weights = self.weights

        def weigh(losses: Tensor) -> Tensor:
            self.log_variances.grad = 0.5 - weights * losses
            self.optimizer.step()
            self.weights = self._factors()  # of the next step
            return weights

        evaluation = objective.gradient(batch, weigh)
        return evaluation, WeightUpdate(weights, evaluation.weigh_seconds)

    def _factors(self) -> Tensor:
        return 0.5 * torch.exp(-self.log_variances)

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "log_variances": self.log_variances.clone(),
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.log_variances.copy_(state["log_variances"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.optimizer.param_groups[0]["lr"] = self.learning_rate
