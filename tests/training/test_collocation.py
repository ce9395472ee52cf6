"""Points of the steps of a run, drawn and prepared many draws at a time, against draws made one by one."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
import torch

from ntkrun.geometry import Box, Domain, Method, Sampler, disc, mix_seed
from ntkrun.jets import plan_streams
from ntkrun.network import output_streams
from ntkrun.objective import Objective
from ntkrun.pde import PDE, Advection, Poisson, Term, Wave, integral
from ntkrun.pde.conditions import conserved, dirichlet
from ntkrun.training.collocation import CANDIDATES, PointSource, Sampling, _choose, _retain
from ntkrun.weights import Exact
from tests.oracle import draw_batch, draw_points
from tests.problems import mlp

SEED = 4
COUNTS = {"residual": 3000, "boundary": 9, "initial": 5, "initial_velocity": 6}
LENGTH = 21  # draws of 3000 points that are made at a time


def wave(dtype: torch.dtype = torch.float32) -> Objective:
    pde = Wave()
    return Objective(pde, mlp(pde.domain).to(dtype))


def source(objective: Objective, method: Sampling = "uniform", every: int | None = 1) -> PointSource:
    return PointSource(objective, COUNTS, method, every, SEED)


@pytest.mark.parametrize("method", ["uniform", "sobol"])
@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_every_step_has_its_draw(method: Method, every: int, dtype: torch.dtype) -> None:
    objective = wave(dtype)
    points = source(objective, method, every)
    single = {
        term.name: Sampler(term.region, COUNTS[term.name], method, mix_seed(SEED, 2, i))
        for i, term in enumerate(objective.terms)
    }
    for step in range(every * (2 * LENGTH + 2)):
        batch = points.at(step)
        if step % every == 0:
            expected = {name: sampler.draw() for name, sampler in single.items()}
        assert points.drawn_at == step - step % every
        assert points.batch is batch
        prepared = objective.points(batch)
        for name, x in expected.items():
            assert torch.equal(points.points[name], x)
            assert torch.equal(prepared[name], x.to(dtype))


def test_points_that_stay_are_drawn_once() -> None:
    points = source(wave(), every=None)
    assert points.batch == ()
    first = points.at(0)
    assert all(points.at(step) is first for step in range(1, 2 * LENGTH))


@pytest.mark.parametrize("method", ["uniform", "sobol"])
@pytest.mark.parametrize("stop", [0, 1, 10, LENGTH - 1, LENGTH, LENGTH + 1])
def test_it_goes_on_from_anywhere_in_a_block(method: Method, stop: int) -> None:
    """With the very points of one that was not interrupted; only those in use are saved."""
    objective = wave()
    whole = source(objective, method)
    for step in range(stop):
        whole.at(step)
    file = io.BytesIO()
    torch.save(whole.state_dict(), file)
    assert len(file.getvalue()) < 60_000 + 8 * 2 * sum(COUNTS.values())
    file.seek(0)
    resumed = source(objective, method)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert resumed.points.keys() == whole.points.keys()
    for step in range(stop, stop + LENGTH + 2):
        for name, x in whole.points.items():
            assert torch.equal(resumed.points[name], x)
        for ours, expected in zip(resumed.at(step), whole.at(step), strict=True):
            assert torch.equal(ours.x, expected.x)


@pytest.mark.parametrize(
    ("pde", "counts"),
    [(Wave(), [4, 3, 2, 2]), (Wave(), [300, 3, 2, 1]), (Poisson(), [40, 2]), (Advection(), [13, 5, 6])],
    ids=["apart", "joined", "one group", "partners"],
)
def test_batches_are_the_batch_of_every_draw(pde: PDE, counts: list[int]) -> None:
    objective = Objective(pde, mlp(pde.domain))
    draws = [draw_points(objective, counts, seed) for seed in range(3)]
    batches = objective.batches({name: torch.stack([points[name] for points in draws]) for name in objective.names})
    assert len(batches) == 3
    for seed, batch in enumerate(batches):
        points, alone = draw_batch(objective, counts, seed)
        assert objective.point_counts(batch) == tuple(counts)
        for name, x in objective.points(batch).items():
            assert torch.equal(x, points[name])
        for ours, expected in zip(batch, alone, strict=True):
            assert (ours.plan, ours.members, ours.slices) == (expected.plan, expected.members, expected.slices)
            assert (ours.shift is None) == (expected.shift is None)
            assert ours.shift is None or torch.equal(ours.shift, expected.shift)
            assert ours.x.is_contiguous()
            assert ours.x.data_ptr() % 64 == 0  # as any tensor of its own, or resumed runs might round otherwise


class Far(Poisson):
    """Poisson's problem far from the origin along x, and near it along t."""

    def __init__(self, at: float) -> None:
        super().__init__()
        self.domain = Box.of(x=(at, at + 1), t=(0.0, 1.0))


