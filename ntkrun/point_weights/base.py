"""The interface of point weights, and the choice to have none."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ntkrun.common.state_schema import schema_of
from ntkrun.objective import Objective
from ntkrun.objective.batch import Batch


class PointWeights(ABC):
    """Weights w_k of the points of a loss term: L_i = mean(w_k r_k^2).

    Rows are multiplied by sqrt(w_k), so kernels, traces and sketches are those of the weighted rows:
    tr K_ii = sum_k w_k |dr_k / dtheta|^2.

    Attributes:
        varying: whether the weights change from step to step.
    """

    varying = True

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

    def elsewhere(self, objective: Objective, batch: Batch) -> Batch:
        """Points that are compared with those trained on, with the weights that they would have there.

        As they are, where weights follow from the course of a run and not from where a point lies.
        """
        return batch

    def least(self) -> dict[str, float]:
        """The smallest weight in use of every term that has point weights, by term."""
        return {}

    def columns(self) -> tuple[str, ...]:
        """Names of the terms that have point weights."""
        return ()

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to resume, as tensors and plain values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027, most hold no state
        """Restore what ``state_dict`` gave, read by ``state_schema``."""

    def state_schema(self, counts: Mapping[str, int]) -> Any:
        """What a saved state must look like, see ``ntkrun.common.state_schema``; asked after ``start``.

        Args:
            counts: number of points by term.
        """
        return schema_of(self.state_dict())


class Uniform(PointWeights):
    """All points of a term count alike."""

    varying = False

    def apply(self, objective: Objective, batch: Batch) -> Batch:
        return batch

    def state_schema(self, counts: Mapping[str, int]) -> Any:
        return {}


def select_terms(objective: Objective, terms: list[str] | None) -> tuple[str, ...]:
    """The terms whose points are to be weighted, in the order of the loss terms.

    Args:
        objective: the problem and network.
        terms: names, of which hard constraints are ignored; ``None`` for the terms whose
            region is the whole domain.

    Raises:
        ValueError: a name is unknown, or there is nothing to weight.
    """
    names = ", ".join(objective.names)
    if terms is None:
        chosen = tuple(term.name for term in objective.terms if term.region == (objective.pde.domain,))
        if not chosen:
            raise ValueError(f"no term's region is the whole domain; set terms to some of {names}")
        return chosen
    unknown = [name for name in terms if name not in (*objective.names, *objective.built_in)]
    if unknown:
        raise ValueError(f"terms names {', '.join(unknown)}; the loss terms are {names}")
    chosen = tuple(name for name in objective.names if name in terms)
    if not chosen:
        raise ValueError(f"terms names none of the loss terms, which are {names}")
    return chosen


def plain_residuals(objective: Objective, batch: Batch, terms: tuple[str, ...]) -> dict[str, Tensor]:
    """Residuals of some terms without point weights and without a graph, ``[N_i, m_i]`` each."""
    residuals: dict[str, Tensor] = {}
    with torch.no_grad():
        for group in batch:
            names = [objective.names[i] for i in group.members]
            if not set(names).isdisjoint(terms):
                residuals |= dict(zip(names, objective.group_residuals(group), strict=True))
    return {name: residuals[name] for name in terms}


def fill_up(objective: Objective, batch: Batch, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The point weights of all terms: 1 for those that have none, ``[N_i, 1]``."""
    points = objective.points(batch)
    return {name: weights[name] if name in weights else x.new_ones(len(x), 1) for name, x in points.items()}
