"""Weightings of the literature against arithmetic by hand from each paper's formula."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any, cast

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from ntkrun.cli.help import choices
from ntkrun.config.component import read_component
from ntkrun.network import MLP
from ntkrun.objective import Evaluation, Objective, Weigh
from ntkrun.objective.batch import Batch
from ntkrun.pde import Poisson, Wave
from ntkrun.weights import Fixed, GradientNorm, ReLoBRaLo, SoftAdapt, Uncertainty, Unweighted, Weighting
from tests.oracle import dense_jacobians, draw_batch, relative, residual_rows


class Scripted:
    """Stands in for an objective: its losses are given in advance, one row per step."""

    built_in = ("periodic",)

    def __init__(self, *losses: Sequence[float]) -> None:
        self.names = ("residual", "boundary", "initial")[: len(losses[0])]
        self.terms = self.names
        self.like = torch.zeros(1, dtype=torch.float64)
        self._rows = iter(losses)

    def gradient(self, batch: Batch, weights: Tensor | Weigh) -> Evaluation:
        losses = torch.tensor(next(self._rows), dtype=torch.float64)
        return Evaluation(losses, weights if isinstance(weights, Tensor) else weights(losses), {})


def run(weighting: Weighting, *losses: Sequence[float], seed: int = 0) -> tuple[list[list[float]], list[bool]]:
    """The weights of every step and whether it brought an update, whose weights must be those of the step."""
    objective = cast(Objective, Scripted(*losses))
    weighting.start(objective, seed)
    weights, updated = [], []
    for step in range(len(losses)):
        evaluation, update = weighting.evaluate(step, objective, ())
        assert update is None or torch.equal(update.weights, evaluation.weights)
        weights.append(evaluation.weights.tolist())
        updated.append(update is not None)
    return weights, updated


def wave(width: int = 8) -> tuple[Objective, dict[str, Tensor], Batch]:
    pde = Wave()
    objective = Objective(pde, MLP(width, 2, domain=pde.domain).double())
    return objective, *draw_batch(objective, [9, 4, 5, 3])


def dense_gradients(objective: Objective, points: dict[str, Tensor]) -> Tensor:
    """grad L_i = 2 / N_i J_i^T r_i by nested autograd, ``[n, P]``."""
    rows = [r.detach() for r in residual_rows(objective, points)]
    dense = dense_jacobians(objective, points)
    return torch.stack([2 / len(r) * (r @ jacobian) for r, jacobian in zip(rows, dense, strict=True)])


def test_fixed_weights() -> None:
    weighting = Fixed(values={"initial": 100.0, "residual": 0.0, "periodic": 7.0})
    weights, updated = run(weighting, [1, 2, 3], [1, 1, 1])
    assert weights == [[0, 1, 100], [0, 1, 100]]
    assert not any(updated)


def test_fixed_weights_of_unknown_terms() -> None:
    message = r"^values names bondary, data; the loss terms are residual, boundary$"
    with pytest.raises(ValueError, match=message):
        Fixed(values={"bondary": 1.0, "data": 2.0}).start(cast(Objective, Scripted([1, 1])), seed=0)


GRADIENTS = torch.tensor([[3.0, -4.0, 0.0, 0.0], [0.0, 0.5, -0.5, 1.0], [6.0, 0.0, -8.0, 0.0]], dtype=torch.float64)
NAMES = ("residual", "boundary", "initial")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # max |g_residual| = 4; means of |g|: 7/4, 2/4, 14/4
        ({"statistic": "max_mean"}, [1, 4 / 0.5, 4 / 3.5]),
        # max |g_initial| = 8
        ({"statistic": "max_mean", "reference": "initial"}, [8 / 1.75, 8 / 0.5, 1]),
        # norms 5, sqrt(0.25 + 0.25 + 1) and 10
        (
            {"statistic": "norm"},
            [(15 + math.sqrt(1.5)) / 5, (15 + math.sqrt(1.5)) / math.sqrt(1.5), (15 + math.sqrt(1.5)) / 10],
        ),
    ],
    ids=["max_mean", "another-reference", "norm"],
)
def test_gradient_weights_by_hand(options: dict[str, Any], expected: list[float]) -> None:
    weights, capped, idle, _ = GradientNorm(**options).target(GRADIENTS, torch.ones(3).double(), NAMES)
    assert weights.tolist() == pytest.approx(expected, rel=1e-14)
    assert not capped.any()
    assert not idle.any()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # the means are at least 0.2 * 4 = 0.8, which 0.5 is not
        ({"floor": 0.2, "statistic": "max_mean"}, [1, 4 / 0.8]),
        # the norms are at least 0.3 * (5 + sqrt(1.5)) = 1.87; sqrt(1.5) = 1.22 is not
        ({"floor": 0.3, "statistic": "norm"}, [(5 + math.sqrt(1.5)) / 5, 1 / 0.3]),
    ],
    ids=["max_mean", "norm"],
)
@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf], ids=str)
def test_small_gradients_hit_the_floor_and_others_are_left_out(
    options: dict[str, Any], expected: list[float], bad: float
) -> None:
    gradients = torch.stack([GRADIENTS[0], GRADIENTS[1], torch.full((4,), bad, dtype=torch.float64)])
    weights, hit, idle, _ = GradientNorm(**options).target(gradients, torch.ones(3).double(), NAMES)
    assert weights[:2].tolist() == pytest.approx(expected, rel=1e-14)
    assert hit.tolist() == [False, True, False]
    assert idle.tolist() == [False, False, True]


@pytest.mark.parametrize("statistic", ["max_mean", "norm"])
def test_no_gradient_at_all_gives_finite_weights(statistic: str) -> None:
    weights, _, _, _ = GradientNorm(statistic=cast(Any, statistic)).target(torch.zeros(3, 4), torch.ones(3), NAMES)
    assert torch.isfinite(weights).all()


@pytest.mark.parametrize("statistic", ["max_mean", "norm"])
def test_gradient_weights_of_a_problem(statistic: str) -> None:
    """Weights, smoothing over updates, logged columns and the gradient of the step, against dense Jacobians."""
    objective, points, batch = wave()
    weighting = GradientNorm(statistic=cast(Any, statistic), update_every=2, smoothing=0.75)
    weighting.start(objective, seed=0)
    expected = torch.ones(4, dtype=torch.float64)
    for step in range(5):
        gradients = dense_gradients(objective, points)
        if step % 2 == 0:
            if statistic == "norm":
                sizes = gradients.square().sum(1).sqrt()
                new = sizes.sum() / sizes
            else:
                sizes = expected * gradients.abs().mean(1)
                new = gradients[0].abs().max() / sizes
                new[0] = 1
            expected = 0.75 * expected + 0.25 * new if step else new
        evaluation, update = weighting.evaluate(step, objective, batch)
        assert (update is None) == (step % 2 == 1)
        if update is not None:
            assert tuple(update.columns) == weighting.columns()
            assert relative(update.columns[weighting.columns()[-1]], sizes) < 1e-10
        losses = torch.stack([r.square().mean() for r in residual_rows(objective, points)])
        assert relative(evaluation.losses, losses) < 1e-10
        assert relative(evaluation.weights, expected) < 1e-10
        assert relative(objective.layout.flatten(evaluation.gradient), expected @ gradients) < 1e-10
        with torch.no_grad():
            for name, parameter in objective.network.named_parameters():
                parameter -= 1e-4 * evaluation.gradient[name]


def test_unknown_reference() -> None:
    objective, _, _ = wave()
    message = "^reference=pde; the loss terms are residual, boundary, initial, initial_velocity$"
    with pytest.raises(ValueError, match=message):
        GradientNorm(reference="pde", statistic="max_mean").start(objective, seed=0)
    GradientNorm(reference="pde", statistic="norm").start(objective, seed=0)


def shares(exponents: list[float], factors: Sequence[float] = (1, 1, 1, 1)) -> list[float]:
    """n f_i exp(e_i) / sum_j f_j exp(e_j)."""
    terms = [f * math.exp(e) for e, f in zip(exponents, factors, strict=False)]
    return [len(terms) * term / sum(terms) for term in terms]


@pytest.mark.parametrize(
    ("options", "first", "second"),
    [
        # rates over two steps: (6 - 8)/2, (3 - 2)/2, (4 - 4)/2 and then (5 - 6)/2, (1 - 3)/2, (6 - 4)/2
        ({"normalized": False}, shares([-0.3, 0.15, 0]), shares([-0.15, -0.3, 0.3])),
        # sums of absolute rates: 1.5 and 2.5
        ({}, shares([-0.2, 0.1, 0]), shares([-0.06, -0.12, 0.12])),
        # means of the last two losses: (7 + 6)/2, (9 + 3)/2, (5 + 4)/2 and (6.5 + 5)/2, (2 + 1)/2, (5 + 6)/2
        (
            {"normalized": False, "loss_weighted": True},
            shares([-0.3, 0.15, 0], [6.5, 6, 4.5]),
            shares([-0.15, -0.3, 0.3], [5.75, 1.5, 5.5]),
        ),
        (
            {"loss_weighted": True},
            shares([-0.2, 0.1, 0], [6.5, 6, 4.5]),
            shares([-0.06, -0.12, 0.12], [5.75, 1.5, 5.5]),
        ),
    ],
    ids=["original", "normalized", "loss-weighted", "normalized-loss-weighted"],
)
def test_softadapt_by_hand(options: dict[str, bool], first: list[float], second: list[float]) -> None:
    losses = [8, 2, 4], [7, 9, 5], [6, 3, 4], [6.5, 2, 5], [5, 1, 6], [1, 1, 1]
    weights, updated = run(SoftAdapt(update_every=2, beta=0.3, **options), *losses)
    assert updated == [False, False, True, False, True, False]
    assert weights[:2] == [[1, 1, 1]] * 2
    assert weights[2] == weights[3] == pytest.approx(first, rel=1e-14)
    assert weights[4] == weights[5] == pytest.approx(second, rel=1e-14)


def test_softadapt_of_losses_that_stand_still() -> None:
    weights, _ = run(SoftAdapt(update_every=1), [2, 3], [2, 3])
    assert weights == [[1, 1], [1, 1]]


@pytest.mark.parametrize(("expected_rho", "lookback"), [(1.0, False), (0.0, True)], ids=["never", "always"])
def test_relobralo_by_hand(expected_rho: float, lookback: bool) -> None:
    """T = 2, alpha = 0.8; the past is lambda(t-1) for rho = 1 and bal(t, 0) for rho = 0."""
    weighting = ReLoBRaLo(temperature=2.0, alpha=0.8, expected_rho=expected_rho)
    weights, updated = run(weighting, [4, 1], [2, 2], [1, 3])
    assert updated == [False, True, True]
    # bal(1, 0): exponents 2 / (2 * 4), 2 / (2 * 1); bal(2, 1): 1 / (2 * 2), 3 / (2 * 2); bal(2, 0): 1 / 8, 3 / 2
    bal10, bal21, bal20 = shares([0.25, 1.0]), shares([0.25, 0.75]), shares([0.125, 1.5])
    one = [0.8 * (b if lookback else 1) + 0.2 * b for b in bal10]
    two = [0.8 * (b0 if lookback else w) + 0.2 * b1 for w, b0, b1 in zip(one, bal20, bal21, strict=True)]
    assert weights[0] == [1, 1]
    assert weights[1] == pytest.approx(one, rel=1e-14)
    assert weights[2] == pytest.approx(two, rel=1e-14)


def test_relobralo_looks_back_as_often_as_asked() -> None:
    """With alpha = 1 every step keeps the weights (rho = 1) or takes bal(t, 0); 400 draws, 4 standard errors."""
    losses = [[1.0, 1.0], *([1.0 + k, 1.0] for k in range(1, 401))]
    weights, _ = run(ReLoBRaLo(temperature=100.0, alpha=1.0, expected_rho=0.7), *losses, seed=1)
    kept = sum(before == after for before, after in itertools.pairwise(weights))
    assert abs(kept / 400 - 0.7) < 4 * math.sqrt(0.7 * 0.3 / 400)
    for k, (before, after) in enumerate(itertools.pairwise(weights), start=1):
        if before != after:
            assert after == pytest.approx(shares([(1 + k) / 100, 1 / 100]), rel=1e-12)


def test_relobralo_draws_differ_between_seeds() -> None:
    losses = [[1.0 + k, 1.0] for k in range(30)]
    one, same, other = (run(ReLoBRaLo(expected_rho=0.5), *losses, seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_relobralo_of_a_loss_that_was_zero() -> None:
    """It has no rate yet, so it keeps its weight; at the next step it has one."""
    weights, _ = run(ReLoBRaLo(alpha=0.0), [0, 1], [1, 1], [1, 1])
    assert weights[1:] == [[1, 1], [1, 1]]


def test_uncertainty_by_hand() -> None:
    """The factors exp(-s)/2 under the s of Adam, written out: m, v and their corrections."""
    losses = [9.0, 0.25], [4.0, 1.0], [16.0, 0.5], [1.0, 1.0]
    expected = []
    s, m, v = [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]
    for step, row in enumerate(losses, start=1):
        expected.append([math.exp(-x) / 2 for x in s])
        for i, loss in enumerate(row):
            slope = (1 - math.exp(-s[i]) * loss) / 2
            m[i] = 0.9 * m[i] + 0.1 * slope
            v[i] = 0.999 * v[i] + 0.001 * slope**2
            s[i] -= 0.1 * (m[i] / (1 - 0.9**step)) / (math.sqrt(v[i] / (1 - 0.999**step)) + 1e-8)
    weights, updated = run(Uncertainty(learning_rate=0.1), *losses)
    assert all(updated)
    assert weights[0] == [0.5, 0.5]
    for ours, theirs in zip(weights, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-12)


def test_uncertainty_settles_at_the_inverse_losses() -> None:
    """The likelihood is stationary in s where exp(s_i) = L_i."""
    weights, _ = run(Uncertainty(learning_rate=0.05), *([[4.0, 0.1]] * 1500))
    assert weights[-1] == pytest.approx([1 / 8, 5], rel=1e-6)


BASELINES: dict[str, Callable[[], Weighting]] = {
    "fixed": lambda: Fixed(values={"boundary": 3.0}),
    "max_mean": lambda: GradientNorm(update_every=2, statistic="max_mean"),
    "norm": lambda: GradientNorm(update_every=3, statistic="norm"),
    "softadapt": lambda: SoftAdapt(update_every=3, loss_weighted=True, beta=2.0),
    "relobralo": lambda: ReLoBRaLo(expected_rho=0.5, alpha=0.9),
    "uncertainty": lambda: Uncertainty(learning_rate=0.1),
}


@pytest.mark.parametrize("make", BASELINES.values(), ids=BASELINES)
def test_gradient_is_that_of_the_reported_weights(make: Callable[[], Weighting]) -> None:
    objective, points, batch = wave()
    weighting = make()
    weighting.start(objective, seed=0)
    gradients = dense_gradients(objective, points)
    for step in range(7):
        evaluation, _ = weighting.evaluate(step, objective, batch)
        assert relative(objective.layout.flatten(evaluation.gradient), evaluation.weights @ gradients) < 1e-10


def descend(objective: Objective, batch: Batch, weighting: Weighting, steps: range) -> list[Tensor]:
    """The weights of some steps of gradient descent."""
    weights = []
    for step in steps:
        evaluation, _ = weighting.evaluate(step, objective, batch)
        weights.append(evaluation.weights.clone())
        with torch.no_grad():
            for name, parameter in objective.network.named_parameters():
                parameter -= 1e-4 * evaluation.gradient[name]
    return weights


@pytest.mark.parametrize("make", BASELINES.values(), ids=BASELINES)
def test_state_goes_on_bit_for_bit(make: Callable[[], Weighting]) -> None:
    """Stopped after five steps, between updates, and continued by another object of another seed."""
    objective, _, batch = wave()
    whole = make()
    whole.start(objective, seed=3)
    first = descend(objective, batch, whole, range(5))
    parameters = objective.parameter_vector().clone()
    state = whole.state_dict()
    rest = descend(objective, batch, whole, range(5, 11))
    other = make()
    other.start(objective, seed=4)
    other.load_state_dict(state)
    with objective.at(parameters):
        again = descend(objective, batch, other, range(5, 11))
    assert all(torch.equal(a, b) for a, b in zip(rest, again, strict=True))
    assert torch.equal(whole.weights, other.weights)
    if not isinstance(whole, Fixed):
        assert not torch.equal(first[0], rest[-1])


@pytest.mark.parametrize("make", BASELINES.values(), ids=BASELINES)
def test_weights_follow_the_dtype(make: Callable[[], Weighting]) -> None:
    pde = Poisson()
    objective = Objective(pde, MLP(5, 1, domain=pde.domain))
    _, batch = draw_batch(objective, [6, 2])
    weighting = make()
    weighting.start(objective, seed=0)
    for step in range(4):
        evaluation, update = weighting.evaluate(step, objective, batch)
        assert evaluation.weights.dtype == torch.float32
        if update is not None:
            assert set(update.columns) == set(weighting.columns())


@pytest.mark.parametrize("name", ["fixed", "gradient_norm", "softadapt", "relobralo", "uncertainty", "none"])
def test_defaults_of_the_menu_are_those_of_the_class(name: str) -> None:
    text = (files("ntkrun.conf") / "weights" / f"{name}.yaml").read_text(encoding="utf-8")
    node = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.create(text)))
    built = read_component(node, "weights", Weighting).build()
    assert vars(built) == vars(type(built)())
    assert set(node) - {"_target_"} == set(vars(built))
    assert isinstance(built, Unweighted) == (name == "none")
    assert name in choices("weights")
