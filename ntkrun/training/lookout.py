"""Looks at points that are not trained on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ntkrun.common.state_schema import Added, ListOf, Shaped
from ntkrun.geometry import TIME, Sampler, mix_seed
from ntkrun.objective import Objective
from ntkrun.objective.batch import Batch
from ntkrun.training.few_points import few_hold_loss
from ntkrun.training.time_marching import may_grow

log = logging.getLogger(__name__)

Weigh = Callable[[Batch], Batch]
"""Gives the points of a batch their weights."""

CHECK_EVERY = 5  # steps between looks
LEFT_BEHIND = 2.0  # times the loss at the points, beyond which they are left behind
IN_A_ROW = 10  # looks that all find points left behind, within which the loss elsewhere must have fallen
PLACES = 10  # single points of a term, from which on it is taken for one of measured values
MEASURED_IN_A_ROW = 6  # the same of a problem with such values, where points that stay would be looked at
LEARNT = 0.75  # of their loss, the least that a row leaves where their errors alone are learnt


class Lookout:
    """Compares the loss at the points of a run with that at independent ones, and says what follows.

    Points are left behind where the weighted loss is more than ``LEFT_BEHIND`` times as large at as many independent
    ones. In a row of ``IN_A_ROW`` looks that find this, the loss there must fall; otherwise the network fits points
    alone, or few points hold all of the loss, as next to a corner, where it need not tell the error. Of points that are
    drawn anew this is said, once in a row, and points that stay end the run. So does a problem with measured values,
    whose errors are all that is left to fit from there on. Values have no other points, so that the loss of all other
    terms tells, and it is looked at wherever values hold most of the loss at the points, too. Looks in between that
    find the points good enough, but a loss that has been lower, do not count.

    Args:
        objective: gives the losses.
        counts: number of points by term at a time.
        seed: of the independent points.
        stay: whether the points of the run stay.

    Attributes:
        ended: why the run is to end, empty where it is not.
    """

    def __init__(self, objective: Objective, counts: Mapping[str, int], seed: int, stay: bool) -> None:
        self._objective, self._counts, self._seed, self._stay = objective, counts, seed, stay
        self.ended = ""
        self._independent: Batch = ()
        self._elsewhere: list[Tensor] = []  # losses there, at looks in a row that found these points left behind
        self._announced = False  # that points are left behind, in this row
        self._said = False  # that drawing anew is of no help, in this row
        single = [not any(part.dimension for part in term.region) for term in objective.terms]
        places = [
            sum(part.least for part in term.region) * each for term, each in zip(objective.terms, single, strict=True)
        ]
        self._measured = bool(objective.pde.measurements) or max(places) >= PLACES
        apart = self._measured and not all(single)
        self._telling = torch.tensor(  # terms whose points can be elsewhere
            [not (apart and each) for each in single], device=objective.like.device
        )

    def left_behind(self, step: int, batch: Batch, weights: Tensor | None, weigh: Weigh, watch: bool) -> bool:
        """Look at the losses; returns whether the points are left behind.

        Args:
            step: optimiser steps done.
            batch: the points of the run.
            weights: of the terms, ``[n]``; all 1 without.
            weigh: gives points the weights with which their losses are compared.
            watch: whether steps of the optimiser are so good that they may fit points alone.
        """
        elsewhere, own = self._losses(self._independent_batch(), weigh), self._losses(batch, weigh)
        here, there = _weighted(own, weights), _weighted(elsewhere, weights)
        ratio = there / here if here > 0 else float(there > 0)
        behind = ratio > LEFT_BEHIND
        if not (behind or (watch and self._telling_part(own, weights) < here / 2)):
            if not (self._measured and self._lower_before(elsewhere, weights)):
                self._elsewhere, self._announced, self._said = [], False, False
            return False
        if behind and not self._announced:
            self._announced = True
            then = f"drawn anew, now and every {CHECK_EVERY} steps while it is more than {LEFT_BEHIND:g} times as large"
            log.info(
                "step %d: the loss at independent points is %.3g times as large; points %s",
                *(step, ratio, "stay" if self._stay else f"are {then}"),
            )
        self._elsewhere = [*self._elsewhere, elsewhere][-IN_A_ROW:]
        looks = MEASURED_IN_A_ROW if watch and self._measured else IN_A_ROW
        if not self._said and self._of_no_help(looks, weights):
            self._said = True
            self._conclude(step, ratio, looks, weights)
        return behind

    def _conclude(self, step: int, ratio: float, looks: int, weights: Tensor | None) -> None:
        """End the run, or say what may help."""
        steps = f"{looks * CHECK_EVERY} steps"
        if self._measured:
            self.ended = (
                f"the loss at independent points, measured values apart, has not fallen for {steps}: the network "
                "fits errors of these values, or points, alone"
            )
        elif self._stay:
            self.ended = (
                f"the loss at independent points has not fallen for {steps} and is {ratio:.2g} times as large: the "
                "network fits points alone; with pde.sampling=sobol pde.resample_every=auto they are drawn anew"
            )
        else:
            found = f"step {step}: {IN_A_ROW} draws in a row have not lowered the loss at independent points"
            given = [1.0] * len(self._counts) if weights is None else weights.tolist()
            few = few_hold_loss(self._objective, self._independent, given)
            if few:
                log.warning(
                    "%s, of which %s; what is hard there, such as a corner or a layer, wants features, its singular "
                    "function or points of its own (the solution elsewhere may be good and become better)",
                    *(found, few),
                )
            else:
                log.warning(
                    "%s: the network may fit points alone; then a smaller network, more points%s or fewer steps help",
                    *(found, self._advice()),
                )

    def _advice(self) -> str:
        """What else a problem in time may want."""
        pde = self._objective.pde
        if may_grow(pde):
            return ", growing_time=0.1"
        return ", point_weights=causal" if TIME in pde.coordinates else ""

    def _lower_before(self, elsewhere: Tensor, weights: Tensor | None) -> bool:
        """Whether the loss at independent points, by the weights of today, has been lower in this row."""
        now = self._telling_part(elsewhere, weights)
        return any(self._telling_part(each, weights) <= now for each in self._elsewhere)

    def _of_no_help(self, looks: int, weights: Tensor | None) -> bool:
        """Whether that loss was lowest in the first half of so many looks, and values are hardly fitted better."""
        row = self._elsewhere[-looks:]
        if len(row) < looks:
            return False
        losses = [self._telling_part(each, weights) for each in row]
        first, last = (_weighted(each * ~self._telling, weights) for each in (row[0], row[-1]))
        return min(losses[: looks // 2]) <= min(losses[looks // 2 :]) and last >= LEARNT * first

    def _telling_part(self, losses: Tensor, weights: Tensor | None) -> float:
        """The weighted loss of terms whose points can be elsewhere, which of a problem with measured values tell."""
        return _weighted(losses * self._telling, weights)

    def _losses(self, batch: Batch, weigh: Weigh) -> Tensor:
        return self._objective.losses(weigh(batch)).double()

    def _independent_batch(self) -> Batch:
        """As many points of every term as are trained on, drawn once and independently of these."""
        objective = self._objective
        if not self._independent:
            points = {
                term.name: Sampler(
                    term.region, self._counts[term.name], "uniform", mix_seed(self._seed, 1, i), term.shares
                )
                .draw()
                .to(objective.like)
                for i, term in enumerate(objective.terms)
            }
            self._independent = objective.batch(points)
        return self._independent

    def state_dict(self) -> dict[str, Any]:
        """What was found in the present row."""
        elsewhere = [losses.cpu() for losses in self._elsewhere]
        return {"elsewhere": elsewhere, "announced": self._announced, "said": self._said, "ended": self.ended}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave, read by ``state_schema``."""
        self._elsewhere = [losses.to(self._objective.like.device) for losses in state["elsewhere"]]
        self._announced, self._said, self.ended = state["announced"], state["said"], state["ended"]

    def state_schema(self) -> dict[str, Any]:
        """What a state must look like, see ``ntkrun.common.state_schema``; earlier versions have none."""
        like = torch.zeros((), dtype=torch.float64)
        return {
            "elsewhere": Added(ListOf(Shaped((len(self._counts),), like), IN_A_ROW), []),
            "announced": Added(False, False),
            "said": Added(False, False),
            "ended": Added("", ""),
        }


def _weighted(losses: Tensor, weights: Tensor | None) -> float:
    return float(losses.sum() if weights is None else weights.double() @ losses)
