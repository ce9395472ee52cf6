"""One contract for every kernel route: agreement with the dense float64 J J^T, built row by row."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from ntkrun.geometry import Box
from ntkrun.network import MLP
from ntkrun.objective import Objective, Route, RouteError
from ntkrun.objective.chosen import EQUAL, Chosen
from ntkrun.objective.objective import _group_diagonals
from ntkrun.pde import PDE, Columns, Poisson, Term, Wave
from tests import problems
from tests.oracle import dense_jacobians, draw_points, relative, values
from tests.problems import (
    Branching,
    Carried,
    Coupled,
    CoupledJets,
    Gain,
    Gains,
    Integrated,
    Mixed,
    Plain,
    Shared,
    System,
    anchored,
    anchored_plain,
    frozen_mlp,
    mlp,
    periodic_mlp,
    thinned_ecrn,
)

NETWORKS: dict[str, Callable[[Box, int], nn.Module]] = {
    **problems.NETWORKS,
    "frozen_mlp": frozen_mlp,
    "periodic_mlp": periodic_mlp,
    "thinned_ecrn": thinned_ecrn,
    "anchored": anchored,
    "anchored_plain": anchored_plain,
    "shared": Shared,
    "gains": Gains,
    "gain": Gain,
    "plain": Plain,
}
PROBLEMS: dict[str, Callable[[], PDE]] = {
    "poisson": Poisson,
    "wave": Wave,
    "system": System,
    "mixed": Mixed,
    "carried": Carried,
    "integrated": Integrated,
}
CARRIED = ("mlp", "plain", "anchored_plain", "gain")  # what points carry is no matter of layers
ROUTES: dict[str, tuple[Route, ...]] = {
    **dict.fromkeys(NETWORKS, ("structured",)),
    "mlp": ("structured", "per_point", "dense"),
    "frozen_mlp": ("structured", "per_point"),
    "modified_mlp": ("structured", "per_point"),
    "cpikan": ("structured", "per_point"),
    "anchored_plain": ("per_point",),
    "gains": ("structured", "per_point"),
    "gain": ("per_point",),
    "plain": ("per_point", "dense"),
}
# Nested reverse mode of fourth order is left to the jets.
JETS_ONLY = {("plain", "mixed"), ("anchored_plain", "mixed")}
LEFT_OUT = JETS_ONLY | {(n, "carried") for n in NETWORKS if n not in CARRIED}
LEFT_OUT |= {(n, "integrated") for n in NETWORKS if n not in (*CARRIED, "gains", "shared", "cpikan", "frozen_mlp")}
CASES = [(n, p, r) for n in NETWORKS for p in PROBLEMS for r in ROUTES[n] if (n, p) not in LEFT_OUT]
COUNTS = [7, 5, 1, 4]


class Case:
    def __init__(self, network: str, problem: str, route: Route) -> None:
        pde = PROBLEMS[problem]()
        self.objective = Objective(pde, NETWORKS[network](pde.domain, len(pde.fields)).double(), route, memory=2**12)
        self.points = draw_points(self.objective, COUNTS[: len(self.objective.terms)])
        first = self.objective.names[0]
        self.points[first][1] = self.points[first][0]  # repeated points
        self.batch = self.objective.batch(self.points)
        self.dense = dense_jacobians(self.objective, self.points)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(case))
def case(request: pytest.FixtureRequest) -> Case:
    torch.manual_seed(0)
    return Case(*request.param)


def test_rows(case: Case) -> None:
    for jacobian, dense in zip(case.objective.jacobians(case.batch), case.dense, strict=True):
        assert jacobian.rows == len(dense)
        assert relative(jacobian.dense(), dense) < 1e-10


def test_row_counts(case: Case) -> None:
    assert case.objective.row_counts(case.batch) == tuple(len(dense) for dense in case.dense)


def test_diagonals_and_traces(case: Case) -> None:
    jacobians = case.objective.jacobians(case.batch)
    for jacobian, dense in zip(jacobians, case.dense, strict=True):
        assert relative(jacobian.diagonal(), dense.square().sum(1)) < 1e-10
    traces = torch.stack([dense.square().sum() for dense in case.dense])
    assert relative(case.objective.traces(case.batch), traces) < 1e-10


def test_products(case: Case) -> None:
    for jacobian, dense in zip(case.objective.jacobians(case.batch), case.dense, strict=True):
        v = torch.randn(3, dense.shape[1], dtype=torch.float64)
        w = torch.randn(3, dense.shape[0], dtype=torch.float64)
        assert relative(jacobian.matvec(v), v @ dense.T) < 1e-10
        assert relative(jacobian.rmatvec(w), w @ dense) < 1e-10
        assert relative(jacobian.kernel_matvec(w), w @ dense @ dense.T) < 1e-10


def test_gram(case: Case) -> None:
    for jacobian, dense in zip(case.objective.jacobians(case.batch), case.dense, strict=True):
        kernel = jacobian.gram()
        assert relative(kernel, dense @ dense.T) < 1e-10
        assert relative(kernel, kernel.T) < 1e-12
        assert torch.linalg.eigvalsh(kernel).min() > -1e-12 * kernel.trace()


def test_whole_kernel_and_its_blocks(case: Case) -> None:
    """Assembled in chunks: the memory bound of the cases is a few rows."""
    whole = torch.cat(case.dense)
    jacobian = case.objective.jacobian(case.batch)
    assert relative(jacobian.gram(), whole @ whole.T) < 1e-10
    assert relative(jacobian.diagonal(), whole.square().sum(1)) < 1e-10
    w = torch.randn(2, len(whole), dtype=torch.float64)
    assert relative(jacobian.kernel_matvec(w), w @ whole @ whole.T) < 1e-10
    jacobians = case.objective.jacobians(case.batch)
    for i, j in itertools.combinations(range(len(jacobians)), 2):
        assert relative(jacobians[i].gram(jacobians[j]), case.dense[i] @ case.dense[j].T) < 1e-10


def test_fused_pass(case: Case) -> None:
    """Traces, losses and gradient of one pass, against the dense Jacobians."""
    residuals = [r.detach() for r in case.objective.residuals(case.batch)]
    evaluation = case.objective.fused(case.batch, lambda traces: traces.sum() / traces)
    traces = torch.stack([dense.square().sum() for dense in case.dense])
    weights = traces.sum() / traces
    gradient = sum(
        2 * weight / len(dense) * (residual @ dense)
        for weight, dense, residual in zip(weights, case.dense, residuals, strict=True)
    )
    assert evaluation.traces is not None
    assert relative(evaluation.traces, traces) < 1e-12
    assert relative(evaluation.weights, weights) < 1e-12
    assert relative(evaluation.losses, torch.stack([r.square().mean() for r in residuals])) < 1e-12
    assert isinstance(gradient, torch.Tensor)
    assert relative(case.objective.layout.flatten(evaluation.gradient), gradient) < 1e-12
    assert all(part.is_contiguous() for part in evaluation.gradient.values())  # fused optimisers ignore strides


def test_samples_of_the_fused_pass(case: Case) -> None:
    """Against the dense Jacobians: every second point as it is, then every point drawn once by its chance."""
    objective = case.objective
    if not objective.samples_in_pass:
        pytest.skip("the route takes samples in a pass of its own")
    counts = objective.point_counts(case.batch)
    diagonals = [dense.square().sum(1).view(-1, n).sum(0) for n, dense in zip(counts, case.dense, strict=True)]
    none, found = torch.zeros(0, dtype=torch.float64), list[torch.Tensor]()

    def weigh(signal: torch.Tensor) -> torch.Tensor:
        found.append(signal)
        return torch.ones(len(counts), dtype=torch.float64)

    def signals(chosen: list[Chosen]) -> Iterator[torch.Tensor]:
        evaluation = objective.fused(case.batch, weigh, chosen)
        plain = objective.gradient(case.batch, evaluation.weights)
        flatten = objective.layout.flatten
        assert relative(flatten(evaluation.gradient), flatten(plain.gradient)) < 1e-12
        lengths = [
            1 if own.whole(n) else 1 + len(own.places if len(own.places) else own.points)
            for n, own in zip(counts, chosen, strict=True)
        ]
        return iter(found.pop().split(lengths))

    halves = [Chosen(torch.arange(0, n, 2), none) for n in counts]
    for n, diagonal, own, signal in zip(counts, diagonals, halves, signals(halves), strict=True):
        expected = diagonal if n == 1 else torch.cat([diagonal.new_zeros(1), n * diagonal[own.points]])
        assert torch.allclose(signal, expected, rtol=1e-10, atol=1e-10 * float(expected.max()))
    known = dict[int, torch.Tensor]()
    for group in case.batch:
        first = [block.parts()[0] for block in objective._rows(group)[1]]
        known |= _group_diagonals(group, first, objective.components)
    ends = [Chosen(torch.arange(n), places_of_all(known[i])) for i, n in enumerate(counts)]
    for i, (n, diagonal, signal) in enumerate(zip(counts, diagonals, signals(ends), strict=True)):
        q, atol = known[i], 1e-10 * float(diagonal.max())
        chances = (1 - EQUAL) * q / q.sum() + EQUAL / n
        assert torch.allclose(signal[:1], q.sum()[None], rtol=1e-10)
        assert torch.allclose(q + chances * signal[1:], diagonal, rtol=1e-10, atol=atol)


def places_of_all(known: torch.Tensor) -> torch.Tensor:
    """In the middle of what each point has of the line, by its chance."""
    chances = (1 - EQUAL) * known / known.sum() + EQUAL / len(known)
    return chances.cumsum(0) - chances / 2


def test_gradient(case: Case) -> None:
    """The plain gradient equals the fused one under the same weights."""
    fused = case.objective.fused(case.batch, lambda traces: traces.sum() / traces)
    plain = case.objective.gradient(case.batch, fused.weights)
    flatten = case.objective.layout.flatten
    assert relative(flatten(fused.gradient), flatten(plain.gradient)) < 1e-12


def test_single_precision(case: Case) -> None:
    """Traces to 1e-5 relative, about a hundred roundings."""
    network = case.objective.network.float()
    try:
        objective = Objective(case.objective.pde, network, case.objective.route)
        batch = objective.batch({name: x.float() for name, x in case.points.items()})
        traces = torch.stack([dense.square().sum() for dense in case.dense])
        assert relative(objective.traces(batch).double(), traces) < 1e-5
    finally:
        network.double()


def test_no_side_effects(case: Case) -> None:
    objective, before = case.objective, torch.get_rng_state()
    for parameter in objective.network.parameters():
        parameter.grad = None
    objective.traces(case.batch)
    objective.fused(case.batch, torch.ones_like)
    for jacobian in objective.jacobians(case.batch):
        jacobian.gram()
        jacobian.rmatvec(torch.ones(1, jacobian.rows, dtype=torch.float64))
    assert all(parameter.grad is None for parameter in objective.network.parameters())
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("network", "route"),
    [
        (mlp, "structured"),
        (Shared, "structured"),
        (Gains, "structured"),
        (anchored, "structured"),
        (Gain, "per_point"),
        (Plain, "per_point"),
        (Coupled, "dense"),
        (CoupledJets, "dense"),
        (Branching, "dense"),
    ],
)
def test_automatic_route(network: Callable[[Box, int], nn.Module], route: Route) -> None:
    pde = System()
    assert Objective(pde, network(pde.domain, 2).double()).route == route


@pytest.mark.parametrize(
    ("network", "route"),
    [
        (Gain, "structured"),
        (Plain, "structured"),
        (Coupled, "per_point"),
        (CoupledJets, "structured"),
        (Branching, "per_point"),
    ],
)
def test_routes_that_do_not_fit_are_refused(network: Callable[[Box, int], nn.Module], route: Route) -> None:
    pde = System()
    with pytest.raises(RouteError, match=f"route {route} does not fit"):
        Objective(pde, network(pde.domain, 2).double(), route)


def test_why_rows_cannot_be_formed_is_said() -> None:
    pde = System()
    with pytest.raises(
        RouteError, match=r"rows of many points cannot be formed at once: .*data-dependent control flow"
    ):
        Objective(pde, Branching(pde.domain, 2).double(), "per_point")


class Learnt(PDE):
    """What a network gives is what is asked for: all that is left of the residuals is rounding.

    Args:
        network: the network.
        mean: read the mean over the points of the batch, too.
    """

    domain = Box.of(x=(0.0, 1.0), y=(0.0, 1.0))

    def __init__(self, network: nn.Module, mean: bool = False) -> None:
        self.known, self.mean = copy.deepcopy(network), mean

    def terms(self) -> tuple[Term, ...]:
        return (Term("residual", (self.domain,), ("u",), self.residual),)

    def residual(self, x: Columns, d: Columns) -> torch.Tensor:
        with torch.no_grad():
            known = values(self.known, torch.stack([x.x, x.y], dim=1))[:, 0]
        gap: torch.Tensor = d.u - known
        return gap + d.u.mean() if self.mean else gap


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_rounding_in_trained_networks_is_not_taken_for_other_points(dtype: torch.dtype, seed: int) -> None:
    torch.manual_seed(seed)
    network = MLP(20, 3, domain=Learnt.domain, outputs=1).to(dtype)
    objective = Objective(Learnt(network), network)
    x = draw_points(objective, [50])
    assert objective.losses(objective.batch(x)).max() < (1e-12 if dtype == torch.float32 else 1e-28)
    assert (objective.route, objective.mixing) == ("structured", ())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_other_points_are_found_in_trained_networks(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    network = MLP(20, 3, domain=Learnt.domain, outputs=1).to(dtype)
    objective = Objective(Learnt(network, mean=True), network)
    assert (objective.route, objective.mixing) == ("dense", ("residual",))
