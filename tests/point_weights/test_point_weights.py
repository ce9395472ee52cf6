"""Point weights by hand, their state, and their composition with kernel weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any, cast

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from ntkrun.cli.help import choices
from ntkrun.common.state_schema import read_state
from ntkrun.config.component import read_component
from ntkrun.geometry import Box
from ntkrun.objective import Objective, Route
from ntkrun.objective.batch import Batch
from ntkrun.pde import PDE, Poisson, Term, Wave
from ntkrun.point_weights import Capped, Causal, PointWeights, ResidualAttention, Uniform
from ntkrun.point_weights.capped import capped_by_median
from ntkrun.weights import Exact, Sketched
from tests.oracle import dense_jacobians, draw_batch, relative, residual_rows
from tests.problems import Gain, Plain, System, mlp


class Line(nn.Module):
    """u = slope t, so that residuals are known in advance."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.ones(1, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.slope * x[:, 1:]


class Known(PDE):
    """On t in [1, 3], with slope 1: residual (t - 1)/2, and twice that where there are two per point."""

    domain = Box.of(x=(0.0, 1.0), t=(1.0, 3.0))

    def __init__(self, residuals: int = 1) -> None:
        self.factors = [1.0, 2.0][:residuals]

    def terms(self) -> tuple[Term, ...]:
        return (
            Term("initial", (self.domain.face("t", "low"),), ("u",), lambda x, d: d.u - 3),
            Term(
                "residual",
                (self.domain,),
                ("u",),
                lambda x, d: torch.stack([f * (d.u - 1) / 2 for f in self.factors], dim=1),
            ),
        )


def known(times: Sequence[float], residuals: int = 1) -> tuple[Objective, Batch]:
    """Points at ``t = 1 + 2 time``, where the residual is ``time``."""
    objective = Objective(Known(residuals), Line())
    points = torch.tensor([[0.5, 1 + 2 * time] for time in times], dtype=torch.float64)
    return objective, objective.batch({"initial": torch.tensor([[0.5, 1.0]]).double(), "residual": points})


def row_weights(objective: Objective, batch: Batch, name: str) -> list[list[float]]:
    """The weights of a term's rows as the batch holds them, ``[N_i, m_i or 1]``."""
    (scale,) = (g.scales[k] for g in batch for k, i in enumerate(g.members) if g.scales and objective.names[i] == name)
    weights: list[list[float]] = scale.square().tolist()
    return weights


def flat(rows: list[list[float]]) -> list[float]:
    return [weight for row in rows for weight in row]


@pytest.mark.parametrize("residuals", [1, 2])
def test_causal_weights_by_hand(residuals: int) -> None:
    """Four intervals of which the third has no points; two residuals per point make 5 times the square."""
    objective, batch = known([1.0, 0.0, 0.2, 0.3, 0.9], residuals)
    causal = Causal(epsilon=2.0, chunks=4)
    causal.start(objective, fixed_points=False)
    assert causal.least() == {"residual": 1.0}
    causal.update(objective, batch)
    weighted = causal.apply(objective, batch)
    factor = 1 if residuals == 1 else 5
    first, second = factor * (0.0 + 0.2**2) / 2, factor * 0.3**2
    middle, last = math.exp(-2 * first), math.exp(-2 * (first + second))
    weights = [last, 1.0, 1.0, middle, last]
    assert flat(row_weights(objective, weighted, "residual")) == pytest.approx(weights, rel=1e-12)
    assert row_weights(objective, weighted, "initial") == [[1.0]]
    assert causal.columns() == ("residual",)
    assert causal.least() == pytest.approx({"residual": last}, rel=1e-12)
    squares = [factor * time**2 for time in (1.0, 0.0, 0.2, 0.3, 0.9)]
    loss = sum(w * square for w, square in zip(weights, squares, strict=True)) / (5 * residuals)
    assert objective.losses(weighted).tolist() == pytest.approx([4.0, loss], rel=1e-12)


def test_causal_weights_of_other_points_are_those_of_their_interval() -> None:
    objective, batch = known([0.25, 0.75])
    causal = Causal(epsilon=1.0, chunks=2)
    causal.start(objective, fixed_points=False)
    causal.update(objective, batch)
    _, others = known([0.9, 0.1, 0.6])
    late = math.exp(-(0.25**2))
    weights = flat(row_weights(objective, causal.apply(objective, others), "residual"))
    assert weights == pytest.approx([late, 1, late], rel=1e-12)


