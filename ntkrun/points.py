"""The collocation points of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ntkrun.geometry import Method, Sampler, mix_seed
from ntkrun.groups import Batch
from ntkrun.objective import Objective


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
        ValueError: counts do not fit the terms, or equispaced points are to be resampled.
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
        self.counts = {name: counts[name] for name in objective.names}
        self._objective = objective
        self._every = resample_every
        self._samplers = {
            term.name: Sampler(term.region, counts[term.name], method, mix_seed(seed, 2, i))
            for i, term in enumerate(objective.terms)
        }
        self.points: dict[str, Tensor] = {}
        self.drawn_at: int | None = None  # the step of the last draw
        self._batch: Batch = ()

    def at(self, step: int) -> Batch:
        """The batch for this step; must be asked in the order of the steps."""
        due = self._every is not None and step % self._every == 0 and step != self.drawn_at
        if not self.points or due:
            self.drawn_at = step
            self._use({name: sampler.draw() for name, sampler in self._samplers.items()})
        return self._batch

    @property
    def batch(self) -> Batch:
        """The batch in use."""
        return self._batch

    def _use(self, points: dict[str, Tensor]) -> None:
        self.points = points
        like = self._objective.like
        self._batch = self._objective.batch({name: x.to(like) for name, x in points.items()})

    def state_dict(self) -> dict[str, Any]:
        """The points in use, the step they were drawn at, and how many draws were made."""
        return {
            "drawn_at": self.drawn_at,
            "points": self.points,
            "samplers": {n: s.state_dict() for n, s in self._samplers.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        for name, sampler in self._samplers.items():
            sampler.load_state_dict(state["samplers"][name])
        self.drawn_at = state["drawn_at"]
        if state["points"]:
            self._use({name: state["points"][name].cpu() for name in self._samplers})