@pytest.mark.parametrize("method", ["uniform", "sobol", "equispaced"])
@pytest.mark.parametrize(
    ("at", "dtype", "warned"),
    [
        (0.0, torch.float32, False),
        (10.0, torch.float32, False),
        (1e5, torch.float32, True),  # 128 numbers in the unit interval
        (1e9, torch.float32, True),  # none but its ends
        (1e5, torch.float64, False),
        (1e9, torch.float64, False),
    ],
)
def test_points_that_rounding_brings_together_are_named(
    at: float, dtype: torch.dtype, warned: bool, method: Method, caplog: pytest.LogCaptureFixture
) -> None:
    pde = Far(at)
    objective = Objective(pde, mlp(pde.domain).to(dtype))
    points = PointSource(objective, {"residual": 40_000, "boundary": 100}, method, None, SEED)
    points.at(0)
    points.at(1)
    messages = [record.getMessage() for record in caplog.records if "values of" in record.getMessage()]
    assert len(messages) == warned  # the coordinate at fault alone, and once
    if warned:
        apart, left = re.findall(r"\d+", messages[0])[:2]
        assert messages[0].startswith(
            f"{apart} values of x among the points of term residual are only {left} in float32"
        )
        x = points.points["residual"][:, 0]
        assert int(left) <= len(x.float().unique()) <= 129
        assert int(left) < int(apart) <= min(1000, len(x.unique()))


class Cube(PDE):
    """All six faces of a cube as one term, with other shares than those by measure."""

    domain = Box.of(x=(0.0, 1.0), y=(0.0, 1.0), z=(0.0, 1.0))

    def terms(self) -> tuple[Term, ...]:
        faces = self.domain.faces("x", "y", "z")
        return (Term("boundary", faces, ("u",), lambda x, d: d.u, shares=(5, 1, 1, 1, 1, 1)),)


def test_fewer_points_than_boxes_take_turns_or_are_refused() -> None:
    objective = Objective(Cube(), mlp(Cube.domain))
    message = r"^boundary: 4 points for 6 boxes, of which some would never have any; give at least 6, or set resample"
    with pytest.raises(ValueError, match=message):
        PointSource(objective, {"boundary": 4}, "sobol", None, 0)
    with pytest.raises(ValueError, match=r"^points=4: boundary has 6 boxes, of which some would have none$"):
        Exact(points=4).start(objective, seed=0)
    source = PointSource(objective, {"boundary": 4}, "sobol", 1, 0)
    drawn = torch.cat([source.at(step)[0].x for step in range(500)])
    assert (drawn[:, 0] == 0).float().mean() == pytest.approx(0.5, abs=0.01)
    (fixed,) = PointSource(objective, {"boundary": 10}, "sobol", None, 0).at(0)
    assert (fixed.x[:, 0] == 0).sum() == 5


# Adaptive points


def sobol_samplers(objective: Objective) -> dict[str, Sampler]:
    """What ``PointSource`` draws from, by term."""
    return {
        term.name: Sampler(term.region, COUNTS[term.name], "sobol", mix_seed(SEED, 2, i))
        for i, term in enumerate(objective.terms)
    }