def test_causal_weights_follow_the_parameters() -> None:
    """At slope 3 the residual at t = 1.5 is (4.5 - 1)/2."""
    objective, batch = known([0.25, 0.75])
    causal = Causal(chunks=2, epsilon=0.1)
    causal.start(objective, fixed_points=False)
    causal.update(objective, batch)
    assert causal.least() == pytest.approx({"residual": math.exp(-0.1 * 0.25**2)}, rel=1e-12)
    with objective.at(torch.tensor([3.0], dtype=torch.float64)):
        causal.update(objective, batch)
    assert causal.least() == pytest.approx({"residual": math.exp(-0.1 * 1.75**2)}, rel=1e-12)


@pytest.mark.parametrize("residuals", [1, 2])
def test_residual_attention_by_hand(residuals: int) -> None:
    """Residuals 0, 1/2, 1 at slope 1 and 1/2, 3/2, 5/2 at slope 2; the second component is twice the first."""
    objective, batch = known([0.0, 0.5, 1.0], residuals)
    attention = ResidualAttention(gamma=0.9, eta=0.2)
    attention.start(objective, fixed_points=True)
    attention.update(objective, batch)
    first = [0.0, 0.2 * 0.5, 0.2]
    weights = row_weights(objective, attention.apply(objective, batch), "residual")
    assert flat(weights) == pytest.approx([x**2 for x in first for _ in range(residuals)], abs=1e-16)
    with objective.at(torch.tensor([2.0], dtype=torch.float64)):
        attention.update(objective, batch)
        weighted = attention.apply(objective, batch)
        second = [0.9 * x + 0.2 * r / 2.5 for x, r in zip(first, [0.5, 1.5, 2.5], strict=True)]
        weights = row_weights(objective, weighted, "residual")
        assert flat(weights) == pytest.approx([x**2 for x in second for _ in range(residuals)], rel=1e-12)
        factor = 1 if residuals == 1 else 5
        loss = factor * sum((x * r) ** 2 for x, r in zip(second, [0.5, 1.5, 2.5], strict=True)) / (3 * residuals)
        assert objective.losses(weighted).tolist() == pytest.approx([1.0, loss], rel=1e-12)
    assert row_weights(objective, weighted, "initial") == [[1.0]]
    assert attention.least() == pytest.approx({"residual": second[0] ** 2}, rel=1e-12)


def test_every_residual_of_a_point_has_its_own_attention() -> None:
    """Maxima are taken for each of the two residuals by itself."""
    pde = System()
    objective = Objective(pde, mlp(pde.domain, 2).double())
    points, batch = draw_batch(objective, [6, 3, 2])
    attention = ResidualAttention(eta=0.5, terms=["initial", "residual"])
    attention.start(objective, fixed_points=True)
    attention.update(objective, batch)
    assert attention.columns() == ("residual", "initial")
    for name, rows in zip(objective.names[:2], residual_rows(objective, points), strict=False):
        table = rows.detach().view(2, -1).abs()
        expected = torch.stack([0.5 * row / row.max() for row in table], dim=1)
        assert relative(attention.attention[name], expected) < 1e-10


def test_attention_is_bounded() -> None:
    """eta / (1 - gamma), reached by the point of the largest residual; half of it at half the residual."""
    objective, batch = known([0.5, 1.0])
    attention = ResidualAttention(gamma=0.9, eta=0.01)
    attention.start(objective, fixed_points=True)
    for _ in range(300):
        attention.update(objective, batch)
    assert attention.attention["residual"].flatten().tolist() == pytest.approx([0.05, 0.1], rel=1e-10)


def test_residuals_that_vanish_leave_finite_weights() -> None:
    objective, batch = known([0.0, 0.0])
    attention = ResidualAttention()
    attention.start(objective, fixed_points=True)
    attention.update(objective, batch)
    assert attention.least() == {"residual": 0.0}


def test_uniform_points_are_left_alone() -> None:
    objective, batch = known([0.5])
    uniform = Uniform()
    uniform.start(objective, fixed_points=False)
    assert uniform.apply(objective, batch) is batch
    assert uniform.columns() == ()


def poisson() -> Objective:
    pde = Poisson()
    return Objective(pde, mlp(pde.domain).double())


def test_causal_weights_need_time() -> None:
    with pytest.raises(ValueError, match=r"^causal weights need a coordinate t; this problem has x$"):
        Causal().start(poisson(), fixed_points=True)


def test_attention_needs_points_that_stay() -> None:
    with pytest.raises(ValueError, match=r"needs points that stay the same$"):
        ResidualAttention().start(poisson(), fixed_points=False)


