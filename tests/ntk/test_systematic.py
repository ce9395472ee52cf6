"""Systematic samples of points: the curve, the chance of every point, and the errors of the traces that follow."""

import math

import pytest
import torch
from torch import Tensor

from ntkrun.geometry import Method, Sampler, mix_seed
from ntkrun.network import MLP
from ntkrun.ntk.sketch import Sketch
from ntkrun.ntk.systematic import hilbert_order, places_along, replicate_sizes, systematic_sample
from ntkrun.objective import Objective
from ntkrun.objective.chosen import EQUAL, Chosen, samples
from ntkrun.objective.objective import _group_diagonals
from ntkrun.pde import PDE, Burgers, Cavity, Wave
from tests.problems import mlp


@pytest.mark.parametrize(("dimensions", "side"), [(2, 16), (3, 8), (4, 4)])
def test_the_curve_goes_from_cell_to_neighbouring_cell(dimensions: int, side: int) -> None:
    axis = torch.arange(side).double()
    grid = torch.cartesian_prod(*[axis] * dimensions)[torch.randperm(side**dimensions)]
    # Corners of a finer grid, so that every point lies in a cell of its own at any number of levels.
    steps = grid[hilbert_order(grid)].diff(dim=0).abs().sum(1)
    assert torch.equal(steps, torch.ones_like(steps))


def test_a_line_in_space_is_followed() -> None:
    x = torch.rand(50).double()
    points = torch.stack([torch.full_like(x, 3.0), x], dim=1)
    assert torch.equal(hilbert_order(points), x.argsort())
    assert torch.equal(hilbert_order(torch.ones(4, 2)), torch.arange(4))
    assert torch.equal(hilbert_order(torch.ones(1, 2)), torch.arange(1))


@pytest.mark.parametrize("size", [1, 2, 7, 16, 33, 64])
def test_replicates_share_the_points_out(size: int) -> None:
    sizes = replicate_sizes(size)
    assert sum(sizes) == size
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("count", "size"), [(37, 8), (65, 64), (100, 33), (5, 3)])
def test_every_point_is_chosen_as_often(count: int, size: int) -> None:
    generator, repetitions = torch.Generator().manual_seed(0), 3000
    times = torch.zeros(count)
    for _ in range(repetitions):
        chosen = systematic_sample(count, size, generator)
        assert len(chosen) == size
        if len(set(replicate_sizes(size))) == 1:  # then replicates do not meet
            assert len(chosen.unique()) == size
        times += torch.bincount(chosen, minlength=count)
    chance = size / count
    standard_error = math.sqrt(chance * (1 - chance) / repetitions)
    assert (times / repetitions - chance).abs().max() < 5 * standard_error


PROBLEMS: dict[str, tuple[PDE, dict[str, int]]] = {
    "wave": (Wave(), {"residual": 300, "boundary": 200, "initial": 100, "initial_velocity": 100}),
    "burgers": (Burgers(), {"residual": 1000, "boundary": 100, "initial": 100}),
    "cavity": (Cavity(), {"residual": 1000, "lid": 100, "walls": 300, "pressure": 1}),
}


