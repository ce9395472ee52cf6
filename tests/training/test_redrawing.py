"""Points drawn anew where the network fits them alone."""

from __future__ import annotations

import io
import logging
import re
from typing import Any

import pytest
import torch

from ntkrun.common.state_schema import read_state
from ntkrun.geometry import Box, Sampler, Table, mix_seed
from ntkrun.objective import Objective
from ntkrun.pde import Poisson, Term, Wave
from ntkrun.training.collocation import PointSource
from ntkrun.training.lookout import PLACES
from tests.problems import Peaked, mlp

SEED = 3
COUNTS = {"residual": 60, "boundary": 20, "initial": 10, "initial_velocity": 10}


def wave() -> Objective:
    torch.manual_seed(0)
    return Objective(Wave(), mlp(Wave().domain).double())


def saved(source: PointSource) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(source.state_dict(), file)
    file.seek(0)
    state: dict[str, Any] = torch.load(file, weights_only=True)
    return state


@pytest.mark.parametrize("method", ["sobol", "adaptive", "r3"])
def test_goes_on_after_a_checkpoint(method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    objective, every = wave(), "auto"
    monkeypatch.setattr("ntkrun.training.lookout.LEFT_BEHIND", 0.0)  # whatever the losses
    source = PointSource(objective, COUNTS, method, every, SEED)
    for step in range(4):
        source.at(step)
    other = PointSource(objective, COUNTS, method, every, SEED)
    other.load_state_dict(saved(source))
    for step in range(4, 13):
        source.at(step)
        other.at(step)
        assert source.drawn_at == other.drawn_at
        for name, x in source.points.items():
            assert torch.equal(other.points[name], x)
    assert source.drawn_at == 10


@pytest.mark.parametrize("factor", [1.5, 2.5])
def test_drawn_anew_where_the_loss_elsewhere_is_left_behind(
    factor: float, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With losses given: weighted 2 and 1 at the points in use, ``factor`` times as much at the independent ones."""
    objective = wave()
    caplog.set_level(logging.INFO)
    source = PointSource(objective, COUNTS, "sobol", "auto", SEED)
    used = source.at(0)
    seen = []

    def losses(batch: Any) -> torch.Tensor:
        seen.append(batch)
        ours = torch.tensor([2.0, 0.1, 0.0, 0.0], dtype=torch.float64)
        return ours if batch is source.batch else factor * ours

    monkeypatch.setattr(objective, "losses", losses)
    weights = torch.tensor([1.0, 10.0, 1.0, 1.0], dtype=torch.float64)
    for step in range(1, 5):
        assert source.at(step, weights) is used
    assert not seen
    assert (source.at(5, weights) is used) == (factor < 2)
    assert source.drawn_at == (0 if factor < 2 else 5)
    assert any("2.5 times as large" in message for message in caplog.messages) == (factor > 2)
    independent, own = objective.points(seen[0]), objective.points(used)
    for i, term in enumerate(objective.terms):
        expected = Sampler(
            term.region, COUNTS[term.name], "uniform", mix_seed(mix_seed(SEED, 4), 1, i), term.shares
        ).draw()
        assert torch.equal(independent[term.name], expected)
        assert not torch.equal(independent[term.name], own[term.name])


@pytest.mark.parametrize(("fall", "caught_up_at", "first"), [(1.0, None, 50), (1.0, 30, 80), (0.9, None, None)])
def test_draws_that_do_not_help_are_said_to_once(
    fall: float, caught_up_at: int | None, first: int | None, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """Ten looks in a row, 5 steps apart, that all find three times the loss, which has not fallen meanwhile."""
    caplog.set_level(logging.INFO)
    objective, step = wave(), 0
    source = PointSource(objective, COUNTS, "sobol", "auto", SEED)
    source.at(0)

    def losses(batch: Any) -> torch.Tensor:
        elsewhere = batch is not source.batch and step != caught_up_at
        return torch.full((4,), fall**step * (3.0 if elsewhere else 1.0))

    monkeypatch.setattr(objective, "losses", losses)
    said = {}
    for step in range(1, 96):
        source.at(step)
        if "have not lowered" in caplog.text:
            said[step] = caplog.text.count("have not lowered")
    assert said == ({} if first is None else dict.fromkeys(range(first, 96), 1))
    assert caplog.text.count("points are drawn anew") == (1 if caught_up_at is None else 2)  # once in a row of them
    assert ("a smaller network, more points, growing_time=0.1 or fewer steps" in caplog.text) == (first is not None)


@pytest.mark.parametrize("size", [1.0, 1e3])
def test_a_few_points_that_hold_the_loss_are_named(
    size: float, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ntkrun.training.lookout.LEFT_BEHIND", 0.0)  # whatever the losses
    objective = Objective(Peaked(size), mlp(Peaked(size).domain).double())
    source = PointSource(objective, {"residual": 400}, "sobol", "auto", SEED)
    for step in range(51):
        source.at(step)
    (said,) = [message for message in caplog.messages if "have not lowered" in message]
    assert ("a smaller network" in said) == (size == 1)
    if size > 1:
        place = re.search(r"(\d+) of 400 points hold (\d+) % of that of loss term residual, most at x=(\S+), y=", said)
        assert place is not None
        assert float(place[3]) < 0.01
        assert int(place[1]) <= 8


class Measured(Wave):
    """With five measured values."""

    def __init__(self) -> None:
        super().__init__()
        self.measurements = {"u": Table(("x", "t"), ("u",), torch.rand(5, 3, dtype=torch.float64))}


def test_measured_values_end_a_run_that_draws_do_not_help(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """At the same step with a checkpoint in between."""
    torch.manual_seed(0)
    pde = Measured()
    objective, counts = Objective(pde, mlp(pde.domain).double()), {**COUNTS, "data": 5}
    source, other = (PointSource(objective, counts, "sobol", "auto", SEED) for _ in range(2))
    source.at(0)

    def losses(batch: Any) -> torch.Tensor:
        return torch.full((5,), 1.0 if batch is source.batch or batch is other.batch else 3.0)

    monkeypatch.setattr(objective, "losses", losses)
    for step in range(1, 28):
        source.at(step)
    other.load_state_dict(read_state(source.state_schema(27), saved(source), "points"))
    for step in range(28, 51):
        assert (source.ended, other.ended) == ("", "")
        source.at(step)
        other.at(step)
    assert source.ended == other.ended
    assert source.ended.startswith("the loss at independent points, measured values apart, has not fallen for 50 steps")
    assert not caplog.text


class Places(Wave):
    """With values at single places, a term of one's own."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.places = tuple(Box.of(x=(x, x), t=(t, t)) for x, t in torch.rand(number, 2).tolist())

    def terms(self) -> tuple[Term, ...]:
        return (*super().terms(), Term("probe", self.places, ("u",), lambda x, d: d.u - 1))


@pytest.mark.parametrize("every", [None, "auto"])
@pytest.mark.parametrize(
    ("places", "share", "fall", "learnt", "watch", "end"),
    [
        (PLACES, 0.6, 1.0, 0.999, True, 30),
        (PLACES, 0.6, 1.002, 0.99, True, 30),
        (PLACES, 0.6, 0.999, 0.999, True, None),  # other terms gain
        (PLACES, 0.9, 1.0, 0.985, True, None),  # the values do: 0.985^25 = 0.69
        (PLACES, 0.4, 1.0, 0.999, True, None),  # other terms hold most of the loss
        (PLACES - 1, 0.6, 1.0, 0.999, True, None),  # such as initial values of a few trajectories
        (PLACES, 0.6, 1.0, 0.999, False, None),  # steps of a first-order optimiser
    ],
)
def test_errors_of_values_at_places_end_a_run(
    places: int,
    share: float,
    fall: float,
    learnt: float,
    watch: bool,
    end: int | None,
    every: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With losses that are the same at independent points and in every step ``learnt`` or ``fall`` times as large."""
    torch.manual_seed(0)
    pde, step = Places(places), 0
    objective, counts = Objective(pde, mlp(pde.domain).double()), {**COUNTS, "probe": places}
    source = PointSource(objective, counts, "sobol", every, SEED)
    used = source.at(0)

    def losses(batch: Any) -> torch.Tensor:
        others = torch.full((4,), (1 - share) / 4 * fall**step)
        return torch.cat([others, torch.tensor([share * learnt**step])])

    monkeypatch.setattr(objective, "losses", losses)
    for step in range(1, 101):
        assert source.at(step, watch=watch) is used
        assert bool(source.ended) == (end is not None and step >= end)


@pytest.mark.parametrize("method", ["sobol", "equispaced"])
@pytest.mark.parametrize("watch", [True, False])
def test_points_that_stay_end_a_run_that_fits_them_alone(
    watch: bool, method: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """Where that is asked for; they are not drawn anew, and without it nothing is looked at."""
    caplog.set_level(logging.INFO)
    objective, looks = wave(), []
    source = PointSource(objective, COUNTS, method, None, SEED)
    first = source.at(0)

    def losses(batch: Any) -> torch.Tensor:
        looks.append(batch)
        return torch.full((4,), 1.0 if batch is first else 3.0)

    monkeypatch.setattr(objective, "losses", losses)
    for step in range(1, 50):
        assert source.at(step, watch=watch) is first
    assert source.ended == ""
    assert source.at(50, watch=watch) is first
    assert bool(looks) == bool(source.ended) == watch
    if watch:
        assert source.ended.startswith("the loss at independent points has not fallen for 50 steps and is 3 times")
        assert "3 times as large; points stay" in caplog.text


def test_states_of_before_rows_of_draws_were_kept() -> None:
    source = PointSource(wave(), COUNTS, "sobol", "auto", SEED)
    source.at(0)
    state = {key: value for key, value in saved(source).items() if key in ("drawn_at", "points", "drawn")}
    read = read_state(source.state_schema(0), state, "points")
    assert (read["elsewhere"], read["said"], read["ended"]) == ([], False, "")
    source.load_state_dict(read)


def test_a_fall_is_told_by_the_weights_of_today(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """Weights that grow tenfold between looks raise the weighted loss, though every loss falls."""
    objective, step = wave(), 0
    source = PointSource(objective, COUNTS, "sobol", "auto", SEED)
    source.at(0)
    monkeypatch.setattr(
        objective, "losses", lambda batch: torch.full((4,), 0.9**step * (1.0 if batch is source.batch else 3.0))
    )
    for step in range(1, 96):
        source.at(step, torch.full((4,), 10.0**step, dtype=torch.float64))
    assert "drawn anew" not in caplog.text  # an information, below the level that is caught
    assert source.drawn_at == 95
    assert "have not lowered" not in caplog.text


def test_a_loss_of_zero_everywhere_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = wave()
    source = PointSource(objective, COUNTS, "sobol", "auto", SEED)
    used = source.at(0)
    monkeypatch.setattr(objective, "losses", lambda batch: torch.zeros(4))
    assert source.at(5) is used


def test_equispaced_points_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ntkrun.training.lookout.LEFT_BEHIND", 0.0)
    pde = Poisson()
    source = PointSource(Objective(pde, mlp(pde.domain)), {"residual": 9, "boundary": 2}, "equispaced", "auto", SEED)
    used = source.at(0)
    assert source.at(5) is used
