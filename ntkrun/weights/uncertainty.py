"""Weights learnt as the variances of the terms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ntkrun.common.types import Positive
from ntkrun.objective import Evaluation, Objective
from ntkrun.objective.batch import Batch
from ntkrun.weights.base import Request, Weighting, WeightUpdate

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # of Adam


@dataclass(kw_only=True, eq=False)
class Uncertainty(Weighting):
    """Every residual is seen as Gaussian noise whose log-variance s_i is learnt along with the network.

    The negative log-likelihood is sum_i (exp(-s_i) L_i + s_i) / 2, from s_i = 0; an Adam optimiser of their own
    updates the s_i at every step. The weight of L_i in the gradient is therefore exp(-s_i) / 2, 1/2 at the
    start, and tends to 1 / (2 L_i). A term whose loss is zero keeps its weight and the state of its optimiser.

    Source: Kendall, Gal, Cipolla, arXiv 1705.07115; for PINNs Xiang, Peng, Liu, Yao, arXiv 2104.06217.

    Args:
        learning_rate: of the log-variances.
    """

    learning_rate: Positive[float] = 1e-3

    def start(self, objective: Objective, seed: int) -> None:
        super().start(objective, seed)
        self.weights = 0.5 * self.weights
        zeros = torch.zeros_like(self.weights)
        self.adam = {"log_variances": zeros, "mean": zeros, "square": zeros, "steps": zeros}

    def request(self, step: int, objective: Objective, batch: Batch) -> Request:
        return Request(self.weights, "losses", self.rule, {"weights": self.weights, **self.adam})

    def rule(self, losses: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The weights of this step as they are, and a step of Adam for those of the next; a ``Rule``."""
        gradient = 0.5 - state["weights"] * losses
        steps = state["steps"] + 1
        mean = BETA1 * state["mean"] + (1 - BETA1) * gradient
        square = BETA2 * state["square"] + (1 - BETA2) * gradient.square()
        root = (square / -torch.expm1(steps * math.log(BETA2))).sqrt()
        change = mean / -torch.expm1(steps * math.log(BETA1)) / (root + EPSILON)
        variances = state["log_variances"] - self.learning_rate * change
        new = {"log_variances": variances, "mean": mean, "square": square, "steps": steps}
        adam = {name: torch.where(losses > 0, each, state[name]) for name, each in new.items()}
        return state["weights"], {**adam, "next": 0.5 * torch.exp(-adam["log_variances"])}

    def take(self, request: Request, evaluation: Evaluation) -> WeightUpdate | None:
        self.adam = {name: evaluation.state[name] for name in self.adam}
        self.weights = evaluation.state["next"]
        return WeightUpdate(evaluation.weights, evaluation.weigh_seconds)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "adam": dict(self.adam)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        # Version 0.1.0 counted the steps of all terms as one.
        self.adam = {name: state["adam"][name].to(own).expand_as(own).clone() for name, own in self.adam.items()}
