"""The interface of weightings, and the one that leaves all weights at 1."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from ntkrun.common.state_schema import schema_of
from ntkrun.objective import Evaluation, Objective
from ntkrun.objective.batch import Batch
from ntkrun.objective.chosen import Chosen


@dataclass(frozen=True)
class WeightUpdate:
    """What one update of the weights gave, and what it was made from.

    Attributes:
        weights: the weights from now on, ``[n]``.
        seconds: cost of the update; ``None`` where it is part of a compiled step.
        columns: further columns of the weight log by name, ``[n]`` each (``trace``, ``standard_error``).
        capped: which terms' weights were capped, ``[n]``; ``None`` where nothing caps them.
        restarted: which terms' recursive estimates could not be continued, ``[n]``; ``None`` where there are none.
        idle: which terms kept their weights for want of a gradient, ``[n]``; ``None`` where none is looked at.
    """

    weights: Tensor
    seconds: float | None
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    capped: Tensor | None = None
    restarted: Tensor | None = None
    idle: Tensor | None = None


Rule = Callable[[Tensor, Mapping[str, Tensor]], tuple[Tensor, Mapping[str, Tensor]]]
"""``rule(signal, state)``: from traces, losses or samples, and tensors of the weighting's own to the weights of this
step, ``[n]``, and further tensors. It is compiled into the step, so it is made of tensor operations alone, and whatever
changes from step to step is in ``state``."""


@dataclass(frozen=True)
class Request:
    """What a weighting asks of the gradient's pass in one step.

    Attributes:
        weights: of this step, where they are known before the pass.
        signal: what the weights are made from otherwise: the ``losses`` or the kernel ``traces`` of the pass, or
            ``samples`` of diag(K_ii) at the points ``chosen`` of all terms (``ntkrun.objective.chosen``).
        rule: how. The same function in every step, so that one compiled step serves all.
        state: what the rule reads.
        chosen: points of every term.
        evaluation: the pass itself, where the weighting has made it already.
        update: of the weights, where it was made before the pass.
        every: a request of this kind is made in one of so many steps.
    """

    weights: Tensor
    signal: Literal["losses", "traces", "samples"] | None = None
    rule: Rule | None = None
    state: Mapping[str, Tensor] = field(default_factory=dict)
    chosen: tuple[Chosen, ...] = ()
    evaluation: Evaluation | None = None
    update: WeightUpdate | None = None
    every: int = 1

    def evaluate(self, objective: Objective, batch: Batch) -> Evaluation:
        """Make the pass: the weighted gradient and what came with it."""
        if self.evaluation is not None:
            return self.evaluation
        rule = self.rule
        if rule is None:
            return objective.gradient(batch, self.weights)
        given: dict[str, Tensor] = {}

        def weigh(signal: Tensor) -> Tensor:
            weights, further = rule(signal, self.state)
            given.update(further)
            return weights

        if self.signal == "losses":
            evaluation = objective.gradient(batch, weigh)
        else:
            evaluation = objective.fused(batch, weigh, self.chosen)
        return replace(evaluation, state=given)


def flags(like: Tensor) -> dict[bool, Tensor]:
    """The two truth values as tensors on the device of ``like``, for a ``Rule`` that acts at some steps only."""
    return {value: torch.tensor(value, device=like.device) for value in (False, True)}


class Weighting(ABC):
    """Weights of the loss terms, kept as a tensor ``[n]``.

    Attributes:
        weights: the present ones.
        rows_at_hand: whether the coming step is made from residual rows and their Jacobian, so that traces cost
            nothing; set before every request.
    """

    weights: Tensor
    rows_at_hand: bool = False

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

    def request(self, step: int, objective: Objective, batch: Batch) -> Request:
        """What the gradient's pass of this step shall do; asked once per step."""
        return Request(self.weights)

    def take(self, request: Request, evaluation: Evaluation) -> WeightUpdate | None:
        """Take note of the pass that was asked for; returns the update of the weights if one was made."""
        return request.update

    def evaluate(self, step: int, objective: Objective, batch: Batch) -> tuple[Evaluation, WeightUpdate | None]:
        """The weighted gradient at this step, and the update of the weights if one was due."""
        request = self.request(step, objective, batch)
        evaluation = request.evaluate(objective, batch)
        return evaluation, self.take(request, evaluation)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to resume, as tensors and plain values."""
        return {"weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave, read by ``state_schema``."""
        self.weights = state["weights"].to(self.weights)

    def state_schema(self) -> Any:
        """What a saved state must look like, see ``ntkrun.common.state_schema``; asked after ``start``."""
        return schema_of(self.state_dict())


class Unweighted(Weighting):
    """All weights 1."""