@pytest.mark.parametrize("make", [Causal, ResidualAttention])
def test_terms_that_cannot_be_weighted(make: Callable[..., PointWeights]) -> None:
    objective, _ = known([0.5])
    objective.built_in = ("periodic",)
    with pytest.raises(ValueError, match=r"^terms names residuals; the loss terms are initial, residual$"):
        make(terms=["residuals", "initial"]).start(objective, True)
    with pytest.raises(ValueError, match=r"^terms names none of the loss terms, which are initial, residual$"):
        make(terms=["periodic"]).start(objective, True)
    accepted = make(terms=["residual", "periodic", "initial"])
    accepted.start(objective, True)
    assert accepted.columns() == ("initial", "residual")


def test_no_term_on_the_whole_domain() -> None:
    class Walls(PDE):
        domain = Box.of(x=(0.0, 1.0))

        def terms(self) -> tuple[Term, ...]:
            return (Term("boundary", self.domain.faces("x"), ("u",), lambda x, d: d.u - 1),)

    pde = Walls()
    message = r"^no term's region is the whole domain; set terms to some of boundary$"
    with pytest.raises(ValueError, match=message):
        ResidualAttention().start(Objective(pde, mlp(pde.domain)), fixed_points=True)


CASES: dict[str, tuple[Callable[[], PDE], Callable[[Box, int], nn.Module], Route]] = {
    "wave-structured": (Wave, mlp, "structured"),
    "wave-per_point": (Wave, mlp, "per_point"),
    "wave-dense": (Wave, mlp, "dense"),
    "system-structured": (System, mlp, "structured"),
    "system-per_point": (System, Gain, "per_point"),
    "system-plain": (System, Plain, "per_point"),
    "system-dense": (System, Plain, "dense"),
}
CHUNKS, GAMMA, ETA = 3, 0.5, 0.4


