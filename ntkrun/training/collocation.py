"""The collocation points of a run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ntkrun.common.state_schema import EmptyOr, NoneOr, Shaped, StateError, Whole
from ntkrun.geometry import Method, Sampler, mix_seed
from ntkrun.objective import Objective
from ntkrun.objective.batch import Batch

log = logging.getLogger(__name__)

LOOKED_AT = 1000  # points of a term; among very many, a few coincide in any interval
COINCIDING = 0.01  # share of them that rounding may bring together without a word


class PointSource:
    """Points of every term, drawn once or afresh every so many steps.

    Args:
        objective: names the terms and their regions; its network gives dtype and device.
        counts: number of points by term.
        method: how points are drawn.
        resample_every: steps between draws, the first at step 0; ``None`` keeps the first draw.
        seed: of the draws.

    Attributes:
        counts: number of points by term, of the terms that are trained.

    Raises:
        ValueError: counts do not fit the terms, or equispaced points are to be resampled, or a term has fewer points
            than boxes and these stay.
    """

    def __init__(
        self, objective: Objective, counts: Mapping[str, int], method: Method, resample_every: int | None, seed: int
    ) -> None:
        if set(counts) - set(objective.built_in) != set(objective.names):
            raise ValueError(
                f"points are given for {', '.join(counts)}; the loss terms are {', '.join(objective.names)}"
            )
        if method == "equispaced" and resample_every is not None:
            raise ValueError("equispaced points are the same at every draw; resample_every needs uniform or sobol")
        for term in objective.terms:
            if resample_every is None and counts[term.name] < len(term.region):
                raise ValueError(
                    f"{term.name}: {counts[term.name]} points for {len(term.region)} boxes, of which some would never "
                    f"have any; give at least {len(term.region)}, or set resample_every, and they take turns"
                )
        self.counts = {name: counts[name] for name in objective.names}
        self._objective = objective
        self._every = resample_every
        self._samplers = {
            term.name: Sampler(term.region, counts[term.name], method, mix_seed(seed, 2, i), term.shares)
            for i, term in enumerate(objective.terms)
        }
        self.drawn_at: int | None = None  # the step of the last draw
        self._drawn = 0
        self._block: dict[str, Tensor] = {}  # points of several draws, [K, N_i, d], and their batches
        self._batches: list[Batch] = []
        self._position = 0  # of the draw in use among these

    def at(self, step: int) -> Batch:
        """The batch for this step; must be asked in the order of the steps."""
        due = self._every is not None and step % self._every == 0 and step != self.drawn_at
        if due or not self._batches:
            self.drawn_at = step
            self._draw()
        return self._batches[self._position]

    @property
    def batch(self) -> Batch:
        """The batch in use; empty before the first draw."""
        return self._batches[self._position] if self._batches else ()

    @property
    def points(self) -> dict[str, Tensor]:
        """The points in use, ``[N_i, d]`` in float64 by term; empty before the first draw."""
        return {name: draws[self._position] for name, draws in self._block.items()}

    def _draw(self) -> None:
        """Use the next draw; those that follow are made and prepared with it, which costs little more than one."""
        first = self._drawn == 0
        self._drawn += 1
        self._position += 1
        if self._position >= len(self._batches):
            samplers = self._samplers
            number = 1 if self._every is None else min(sampler.left for sampler in samplers.values())
            self._use({name: sampler.draws(number) for name, sampler in samplers.items()})
        if first:
            _warn_of_rounding(self.points, self._objective)

    def _use(self, block: dict[str, Tensor]) -> None:
        """Use the first of several draws, ``[K, N_i, d]`` by term."""
        like = self._objective.like
        self._block, self._position = block, 0
        self._batches = self._objective.batches({name: x.to(like) for name, x in block.items()})

    def state_dict(self) -> dict[str, Any]:
        """The points in use, the step they were drawn at, and how many draws were made."""
        points = {name: x.clone() for name, x in self.points.items()}  # not the whole block
        return {"drawn_at": self.drawn_at, "points": points, "drawn": self._drawn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave, read by ``state_schema``."""
        if bool(state["points"]) != bool(state["drawn"]):
            raise StateError("the points in use do not fit the number of draws")
        self.drawn_at, self._drawn = state["drawn_at"], state["drawn"]
        for sampler in self._samplers.values():
            sampler.skip_to(self._drawn)
        if state["points"]:
            self._use({name: state["points"][name].cpu()[None] for name in self._samplers})

    def state_schema(self, step: int) -> Any:
        """What a state saved at a step must look like, see ``ntkrun.common.state_schema``."""
        like = torch.zeros((), dtype=torch.float64)
        width = len(self._objective.pde.coordinates)
        points = {name: Shaped((count, width), like, finite=True) for name, count in self.counts.items()}
        return {"drawn_at": NoneOr(Whole(0, step)), "points": EmptyOr(points), "drawn": Whole(0, step + 1)}


def _warn_of_rounding(points: Mapping[str, Tensor], objective: Objective) -> None:
    """Say along which coordinates points drawn apart coincide once they are rounded to the network's dtype."""
    dtype = objective.like.dtype
    for i, coordinate in enumerate(objective.pde.coordinates):
        for name, x in points.items():
            some = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:LOOKED_AT]
            column = x[some, i]
            drawn, left = (len(torch.unique(each)) for each in (column, column.to(dtype)))
            if drawn - left > COINCIDING * drawn:
                log.warning(
                    "%d values of %s among the points of term %s are only %d in %s; "
                    "take dtype=float64, or a coordinate that starts near 0",
                    *(drawn, coordinate, name, left, str(dtype).removeprefix("torch.")),
                )
                break