def test_adaptive_points_are_candidates_with_large_residuals() -> None:
    objective = wave(torch.float64)
    points = source(objective, "adaptive", every=5)
    samplers = sobol_samplers(objective)
    points.at(0)
    for name, sampler in samplers.items():
        assert torch.equal(points.points[name], sampler.draw())
    for step in (5, 10):
        points.at(step)
        draws = {name: torch.stack([s.draw() for _ in range(CANDIDATES)]) for name, s in samplers.items()}
        for name in ("boundary", "initial", "initial_velocity"):
            assert torch.equal(points.points[name], draws[name][0])
        candidates = draws["residual"].flatten(0, 1)
        order = candidates[:, 0].argsort()
        where = order[
            torch.searchsorted(candidates[order, 0].contiguous(), points.points["residual"][:, 0].contiguous())
        ]
        assert torch.equal(candidates[where], points.points["residual"])
        assert len(where.unique()) == COUNTS["residual"]
        size = residual_of_wave(objective, candidates)
        half = COUNTS["residual"] // 2
        assert torch.equal(where[:half], torch.arange(half))
        drawn, rest = where[half:], size[half:]
        # A standard error is below 2 %; that no point is chosen twice lowers the mean by about as much.
        assert float(size[drawn].mean()) == pytest.approx(float(rest.square().mean() / rest.mean()), rel=0.05)


def residual_of_wave(objective: Objective, x: torch.Tensor) -> torch.Tensor:
    """|u_tt - 4 u_xx| by nested automatic differentiation."""

    def u(x: torch.Tensor) -> torch.Tensor:
        values: torch.Tensor = output_streams(objective.network, x[None], plan_streams([()], ("x", "t")))
        return values[0, 0, 0]

    hessians = torch.func.vmap(torch.func.hessian(u))(x)
    return (hessians[:, 1, 1] - 4 * hessians[:, 0, 0]).abs().detach()


def test_the_chance_of_a_point_is_its_density() -> None:
    """Frequencies over 20,000 seeds within 5 standard errors of the probabilities."""
    size = torch.tensor([0.0, 1.0, 2.0, 5.0], dtype=torch.float64)
    probability = size / size.sum()
    draws = 20_000
    generator = torch.Generator().manual_seed(1)
    picked = torch.cat([_choose(size, 1, generator) for _ in range(draws)])
    frequency = picked.bincount(minlength=4) / draws
    error = (probability * (1 - probability) / draws).sqrt()
    assert ((frequency - probability).abs() <= 5 * error).all()


def test_residuals_of_a_thin_layer_leave_no_gaps_elsewhere() -> None:
    """All ten candidates in the layer are taken; 64 points of a Sobol sequence are less than 2 / 64 apart."""
    x = torch.quasirandom.SobolEngine(1, scramble=True, seed=0).draw(8 * 128, dtype=torch.float64)[:, 0]
    size = torch.where(x < 0.01, 100.0, 1e-9).double()
    chosen = x[_choose(size, 128, torch.Generator().manual_seed(0))].sort().values
    assert (chosen < 0.01).sum() == (x < 0.01).sum() >= 10
    assert chosen.diff().max() <= 2 / 64


def test_residuals_of_zero_and_without_a_number_leave_the_choice_open() -> None:
    for size in (torch.zeros(50), torch.full((50,), torch.nan), torch.full((50,), torch.inf)):
        assert len(_choose(size.double(), 20, torch.Generator().manual_seed(0)).unique()) == 20