class Composed:
    """A weighted batch and, from dense Jacobians and the formulas of the weights, all that follows from it."""

    def __init__(self, case: str, kind: str) -> None:
        problem, network, route = CASES[case]
        pde = problem()
        self.objective = Objective(pde, network(pde.domain, len(pde.fields)).double(), route)
        self.points, self.plain = draw_batch(self.objective, [9, 4, 5, 3][: len(self.objective.terms)])
        self.residuals = [r.detach() for r in residual_rows(self.objective, self.points)]
        # Weights down to about exp(-2) for residuals of any size.
        self.epsilon = 1 / self.residuals[0].square().mean().item()
        own = self.causal() if kind == "causal" else self.attention()
        self.weights = [own if i == 0 else torch.ones_like(r) for i, r in enumerate(self.residuals)]
        self.dense = dense_jacobians(self.objective, self.points)
        squared = [w * jacobian.square().sum(1) for w, jacobian in zip(self.weights, self.dense, strict=True)]
        self.traces = torch.stack([s.sum() for s in squared])
        t = torch.stack([s.mean() for s in squared])
        self.term_weights = t.sum() / t
        point_weights: PointWeights = (
            Causal(epsilon=self.epsilon, chunks=CHUNKS) if kind == "causal" else ResidualAttention(gamma=GAMMA, eta=ETA)
        )
        point_weights.start(self.objective, fixed_points=True)
        for _ in range(2):
            point_weights.update(self.objective, self.plain)
        self.batch = point_weights.apply(self.objective, self.plain)

    def causal(self) -> Tensor:
        """exp(-epsilon sum of the mean squares of earlier thirds), one interval at a time; all t lie in [0, 1]."""
        times = self.points["residual"][:, 1].tolist()
        squares = self.residuals[0].square().view(-1, len(times)).sum(0).tolist()
        third = [min(int(CHUNKS * t), CHUNKS - 1) for t in times]
        means = []
        for k in range(CHUNKS):
            inside = [square for square, i in zip(squares, third, strict=True) if i == k]
            means.append(sum(inside) / len(inside) if inside else 0.0)
        weights = [math.exp(-self.epsilon * sum(means[:i])) for i in third]
        return torch.tensor(weights * (len(self.residuals[0]) // len(times)), dtype=torch.float64)

    def attention(self) -> Tensor:
        """Two updates at the same parameters: lambda = (gamma + 1) eta |r| / max |r| of each component."""
        table = self.residuals[0].view(-1, len(self.points["residual"])).abs()
        shares = torch.cat([row / row.max() for row in table])
        return ((GAMMA + 1) * ETA * shares) ** 2


@pytest.fixture(scope="module", params=[(c, k) for c in CASES for k in ("causal", "attention")], ids="-".join)
def composed(request: pytest.FixtureRequest) -> Composed:
    torch.manual_seed(0)
    return Composed(*request.param)


def test_weighted_rows(composed: Composed) -> None:
    for jacobian, w, dense in zip(
        composed.objective.jacobians(composed.batch), composed.weights, composed.dense, strict=True
    ):
        assert relative(jacobian.dense(), w.sqrt()[:, None] * dense) < 1e-10
    assert composed.weights[0].min() < 0.9 * composed.weights[0].max()


def test_exact_weights_of_weighted_points(composed: Composed) -> None:
    """tr K_ii = sum_k w_k K_kk, and the gradient of sum_i lambda_i mean(w r^2)."""
    weighting = Exact()
    weighting.start(composed.objective, seed=0)
    evaluation, update = weighting.evaluate(0, composed.objective, composed.batch)
    assert update is not None
    assert relative(update.columns["trace"], composed.traces) < 1e-11
    assert relative(update.weights, composed.term_weights) < 1e-11
    losses = [(w * r.square()).mean() for w, r in zip(composed.weights, composed.residuals, strict=True)]
    assert relative(evaluation.losses, torch.stack(losses)) < 1e-11
    gradient = torch.zeros(composed.objective.layout.size, dtype=torch.float64)
    for factor, w, r, dense in zip(
        composed.term_weights, composed.weights, composed.residuals, composed.dense, strict=True
    ):
        gradient += factor * 2 / len(r) * ((w * r) @ dense)
    flatten = composed.objective.layout.flatten
    assert relative(flatten(evaluation.gradient), gradient) < 1e-11
    plain = composed.objective.gradient(composed.batch, composed.term_weights)
    assert relative(flatten(plain.gradient), gradient) < 1e-11


def test_sketch_of_all_weighted_points(composed: Composed) -> None:
    weighting = Sketched(sketch_size=9)
    weighting.start(composed.objective, seed=0)
    _, update = weighting.evaluate(0, composed.objective, composed.batch)
    assert update is not None
    assert relative(update.columns["trace"], composed.traces) < 1e-11
    assert relative(update.weights, composed.term_weights) < 1e-11


@pytest.mark.long
@pytest.mark.parametrize("side", ["residual", "parameter"])
@pytest.mark.parametrize("case", ["wave-structured", "system-structured", "system-plain"])
def test_gaussian_sketch_of_weighted_points(case: str, side: Any) -> None:
    """Mean of 200 estimates from 4 probes; one estimate has variance 2 |K_ii|_F^2 / 4. Within 4 standard errors."""
    composed = Composed(case, "causal")
    weighting = Sketched(sketch_size=4, distribution="gaussian", side=side, update_every=1)
    weighting.start(composed.objective, seed=5)
    traces = []
    for step in range(200):
        _, update = weighting.evaluate(step, composed.objective, composed.batch)
        assert update is not None
        traces.append(update.columns["trace"])
    rows = [w.sqrt()[:, None] * dense for w, dense in zip(composed.weights, composed.dense, strict=True)]
    error = torch.stack([(2 / 4 / 200 * (j @ j.T).square().sum()).sqrt() for j in rows])
    assert ((torch.stack(traces).mean(0) - composed.traces).abs() < 4 * error).all()
    # The weights of the points are far from lost in this error.
    unweighted = composed.dense[0].square().sum()
    assert unweighted - composed.traces[0] > 4 * error[0]


def test_subsets_keep_their_weights() -> None:
    composed = Composed("system-structured", "attention")
    chosen = [torch.tensor([4, 1]), torch.tensor([0]), torch.tensor([2])]
    subset = composed.objective.subset(composed.batch, chosen)
    ours = composed.objective.residuals(subset)[0]
    whole = composed.objective.residuals(composed.batch)[0].view(2, -1)
    assert relative(ours, whole[:, [4, 1]].flatten()) < 1e-12


MAKERS: dict[str, Callable[[], PointWeights]] = {
    "causal": lambda: Causal(epsilon=0.1, chunks=4),
    "attention": lambda: ResidualAttention(gamma=0.9, eta=0.1),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_state_goes_on_bit_for_bit(make: Callable[[], PointWeights]) -> None:
    pde = System()
    objective = Objective(pde, mlp(pde.domain, 2).double())
    _, batch = draw_batch(objective, [12, 3, 2])

    def descend(point_weights: PointWeights, steps: int) -> list[Tensor]:
        losses = []
        for _ in range(steps):
            point_weights.update(objective, batch)
            weighted = point_weights.apply(objective, batch)
            evaluation = objective.gradient(weighted, torch.ones(3, dtype=torch.float64))
            losses.append(evaluation.losses)
            with torch.no_grad():
                for name, parameter in objective.network.named_parameters():
                    parameter -= 0.01 * evaluation.gradient[name]
        return losses

    whole, other = make(), make()
    whole.start(objective, fixed_points=True)
    descend(whole, 4)
    parameters, state = objective.parameter_vector().clone(), whole.state_dict()
    rest = descend(whole, 4)
    other.start(objective, fixed_points=True)
    other.load_state_dict(state)
    with objective.at(parameters):
        # Points are weighted before the next update as well: for the row of a run's last step.
        assert other.least() != whole.least()
        again = descend(other, 4)
    assert all(torch.equal(a, b) for a, b in zip(rest, again, strict=True))
    assert other.least() == whole.least()


@pytest.mark.parametrize("name", ["none", "causal", "residual_attention"])
def test_defaults_of_the_menu_are_those_of_the_class(name: str) -> None:
    text = (files("ntkrun.conf") / "point_weights" / f"{name}.yaml").read_text(encoding="utf-8")
    node = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.create(text)))
    built = read_component(node, "point_weights", PointWeights).build()
    assert vars(built) == vars(type(built)())
    assert set(node) - {"_target_"} == set(vars(built))
    assert name in choices("point_weights")


class Pole(PDE):
    """u_rr + (2/r) u_r = 0 in a ball, two residuals per point if asked, u = 1 at its surface."""

    domain = Box.of(r=(0.0, 1.0))

    def __init__(self, twice: bool = False) -> None:
        self.factors = [1.0, 3.0] if twice else [1.0]

    def terms(self) -> tuple[Term, ...]:
        return (
            Term(
                "residual",
                (self.domain,),
                ("u_r", "u_rr"),
                lambda x, d: torch.stack([f * (d.u_rr + 2 / x.r * d.u_r) for f in self.factors], dim=1),
            ),
            Term("surface", (self.domain.face("r", "high"),), ("u",), lambda x, d: d.u - 1),
        )


@pytest.mark.parametrize("route", ["structured", "per_point", "dense"])
@pytest.mark.parametrize("twice", [False, True])
def test_capped_weights_are_those_of_the_dense_jacobian(route: Route, twice: bool) -> None:
    torch.manual_seed(0)
    pde = Pole(twice)
    objective = Objective(pde, mlp(pde.domain).double(), route)
    points, batch = draw_batch(objective, [120, 1])
    sizes = dense_jacobians(objective, points)[0].square().sum(1).view(-1, 120).sum(0)
    expected = (10 * sizes.sort().values[59] / sizes).clamp(max=1)
    assert 1 <= (expected < 1).sum() < 40
    capped = Capped()
    capped.start(objective, True)
    capped.update(objective, batch)
    assert capped.apply(objective, batch) is batch
    assert capped.elsewhere(objective, batch) is batch
    assert not capped.varying
    capped.cap(["residual"])
    assert capped.varying
    capped.update(objective, batch)
    own = capped.apply(objective, batch)
    for weighed in (own, capped.elsewhere(objective, batch)):
        assert (
            relative(torch.tensor(flat(row_weights(objective, weighed, "residual")), dtype=torch.float64), expected)
            < 1e-12
        )
        assert flat(row_weights(objective, weighed, "surface")) == [1.0]
    assert relative(objective.traces(own)[0], (expected * sizes).sum()) < 1e-12
    assert objective.traces(own)[0] <= 120 * 10 * sizes.sort().values[59]


def test_capped_weights_follow_the_parameters_and_their_state() -> None:
    torch.manual_seed(0)
    pde = Pole()
    objective = Objective(pde, mlp(pde.domain).double())
    _, batch = draw_batch(objective, [120, 1])
    capped, resumed = Capped(), Capped()
    for each in (capped, resumed):
        each.start(objective, True)
    capped.cap(["residual"])
    capped.update(objective, batch)
    before = capped.weights["residual"].clone()
    with torch.no_grad():
        for p in objective.network.parameters():
            p.mul_(1.5)
    resumed.load_state_dict(read_state(resumed.state_schema({}), capped.state_dict(), "point_weights"))
    capped.update(objective, batch)
    resumed.update(objective, batch)
    assert relative(capped.weights["residual"], before) > 1e-3
    assert torch.equal(resumed.weights["residual"], capped.weights["residual"])


def test_rows_without_a_size_are_not_capped() -> None:
    assert capped_by_median(torch.tensor([0.0, 0.0, 0.0, 5.0])).tolist() == [1, 1, 1, 1]
    assert capped_by_median(torch.tensor([40.0, 1.0, 2.0, 80.0, 20.0])).tolist() == [1, 1, 1, 1, 1]  # of 20
    assert capped_by_median(torch.tensor([40.0, 1.0, 2.0, 80.0, 1.0])).tolist() == [0.5, 1, 1, 0.25, 1]
