"""The collocation points of a run."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ntkrun.backend.transfer import moved
from ntkrun.common.state_schema import EmptyOr, NoneOr, Shaped, StateError, Whole
from ntkrun.geometry import Method, Pool, Sampler, TermPoints, mix_seed
from ntkrun.objective import Objective
from ntkrun.objective.batch import Batch
from ntkrun.pde import Term
from ntkrun.pde.check import place
from ntkrun.training.lookout import CHECK_EVERY, Lookout, Weigh

log = logging.getLogger(__name__)

LOOKED_AT = 1000  # points of a term; among very many, a few coincide in any interval
BESIDE = 1e-6  # of the domain's size, that points of its boundary may lie outside
COINCIDING = 0.01  # share of them that rounding may bring together without a word

Sampling = Method | Literal["adaptive", "r3"]
Every = int | Literal["auto"] | None

CANDIDATES = 8  # per point of a term that is adapted to its residuals


def unweighed(batch: Batch) -> Batch:
    """The batch as it is."""
    return batch


class PointSource:
    """Points of every term, drawn once, afresh every so many steps, or when the network fits them alone.

    Adaptive points start as a Sobol sequence. Every later draw chooses those of terms on the whole domain among eight
    times as many, without repeats, by the density |r| / mean |r| + 1, r being the residual at the time of the draw
    (residual-based adaptive distribution of Wu, Zhu, Tan, Kartha, Lu, arXiv 2207.10289). The constant half of it is the
    beginning of the first Sobol draw, which leaves no gaps as independent points do. With ``r3`` those points whose |r|
    is above its mean stay, the largest of them where they are more than half, and the others are the beginning of the
    next draw (retain, resample, release of Daw, Bu, Wang, Perdikaris, Karpatne, arXiv 2207.02338, who draw independent
    points and keep however many lie above the mean).

    Args:
        objective: names the terms and their regions; its network gives dtype and device.
        counts: number of points by term.
        method: how points are drawn.
        resample_every: steps between draws, the first at step 0; ``None`` keeps the first draw. ``auto`` draws anew
            where a ``Lookout``, every ``CHECK_EVERY`` steps, finds points left behind; equispaced points stay. Points
            that stay are looked at where that is asked for (``at``), and may end the run.
        seed: of the draws.
        batch: the most points of a term at a time. A term that has more of them gives so many at every step, each of
            its points once per epoch (see ``Pool``); the others keep theirs. ``resample_every`` has no effect then.

    Attributes:
        counts: number of points by term at a time, of the terms that are trained.
        totals: number of points by term in all.

    Raises:
        ValueError: counts do not fit the terms, or equispaced points are to be resampled, or a term has fewer points
            than boxes or rows of a table and these stay, or adaptive points are to stay.
    """

    def __init__(
        self,
        objective: Objective,
        counts: Mapping[str, int],
        method: Sampling,
        resample_every: Every,
        seed: int,
        batch: int | None = None,
    ) -> None:
        if set(counts) - set(objective.built_in) != set(objective.names):
            given = ", ".join(counts) or "no loss term"
            raise ValueError(f"points are given for {given}; the loss terms are {', '.join(objective.names)}")
        if batch is not None:
            resample_every = None
        if method == "equispaced" and isinstance(resample_every, int):
            raise ValueError("equispaced points are the same at every draw; resample_every needs uniform or sobol")
        for term in objective.terms:
            check_all_have_points(term, counts[term.name], resample_every)
        follows = method in ("adaptive", "r3")
        if follows and batch is not None:
            raise ValueError(f"{method} points follow the residuals and are no fixed set; batches take others")
        if follows and resample_every is None:
            raise ValueError(f"{method} points follow the residuals at every draw; give resample_every, say 10 steps")
        self.totals = {name: counts[name] for name in objective.names}
        self.counts = {name: min(total, batch or total) for name, total in self.totals.items()}
        self._objective = objective
        self._every: Every = None if method == "equispaced" else resample_every
        basis: Method = "sobol" if method == "adaptive" or method == "r3" else method
        self._samplers: dict[str, TermPoints] = {}
        for i, term in enumerate(objective.terms):
            total, own = counts[term.name], mix_seed(seed, 2, i)
            if batch is None:
                self._samplers[term.name] = Sampler(term.region, total, basis, own, term.shares)
            else:
                self._samplers[term.name] = Pool(term.region, total, batch, basis, own, term.shares)
        if self.counts != self.totals:
            self._every = 1
        self._adapted = [term.name for term in objective.terms if follows and term.region == (objective.pde.domain,)]
        self._draws_at_a_time = CANDIDATES if self._adapted and method == "adaptive" else 1
        self._seed = mix_seed(seed, 4)
        self._lookout = Lookout(objective, self.counts, self._seed, stay=self._every is None)
        self.drawn_at: int | None = None  # the step of the last draw
        self._drawn = 0
        self._block: dict[str, Tensor] = {}  # points of several draws, [K, N_i, d + k_i], and their batches
        self._batches: list[Batch] = []
        self._position = 0  # of the draw in use among these

    def at(self, step: int, weights: Tensor | None = None, weigh: Weigh = unweighed, watch: bool = False) -> Batch:
        """The batch for this step; must be asked in the order of the steps.

        Args:
            step: optimiser steps done.
            weights: of the terms, ``[n]``, which weigh losses where these are compared; all 1 without.
            weigh: gives points the weights with which their losses are compared.
            watch: whether points that stay are compared with independent ones, too: steps of the optimiser are so
                good that they may fit these alone, and take long enough for looks to cost little.
        """
        if not self._batches or (step != self.drawn_at and self._due(step, weights, weigh, watch)):
            self.drawn_at = step
            self._draw()
        return self._batches[self._position]

    def _due(self, step: int, weights: Tensor | None, weigh: Weigh, watch: bool) -> bool:
        """Whether to draw anew at a step."""
        if isinstance(self._every, int):
            return step % self._every == 0
        stay = self._every is None
        if step % CHECK_EVERY or (stay and not watch):
            return False
        return self._lookout.left_behind(step, self.batch, weights, weigh, watch) and not stay

    @property
    def ended(self) -> str:
        """Why the run is to end; empty where it is not."""
        return self._lookout.ended

    def epochs(self, step: int) -> dict[str, float]:
        """How often all points of a term were trained on before a step, of the terms that give batches of them."""
        return {n: step * self.counts[n] / total for n, total in self.totals.items() if self.counts[n] < total}

    @property
    def batch(self) -> Batch:
        """The batch in use; empty before the first draw."""
        return self._batches[self._position] if self._batches else ()

    @property
    def points(self) -> dict[str, Tensor]:
        """The points in use, ``[N_i, d + k_i]`` in float64 by term; empty before the first draw."""
        return {name: draws[self._position] for name, draws in self._block.items()}

    def _draw(self) -> None:
        """Use the next draw; those that follow are made and prepared with it, which costs little more than one."""
        first = self._drawn == 0
        if self._adapted and self._batches:
            self._adapt()
            return
        self._drawn += 1
        self._position += 1
        if self._position >= len(self._batches):
            samplers = self._samplers
            number = (
                1
                if self._every in (None, "auto") or self._adapted
                else min(sampler.left for sampler in samplers.values())
            )
            self._use({name: sampler.draws(number) for name, sampler in samplers.items()})
        if first:
            _warn_of_rounding(self.points, self._objective)
            _warn_of_places(self.points, self._objective)

    def _adapt(self) -> None:
        """Use new points, chosen by the residuals."""
        number = self._draws_at_a_time
        draws = {n: torch.stack([s.draw() for _ in range(number)]) for n, s in self._samplers.items()}
        chosen = self._chosen(draws) if number > 1 else self._retained(draws)
        self._drawn += number
        self._use({name: x[:1] for name, x in draws.items()} | chosen)

    def _chosen(self, draws: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Candidates for the adapted terms, drawn by their residuals, ``[1, N_i, d + k_i]``."""
        like = self._objective.like
        batches = self._objective.batches({name: x.to(like) for name, x in draws.items()})
        generator = torch.Generator().manual_seed(mix_seed(self._seed, self._drawn))
        sizes = self._sizes(batches)
        chosen = {name: _choose(sizes[name], self.counts[name], generator) for name in self._adapted}
        return {name: draws[name].flatten(0, 1)[rows][None] for name, rows in chosen.items()}

    def _retained(self, draws: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Points in use with large residuals before new ones, of the adapted terms, ``[1, N_i, d + k_i]``."""
        points, sizes = self.points, self._sizes([self.batch])
        kept = {name: points[name][_retain(sizes[name])] for name in self._adapted}
        return {name: torch.cat([x, draws[name][0, : self.counts[name] - len(x)]])[None] for name, x in kept.items()}

    def _sizes(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """|r| at all points of some batches by adapted term, ``[K * N_i]`` in float64."""
        names = self._objective.names
        with torch.no_grad():
            residuals = [self._objective.residuals(batch) for batch in batches]
        return {
            name: torch.cat(
                [rows[names.index(name)].view(-1, self.counts[name]).square().sum(0).sqrt() for rows in residuals]
            )
            .double()
            .cpu()
            for name in self._adapted
        }

    def _use(self, block: dict[str, Tensor]) -> None:
        """Use the first of several draws, ``[K, N_i, d + k_i]`` by term."""
        like = self._objective.like
        self._block, self._position = block, 0
        self._batches = self._objective.batches({name: moved(x, like) for name, x in block.items()})

    def state_dict(self) -> dict[str, Any]:
        """The points in use, the step they were drawn at, and how many draws were made."""
        points = {name: x.clone() for name, x in self.points.items()}  # not the whole block
        return {"drawn_at": self.drawn_at, "points": points, "drawn": self._drawn, **self._lookout.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave, read by ``state_schema``."""
        if bool(state["points"]) != bool(state["drawn"]):
            raise StateError("the points in use do not fit the number of draws")
        self.drawn_at, self._drawn = state["drawn_at"], state["drawn"]
        self._lookout.load_state_dict(state)
        for sampler in self._samplers.values():
            sampler.skip_to(self._drawn)
        if state["points"]:
            self._use({name: state["points"][name].cpu()[None] for name in self._samplers})

    def state_schema(self, step: int) -> Any:
        """What a state saved at a step must look like, see ``ntkrun.common.state_schema``."""
        like = torch.zeros((), dtype=torch.float64)
        widths = dict(zip(self._objective.names, self._objective.widths, strict=True))
        points = {name: Shaped((count, widths[name]), like, finite=True) for name, count in self.counts.items()}
        return {
            "drawn_at": NoneOr(Whole(0, step)),
            "points": EmptyOr(points),
            "drawn": Whole(0, (step + 1) * self._draws_at_a_time),
            **self._lookout.state_schema(),
        }


def check_all_have_points(term: Term, count: int, resample_every: Every) -> None:
    """Turn down a term of which some boxes, or rows of a table, would never have a point.

    Raises:
        ValueError: how many points are enough.
    """
    least = sum(part.least for part in term.region)
    if count >= least or isinstance(resample_every, int):
        return
    what = f"{least} boxes" if least == len(term.region) else f"{least} rows"
    now = "null" if resample_every is None else resample_every
    raise ValueError(
        f"{term.name}: {count} points for {what}, of which some would never have any; give at least {least}, or set "
        f"resample_every, which is {now} here, to a number of steps, and they take turns"
    )


def _warn_of_rounding(points: Mapping[str, Tensor], objective: Objective) -> None:
    """Say along which coordinates points drawn apart coincide once they are rounded to the network's dtype."""
    dtype = objective.like.dtype
    for i, coordinate in enumerate(objective.pde.coordinates):
        for name, x in points.items():
            column = _some(x)[:, i]
            drawn, left = (len(torch.unique(each)) for each in (column, column.to(dtype)))
            if drawn - left > COINCIDING * drawn:
                log.warning(
                    "%d values of %s among the points of term %s are only %d in %s; "
                    "take dtype=float64, or a coordinate that starts near 0",
                    *(drawn, coordinate, name, left, str(dtype).removeprefix("torch.")),
                )
                break


def _warn_of_places(points: Mapping[str, Tensor], objective: Objective) -> None:
    """Say which terms have points outside of the domain, where no error is looked at and nothing is predicted."""
    pde = objective.pde
    size = max(pde.domain.high[c] - pde.domain.low[c] for c in pde.coordinates)
    for term in objective.terms:
        if term.region == (pde.domain,) or not (term.derivatives or term.operators):  # points stand for integrals
            continue
        some = _some(points[term.name])[:, : len(pde.coordinates)]
        outside = ~pde.domain.contains(some, BESIDE * size)
        if outside.any():
            log.warning(
                "loss term %s: %.3g %% of its points lie outside of the domain, one at %s",
                *(term.name, 100 * float(outside.double().mean()), place(pde, some[outside][0])),
            )


def _some(points: Tensor) -> Tensor:
    """Some of many points, the same ones always."""
    return points[torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[:LOOKED_AT]]


def _choose(size: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Indices of ``count`` different entries of ``size``, ``[N]``, in ascending order.

    The first ``count // 2`` are taken as they are. The others are drawn one after the other with probabilities
    proportional to size, which the largest of log(size) + Gumbel noise are; where sizes are of no use, all are alike.
    """
    kept = count // 2
    rest = size[kept:]
    usable = bool(torch.isfinite(rest).all()) and bool((rest > 0).any())
    uniform = torch.rand(len(rest), generator=generator, dtype=torch.float64).clamp_min(1e-300)
    keys = (rest if usable else torch.ones_like(rest)).log() - (-uniform.log()).log()
    return torch.cat([torch.arange(kept), kept + keys.topk(count - kept).indices.sort().values])


def _retain(size: Tensor) -> Tensor:
    """Indices of the entries of ``size``, ``[N]``, above its mean, of the N // 2 largest alone, in ascending order.

    Without that bound, the points that stay leave too few new ones to cover the domain.
    """
    largest = size.topk(len(size) // 2).indices
    return largest[size[largest] > size.mean()].sort().values
