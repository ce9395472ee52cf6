"""Updates as often as the weights change: the rule by hand, its bounds, and where traces cost nothing."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from ntkrun.network import MLP
from ntkrun.objective import Objective
from ntkrun.pde import Poisson
from ntkrun.weights import Exact, NTKWeighting, Sketched
from ntkrun.weights.interval import AHEAD, AVERAGE, CHANGE, LONGEST, Interval
from tests.oracle import draw_batch

LITTLE, MUCH, SOME = CHANGE / 3, 3 * CHANGE, 0.7 * CHANGE


def steps(changes: list[float]) -> list[int]:
    """The steps of updates that find these changes, and of the one after them."""
    interval, due = Interval(), []
    for change in changes:
        due.append(interval.due)
        interval.updated(change)
    return [*due, interval.due]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([math.nan, MUCH, MUCH, SOME], [0, 1, 2, 3, 4]),
        ([math.nan, *[LITTLE] * 9], [0, 1, 3, 7, 15, 31, 63, 127, 227, 327, 427]),
        ([math.nan, LITTLE, LITTLE, LITTLE, SOME, MUCH, MUCH, LITTLE], [0, 1, 3, 7, 15, 23, 27, 29, 33]),
        ([math.nan, math.nan, math.inf], [0, 1, 2, 3]),
    ],
    ids=["moving", "at-rest", "moving-again", "not-finite"],
)
def test_intervals_by_hand(changes: list[float], expected: list[int]) -> None:
    assert steps(changes) == expected


@pytest.mark.parametrize("change", [0.0, SOME, MUCH], ids=["at-rest", "steady", "restless"])
def test_updates_are_bounded_whatever_the_weights_do(change: float) -> None:
    due = steps([change] * 1000)
    assert all(0 < later - earlier <= LONGEST for earlier, later in pairwise(due))
    for count, step in enumerate(due):
        assert count <= AHEAD + step / AVERAGE


def weighting_started(weighting: NTKWeighting, objective: Objective) -> NTKWeighting:
    weighting.start(objective, seed=0)
    return weighting


@pytest.mark.parametrize("sketched", [False, True], ids=["in-pass", "own-pass"])
def test_intervals_follow_the_weights(sketched: bool) -> None:
    """A network that rests is looked at ever more rarely; once it has moved, at once more often."""
    pde = Poisson()
    objective = Objective(pde, MLP(6, 1, domain=pde.domain).double())
    _, batch = draw_batch(objective, [9, 2])
    own = Sketched(
        sketch_size=2, distribution="gaussian", derivative="autodiff", corrector="recursive", restart="exact"
    )
    weighting = weighting_started(own if sketched else Exact(), objective)
    updated = []
    for step in range(60):
        if step in (20, 33):
            with torch.no_grad():
                for parameter in objective.network.parameters():
                    parameter.mul_(1.5)
        _, update = weighting.evaluate(step, objective, batch)
        if update is not None:
            updated.append(step)
    assert updated[:5] == [0, 1, 3, 7, 15]
    after = next(k for k, step in enumerate(updated) if step >= 20)
    assert updated[after + 1] - updated[after] < updated[after] - updated[after - 1]


def test_every_step_where_traces_cost_nothing() -> None:
    pde = Poisson()
    objective = Objective(pde, MLP(6, 1, domain=pde.domain).double())
    _, batch = draw_batch(objective, [9, 2])
    weighting = weighting_started(Exact(), objective)
    weighting.rows_at_hand = True
    assert all(weighting.evaluate(step, objective, batch)[1] is not None for step in range(9))
    weighting.freeze_after = 9
    assert not weighting.due(10)


def test_the_interval_is_part_of_the_state() -> None:
    pde = Poisson()
    objective = Objective(pde, MLP(6, 1, domain=pde.domain).double())
    _, batch = draw_batch(objective, [9, 2])
    first, second = (weighting_started(Exact(), objective) for _ in range(2))
    for step in range(5):
        first.evaluate(step, objective, batch)
    second.load_state_dict(first.state_dict())
    assert [first.due(step) for step in range(5, 12)] == [second.due(step) for step in range(5, 12)]
    assert vars(first.interval) == vars(second.interval) == {"length": 4, "due": 7, "updates": 3}
    assert "interval" not in weighting_started(Exact(update_every=3), objective).state_dict()