class Population:
    """A problem, its points and the exact diagonals there."""

    def __init__(self, problem: str, method: Method, depth: int | None = None) -> None:
        pde, counts = PROBLEMS[problem]
        torch.manual_seed(0)
        network = (
            mlp(pde.domain, len(pde.fields))
            if depth is None
            else MLP(16, depth, domain=pde.domain, outputs=len(pde.fields))
        )
        self.objective = Objective(pde, network.double())
        points = {
            term.name: Sampler(term.region, counts[term.name], method, mix_seed(0, i)).draw()
            for i, term in enumerate(self.objective.terms)
        }
        self.batch = self.objective.batch(points)
        self.counts = self.objective.point_counts(self.batch)
        self.diagonals = self.objective.diagonals(self.batch)

    def estimates_in_pass(self, sketch: Sketch, repetitions: int) -> tuple[Tensor, Tensor]:
        """The same from samples of the gradient's pass, with the part known at all points."""
        generator, orders = torch.Generator().manual_seed(1), sketch.orders(self.objective, self.batch, in_pass=True)
        known = self.known()
        traces, errors = [], []
        for _ in range(repetitions):
            pieces = []
            for q, d, chosen in zip(known, self.diagonals, sketch.choose_in_pass(orders, generator), strict=True):
                k, chances = chosen.drawn(q)
                whole = chosen.whole(len(d))
                pieces.append(d.sum()[None] if whole else samples(q, chosen, chances, (d - q)[k]))
            estimate = sketch.from_samples(self.counts, torch.cat(pieces))
            traces.append(estimate.traces)
            errors.append(estimate.standard_errors)
        return torch.stack(traces), torch.stack(errors)

    def known(self) -> list[Tensor]:
        """The part of the diagonals that is known at all points."""
        known: dict[int, Tensor] = {}
        for group in self.batch:
            first = [block.parts()[0] for block in self.objective._rows(group)[1]]
            known |= _group_diagonals(group, first, self.objective.components)
        return [known[i] for i in range(len(self.counts))]

    def estimates(self, sketch: Sketch, repetitions: int) -> tuple[Tensor, Tensor]:
        """Traces and their standard errors, ``[repetitions, n]`` each."""
        generator, orders = torch.Generator().manual_seed(1), sketch.orders(self.objective, self.batch)
        traces, errors = [], []
        for _ in range(repetitions):
            chosen = sketch.choose(orders, generator)
            samples = [diagonal[k] for diagonal, k in zip(self.diagonals, chosen, strict=True)]
            estimate = sketch.from_diagonals(self.counts, samples)
            traces.append(estimate.traces)
            errors.append(estimate.standard_errors)
        return torch.stack(traces), torch.stack(errors)


@pytest.mark.parametrize(
    ("problem", "method"),
    [("wave", "uniform"), ("burgers", "sobol"), ("burgers", "equispaced"), ("cavity", "sobol")],
)
@pytest.mark.parametrize("size", [16, 64])
def test_traces_are_unbiased_and_their_standard_errors_right(problem: str, size: int, method: Method) -> None:
    """Over 400 choices: means within 5 standard errors, logged against true standard errors within 0.8 to 1.25."""
    population = Population(problem, method)
    traces, errors = population.estimates(Sketch(size, "residual", "autodiff", "systematic"), 400)
    exact = torch.stack([d.sum() for d in population.diagonals])
    deviation = (traces - exact).square().mean(0).sqrt()
    assert ((traces.mean(0) - exact).abs() <= 5 * deviation / math.sqrt(len(traces)) + 1e-12 * exact).all()
    sampled = deviation > 1e-12 * exact  # a single pressure point is exact
    ratio = errors.square().mean(0).sqrt()[sampled] / deviation[sampled]
    assert (ratio > 0.8).all(), ratio
    assert (ratio < 1.25).all(), ratio


@pytest.mark.parametrize("problem", PROBLEMS)
def test_spread_out_points_err_less_than_random_ones(problem: str) -> None:
    population = Population(problem, "sobol")
    error = {}
    for distribution in ("systematic", "coordinate"):
        traces, _ = population.estimates(Sketch(64, "residual", "autodiff", distribution), 300)  # type: ignore[arg-type]
        exact = torch.stack([d.sum() for d in population.diagonals])
        error[distribution] = ((traces - exact) / exact).square().mean(0).sqrt()
    large = torch.tensor([n > 64 for n in population.counts])
    assert (error["systematic"][large] < 0.7 * error["coordinate"][large]).all(), error


