"""Terms without a gradient, for a while or for ever: the weights of all others are as without them.

Between updates the parameters are moved at random; nothing is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from ntkrun.objective import Objective
from ntkrun.objective.batch import Batch
from ntkrun.pde import Poisson, Term
from ntkrun.weights import Exact, GradientNorm, NTKWeighting, ReLoBRaLo, Sketched, SoftAdapt, Uncertainty, Weighting
from tests.ntk.test_sketch import FAMILY, IDS, REDUCED
from tests.oracle import draw_batch
from tests.problems import mlp
from tests.weights.test_baselines import run

ASLEEP, AWAKE = 10.0, -10.0


class Bounded(Poisson):
    """With an inequality u < level, whose term is idle where it holds."""

    def __init__(self, level: float = ASLEEP) -> None:
        super().__init__()
        self.level = level

    def terms(self) -> tuple[Term, ...]:
        bound = Term("bound", (self.domain,), ("u",), lambda x, d: torch.relu(d.u - self.level))
        return (*super().terms(), bound)


def objectives() -> tuple[Objective, Batch, Objective, Batch]:
    """The problem with the inequality and the one without, under one network and at the same points."""
    pde = Bounded()
    network = mlp(pde.domain).double()
    bounded, plain = Objective(pde, network), Objective(Poisson(), network)
    points, batch = draw_batch(bounded, [6, 2, 5])
    return bounded, batch, plain, plain.batch({name: points[name] for name in plain.names})


def updates(weighting: NTKWeighting, objective: Objective, batch: Batch, steps: range) -> Iterator[dict[str, Tensor]]:
    """What is logged of every update, with the weights."""
    generator = torch.Generator().manual_seed(3)
    home = objective.parameter_vector()
    for step in steps:
        with objective.at(home * (1 + 0.3 * torch.rand(home.shape, generator=generator, dtype=home.dtype))):
            _, update = weighting.evaluate(step, objective, batch)
        assert update is not None
        yield {**update.columns, "weight": update.weights}


def assert_balanced(columns: dict[str, Tensor]) -> None:
    """The weights of the two first terms, of 6 and 2 rows, are T / t_i with T the sum over both."""
    t = columns["trace"][:2] / torch.tensor([6.0, 2.0], dtype=torch.float64)
    assert torch.allclose(columns["weight"][:2], t.sum() / t, rtol=1e-12)


SKETCHES: dict[str, Callable[[], NTKWeighting]] = {
    **{
        name: lambda each=each: Sketched(  # type: ignore[misc]
            update_every=1, sketch_size=2, side=each[0], derivative=each[1], distribution=each[2], difference=each[3]
        )
        for name, each in zip(IDS, FAMILY, strict=True)
    },
    **{
        "-".join(each): lambda each=each: Sketched(  # type: ignore[misc]
            update_every=1, sketch_size=4, estimator=each[0], derivative=each[1], distribution=each[2]
        )
        for each in REDUCED
    },
    "recursive": lambda: Sketched(update_every=1, sketch_size=2, corrector="recursive"),
    "own-points": lambda: Sketched(update_every=1, sketch_size=2, points=8),
}


@pytest.mark.parametrize("make", SKETCHES.values(), ids=SKETCHES)
def test_sketched_weights_beside_an_idle_term(make: Callable[[], NTKWeighting]) -> None:
    torch.manual_seed(0)
    bounded, batch, _, _ = objectives()
    weighting = make()
    weighting.start(bounded, seed=0)
    for columns in updates(weighting, bounded, batch, range(10)):
        assert_balanced(columns)
        assert columns["weight"][2] == 1


@pytest.mark.parametrize(
    ("make", "total", "number"),
    [(Exact, "sum", 1000), (Exact, "average", 50), (Sketched, "sum", 50)],
    ids=["exact-sum", "exact-average", "sketched"],
)
def test_many_updates(make: Callable[..., NTKWeighting], total: str, number: int) -> None:
    """Exact weights (the default sketch takes all of so few points) are those without the term, smoothed alike."""
    torch.manual_seed(0)
    bounded, batch, plain, fewer = objectives()
    ours, theirs = (make(update_every=1, total=total, smoothing=0.5) for _ in range(2))
    ours.start(bounded, seed=0)
    theirs.start(plain, seed=0)
    steps = range(number)
    for columns, expected in zip(
        updates(ours, bounded, batch, steps), updates(theirs, plain, fewer, steps), strict=True
    ):
        assert torch.allclose(columns["weight"][:2], expected["weight"], rtol=1e-10)
        assert columns["weight"][2] == 1


@pytest.mark.parametrize("make", [Exact, Sketched], ids=["exact", "sketched"])
def test_a_term_that_wakes_up_and_falls_asleep(make: Callable[..., NTKWeighting]) -> None:
    torch.manual_seed(0)
    bounded, batch, _, _ = objectives()
    ours = make(update_every=1, smoothing=0.75)
    ours.start(bounded, seed=0)
    rows = torch.tensor([6.0, 2.0, 5.0], dtype=torch.float64)
    pde = cast(Bounded, bounded.pde)
    levels = [ASLEEP] * 3 + [AWAKE] * 3 + [ASLEEP] * 50 + [AWAKE] * 2
    expected = torch.ones(3, dtype=torch.float64)
    met = torch.zeros(3, dtype=torch.bool)
    for step, level in enumerate(levels):
        pde.level = level
        (columns,) = updates(ours, bounded, batch, range(step, step + 1))
        t = columns["trace"] / rows
        assert (t[2] > 0) == (level == AWAKE)
        new = t.sum() / t
        expected = torch.where(t > 0, torch.where(met, 0.75 * expected + 0.25 * new, new), expected)
        met |= t > 0
        assert torch.allclose(columns["weight"], expected, rtol=1e-12)
    assert met.all()


@pytest.mark.parametrize("statistic", ["norm", "max_mean"])
def test_gradient_norms_beside_an_idle_term(statistic: Any) -> None:
    torch.manual_seed(0)
    bounded, batch, plain, fewer = objectives()
    ours, theirs = (GradientNorm(update_every=1, statistic=statistic) for _ in range(2))
    ours.start(bounded, seed=0)
    theirs.start(plain, seed=0)
    for step in range(100):
        _, update = ours.evaluate(step, bounded, batch)
        _, expected = theirs.evaluate(step, plain, fewer)
        assert update is not None
        assert expected is not None
        assert torch.allclose(update.weights[:2], expected.weights, rtol=1e-10)
        assert update.weights[2] == 1
        assert update.idle is not None
        assert update.idle.tolist() == [False, False, True]
    cast(Bounded, bounded.pde).level = AWAKE
    _, gradients = bounded.term_gradients(batch)
    _, update = ours.evaluate(100, bounded, batch)
    assert update is not None
    sizes = gradients.norm(dim=1)
    new = sizes.sum() / sizes[2] if statistic == "norm" else gradients[0].abs().max() / gradients[2].abs().mean()
    assert update.weights[2] == pytest.approx(float(new), rel=1e-10)


def test_a_reference_without_a_gradient_leaves_all_weights_as_they_are() -> None:
    weights = torch.tensor([1.0, 3.0, 5.0])
    gradients = torch.tensor([[0.0, 0.0], [1.0, 2.0], [3.0, 1.0]])
    _, capped, idle, _ = GradientNorm(statistic="max_mean").target(gradients, weights, ("residual", "a", "b"))
    assert idle.tolist() == [False, True, True]
    assert not capped.any()


LOSSES: dict[str, Callable[[], Weighting]] = {
    "relobralo": lambda: ReLoBRaLo(expected_rho=0.9, alpha=0.9),
    "softadapt": lambda: SoftAdapt(update_every=3, beta=2.0),
    "softadapt-weighted": lambda: SoftAdapt(update_every=3, beta=2.0, normalized=False, loss_weighted=True),
    "uncertainty": lambda: Uncertainty(learning_rate=0.01),
}


@pytest.mark.parametrize("make", LOSSES.values(), ids=LOSSES)
def test_weights_from_losses_beside_an_idle_term(make: Callable[[], Weighting]) -> None:
    losses = (1 + torch.rand(1000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).tolist()
    ours, _ = run(make(), *([a, b, 0.0] for a, b in losses))
    theirs, _ = run(make(), *losses)
    for (a, b, idle), expected in zip(ours, theirs, strict=True):
        assert [a, b] == pytest.approx(expected, rel=1e-10)
        assert idle == ours[0][2]


@pytest.mark.parametrize("make", LOSSES.values(), ids=LOSSES)
def test_a_loss_that_wakes_up_starts_like_the_others_did(make: Callable[[], Weighting]) -> None:
    """It takes no weight from the others at once, and equal losses have equal weights in the end."""
    asleep, awake = [[2.0, 2.0, 0.0]] * 50, [[2.0, 2.0, 2.0]] * 3000
    weights, _ = run(make(), *asleep, *awake)
    assert weights[51][0] > 0.3 * weights[50][0]
    assert weights[-1] == pytest.approx([weights[-1][0]] * 3, rel=1e-3)