def test_r3_keeps_points_with_residuals_above_the_mean() -> None:
    """Half at most, by nested automatic differentiation; the others begin the next draw, all of other terms are it."""
    objective = wave(torch.float64)
    points = source(objective, "r3", every=5)
    samplers = sobol_samplers(objective)
    points.at(0)
    before = {name: sampler.draw() for name, sampler in samplers.items()}
    for name, x in before.items():
        assert torch.equal(points.points[name], x)
    for step in (5, 10):
        points.at(step)
        draws = {name: sampler.draw() for name, sampler in samplers.items()}
        for name in ("boundary", "initial", "initial_velocity"):
            assert torch.equal(points.points[name], draws[name])
        size = residual_of_wave(objective, before["residual"])
        kept = (size > size.mean()) & (size >= size.sort(descending=True).values[len(size) // 2 - 1])
        count = int(kept.sum())
        assert 0 < count <= len(kept) / 2
        assert torch.equal(points.points["residual"][:count], before["residual"][kept])
        assert torch.equal(points.points["residual"][count:], draws["residual"][: len(kept) - count])
        before = points.points
        assert points.drawn_at == step


@pytest.mark.parametrize(
    ("size", "kept"),
    [
        ([1, 9, 1, 1, 1, 8], [1, 5]),
        ([7, 0, 8, 9, 7, 8], [2, 3, 5]),  # five lie above the mean
        ([2, 2, 2, 2, 2, 2], []),
        ([1, torch.nan, 1, 1, 1, 1], []),
    ],
    ids=["few", "half at most", "none", "without a number"],
)
def test_which_points_r3_keeps(size: list[float], kept: list[int]) -> None:
    assert _retain(torch.tensor(size, dtype=torch.float64)).tolist() == kept


@pytest.mark.parametrize("method", ["adaptive", "r3"])
def test_adaptive_points_go_on_from_a_saved_state(method: Any) -> None:
    objective = wave()
    whole = source(objective, method, every=2)
    for step in range(5):
        whole.at(step)
    resumed = source(objective, method, every=2)
    resumed.load_state_dict(whole.state_dict())
    for step in range(5, 10):
        for ours, expected in zip(resumed.at(step), whole.at(step), strict=True):
            assert torch.equal(ours.x, expected.x)


@pytest.mark.parametrize("method", ["adaptive", "r3"])
def test_adaptive_points_that_stay_are_refused(method: Any) -> None:
    with pytest.raises(ValueError, match=f"{method} points follow .*resample_every"):
        source(wave(), method, every=None)


class Misplaced(PDE):
    """A condition on one line, another value at a point, a mean that a point stands for."""

    def __init__(self, line: float, domain: Domain) -> None:
        self.domain, self.line = domain, line

    def terms(self) -> tuple[Term, ...]:
        line, corner = Box.of(x=(self.line, self.line), y=(-0.1, 1.0)), Box.of(x=(5, 5), y=(5, 5))
        return (
            Term("residual", (self.domain,), ("u_x",), lambda x, d: d.u_x),
            dirichlet("line", line),
            dirichlet("rim", self.domain.boundary()),
            conserved("mean", corner, integral("u", shape=self.domain), 0.0),
        )


@pytest.mark.parametrize(
    ("domain", "line", "share"),
    [
        (Box.of(x=(0.0, 1.0), y=(-1.0, 1.0)), 1.0, None),
        (Box.of(x=(0.0, 1.0), y=(-1.0, 1.0)), 1.1, 100),
        (disc((0, 0), 1), 0.0, None),
        (disc((0, 0), 1), 0.8, 100 * 0.4 / 1.1),  # y > 0.6
    ],
)
def test_points_outside_of_the_domain_are_said(
    domain: Domain, line: float, share: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    pde = Misplaced(line, domain)
    objective = Objective(pde, mlp(domain).double())
    PointSource(objective, {"residual": 9, "line": 1000, "rim": 50, "mean": 1}, "sobol", None, 0).at(0)
    said = [message for message in caplog.messages if "outside" in message]
    if share is None:
        assert not said
    else:
        (message,) = said
        assert message.startswith("loss term line: ")
        assert f" % of its points lie outside of the domain, one at x={line}, y=" in message
        assert float(message.split()[3]) == pytest.approx(share, abs=0.2)