@pytest.mark.parametrize(("problem", "method"), [("wave", "uniform"), ("burgers", "sobol"), ("cavity", "sobol")])
@pytest.mark.parametrize("size", [16, 64])
def test_the_known_part_makes_errors_smaller(problem: str, size: int, method: Method) -> None:
    """Over 400 choices: errors of the equation less than half as large, means within 5 standard errors of the trace.

    Logged against true standard errors within 0.8 to 1.25, known to about 4 %.
    """
    population, sketch = Population(problem, method, 4), Sketch(size, "residual", "autodiff", "systematic")
    exact = torch.stack([d.sum() for d in population.diagonals])
    plain, _ = population.estimates(sketch, 400)
    traces, errors = population.estimates_in_pass(sketch, 400)
    deviation = (traces - exact).square().mean(0).sqrt()
    assert deviation[0] < 0.5 * (plain - exact)[:, 0].square().mean().sqrt()
    assert ((traces.mean(0) - exact).abs() <= 5 * deviation / math.sqrt(len(traces)) + 1e-12 * exact).all()
    sampled = deviation > 1e-12 * exact
    ratio = errors.square().mean(0).sqrt()[sampled] / deviation[sampled]
    assert (ratio > 0.8).all(), ratio
    assert (ratio < 1.25).all(), ratio


@pytest.mark.parametrize("size", [16, 64])
def test_a_trace_that_few_points_hold(size: int) -> None:
    """Five points in a thousand hold 99 % of it, as next to the corners of the cavity late in a training.

    Points at equal distances meet them by chance; by their chances they are always drawn, and the error is a hundredth.
    """
    generator = torch.Generator().manual_seed(0)
    d = 1 + torch.rand(1000, generator=generator).double()
    d[torch.tensor([3, 250, 500, 750, 996])] = 3e4
    q = d * (0.85 + 0.1 * torch.rand(1000, generator=generator).double())
    sketch = Sketch(size, "residual", "autodiff", "systematic")
    estimates = []
    for _ in range(400):
        (chosen,) = sketch.choose_in_pass([torch.arange(1000)], generator)
        k, chances = chosen.drawn(q)
        estimates.append(sketch.from_samples([1000], samples(q, chosen, chances, (d - q)[k])))
    error = torch.stack([estimate.traces[0] for estimate in estimates]) / d.sum() - 1
    rms = error.square().mean().sqrt()
    assert error.mean().abs() < 5 * rms / 20
    assert rms < 0.02
    logged = torch.stack([estimate.standard_errors[0] for estimate in estimates]) / d.sum()
    assert 0.8 < logged.square().mean().sqrt() / rms < 1.25
    plain = torch.stack([d[systematic_sample(1000, size, generator)].mean() for _ in range(400)]) / d.mean() - 1
    assert rms < 0.05 * plain.square().mean().sqrt()


def test_points_are_drawn_by_their_chances() -> None:
    """In proportion to what is known but for a tenth; where nothing is, all alike."""
    generator = torch.Generator().manual_seed(0)
    known = torch.tensor([0.0, 1.0, 3.0, 0.0, 6.0]).double()
    order = torch.tensor([4, 2, 0, 3, 1])
    for q, chances in ((known, (1 - EQUAL) * known / 10 + EQUAL / 5), (0 * known, torch.full((5,), 0.2).double())):
        times = torch.zeros(5).double()
        for _ in range(4000):
            k, own = Chosen(order, places_along(2, generator)).drawn(q)
            assert torch.allclose(own, chances[k], rtol=1e-12)
            times += torch.bincount(k, minlength=5)
        assert (times / 8000 - chances).abs().max() < 5 * 0.5 / math.sqrt(8000)


def test_all_known_is_exact() -> None:
    """Of two hidden layers, the one map that is neither the first nor the last is known at all points."""
    population = Population("wave", "uniform", 2)
    traces, errors = population.estimates_in_pass(Sketch(16, "residual", "autodiff", "systematic"), 5)
    exact = torch.stack([d.sum() for d in population.diagonals])
    assert ((traces - exact).abs() <= 1e-12 * exact).all()
    assert (errors <= 1e-12 * exact).all()


def test_terms_that_are_taken_whole_keep_their_order() -> None:
    """In the gradient's pass; others are in the order of the curve."""
    population = Population("wave", "uniform")
    sketch = Sketch(16, "residual", "autodiff", "systematic")
    curve = sketch.orders(population.objective, population.batch)
    for n, own, along in zip(
        population.counts, sketch.orders(population.objective, population.batch, in_pass=True), curve, strict=True
    ):
        assert torch.equal(own, torch.arange(n) if n <= 128 else along)
    assert not torch.equal(curve[0], torch.arange(population.counts[0]))
