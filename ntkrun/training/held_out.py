"""Losses at points that are not trained on: what tells good networks from others where no solution is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType

from ntkrun.geometry import Region, Sampler, mix_seed
from ntkrun.objective import Objective
from ntkrun.training.few_points import few_hold_loss

MOST = 10_000  # points of a term


class HeldOut:
    """Losses at points of their own, as many as a run trains on, drawn once with a seed of their own.

    Args:
        objective: names the terms and their regions.
        counts: number of points by term.
        seed: of the run.
        apart: what the points of some terms are drawn from in place of their regions: measured values that are not
            trained on, as many as there are.
    """

    def __init__(
        self,
        objective: Objective,
        counts: Mapping[str, int],
        seed: int,
        apart: Mapping[str, tuple[Region, ...]] = MappingProxyType({}),
    ) -> None:
        self._objective = objective
        points = {}
        for i, term in enumerate(objective.terms):
            region = apart.get(term.name, term.region)
            wanted = sum(part.least for part in region) if term.name in apart else counts[term.name]
            count = max(len(region), min(MOST, wanted))  # no box without a point
            sampler = Sampler(region, count, "sobol", mix_seed(seed, 5, i), term.shares)
            points[term.name] = sampler.draw().to(objective.like)
        self._batch = objective.batch(points)

    def losses(self) -> list[float]:
        """The mean squared residual of every term, of the network in evaluation mode and without point weights.

        Residuals that read the progress are those of the end of the run, so that networks are compared by one problem.
        """
        with self._as_at_the_end():
            losses: list[float] = self._objective.losses(self._batch).tolist()
        return losses

    def held_by_few(self, weights: Sequence[float]) -> str:
        """Which few points hold most of the loss, empty where they are many; see ``few_hold_loss``."""
        with self._as_at_the_end():
            return few_hold_loss(self._objective, self._batch, weights)

    @contextmanager
    def _as_at_the_end(self) -> Iterator[None]:
        network, progress = self._objective.network, self._objective.progress
        training, done = network.training, progress.clone()
        network.eval()
        progress.fill_(1)
        try:
            yield
        finally:
            network.train(training)
            progress.copy_(done)
