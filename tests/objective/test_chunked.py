"""Points in chunks: the same losses, gradients, traces and products as all at once.

``test_ranks`` has two processes do some of these tests together.
"""

from __future__ import annotations

import gc
import itertools
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ntkrun.network import MLP
from ntkrun.objective import Evaluation, Objective, Route
from ntkrun.objective.batch import Batch
from ntkrun.objective.chunked import ChunkedObjective, cut, points_at_a_time
from ntkrun.optimizer import Adam
from ntkrun.pde import PDE, Advection, Poisson, Wave
from ntkrun.point_weights import Causal, PointWeights, ResidualAttention, Uniform
from ntkrun.runtime.distributed import present
from ntkrun.weights import (
    Exact,
    Fixed,
    GradientNorm,
    ReLoBRaLo,
    Sketched,
    SoftAdapt,
    Uncertainty,
    Unweighted,
    Weighting,
)
from tests.driver import assert_refused, ntkrun
from tests.oracle import dense_jacobians, draw_batch, relative
from tests.problems import Carried, Coupled, Gain, Integrated, System, mlp

PROBLEMS: dict[str, tuple[Callable[[], PDE], list[int]]] = {
    "joined": (Poisson, [40, 2]),
    "four-terms": (Wave, [31, 9, 8, 5]),
    "partners": (Advection, [20, 7, 9]),
    "several-residuals": (System, [17, 8, 1]),
    "columns": (Carried, [20, 9, 7, 5]),
    "integrals": (Integrated, [17, 7, 3, 8]),
}
NETWORKS: dict[Route, Callable[..., nn.Module]] = {"structured": mlp, "per_point": Gain, "dense": mlp}
SIZE = 6


def both(pde: PDE, route: Route = "structured") -> tuple[Objective, ChunkedObjective]:
    network = NETWORKS[route](pde.domain, len(pde.fields)).double()
    return Objective(pde, network, route), ChunkedObjective(pde, network, route, 2**20, SIZE, present())


def weighted(objective: Objective, batch: Batch) -> Batch:
    """With point weights of their own for every residual of the first term."""
    generator = torch.Generator().manual_seed(1)
    weights = {}
    for k, (name, n) in enumerate(zip(objective.names, objective.point_counts(batch), strict=True)):
        columns = objective.components[0] if k == 0 else 1
        weights[name] = torch.rand(n, columns, generator=generator, dtype=torch.float64)
    return objective.weigh_points(batch, weights)


def test_pieces_are_all_the_points_in_order() -> None:
    whole, _ = both(Wave())
    points, batch = draw_batch(whole, [31, 9, 8, 5])
    pieces = list(cut(batch, SIZE))
    lengths = [len(piece.group.x) for piece in pieces]
    assert max(lengths) <= SIZE
    assert max(lengths[:6]) - min(lengths[:6]) <= 1
    for i, name in enumerate(whole.names):
        assert torch.equal(torch.cat([piece.group.x for piece in pieces if piece.term == i]), points[name])


ROUTES: list[tuple[str, Route]] = [
    *((problem, "structured") for problem in PROBLEMS),
    ("several-residuals", "per_point"),
    ("several-residuals", "dense"),
]


@pytest.mark.parametrize("points", ["plain", "weighted"])
@pytest.mark.parametrize(("problem", "route"), ROUTES, ids=["-".join(case) for case in ROUTES])
def test_everything_is_as_without_chunks(problem: str, route: Route, points: str) -> None:
    make, counts = PROBLEMS[problem]
    whole, chunked = both(make(), route)
    _, batch = draw_batch(whole, counts)
    if points == "weighted":
        batch = weighted(whole, batch)
    weights = torch.rand(len(counts), dtype=torch.float64)

    def same(ours: Tensor, expected: Tensor) -> None:
        assert relative(ours, expected) < 1e-12

    same(chunked.losses(batch), whole.losses(batch))
    for ours, expected in zip(chunked.term_gradients(batch), whole.term_gradients(batch), strict=True):
        same(ours, expected)
    given = [o.gradient(batch, weights) for o in (chunked, whole)]
    made = [o.gradient(batch, lambda losses: weights / losses) for o in (chunked, whole)]
    fused = [o.fused(batch, lambda traces: traces.sum() / traces) for o in (chunked, whole)]
    for ours, expected in (given, made, fused):
        same(ours.losses, expected.losses)
        same(ours.weights, expected.weights)
        same(whole.layout.flatten(ours.gradient), whole.layout.flatten(expected.gradient))
    same(chunked.traces(batch), whole.traces(batch))
    with torch.no_grad():
        shifted = whole.shifted(0.1 * torch.ones(whole.layout.size, dtype=torch.float64))
        for ours, expected in zip(chunked.residuals(batch, shifted), whole.residuals(batch, shifted), strict=True):
            same(ours, expected)
        for ours, expected in zip(chunked.term_functions(batch), whole.term_functions(batch), strict=True):
            same(ours(shifted), expected(shifted))
    for ours, expected in zip(chunked.jacobians(batch), whole.jacobians(batch), strict=True):
        assert ours.rows == expected.rows
        directions = torch.rand(2, whole.layout.size, dtype=torch.float64)
        probes = torch.rand(3, ours.rows, dtype=torch.float64)
        same(ours.diagonal(), expected.diagonal())
        same(ours.matvec(directions), expected.matvec(directions))
        same(ours.rmatvec(probes), expected.rmatvec(probes))
        same(ours.gram(), expected.gram())
        same(ours.dense(), expected.dense())


@pytest.mark.parametrize("problem", PROBLEMS)
def test_fused_traces_against_dense_rows(problem: str) -> None:
    make, counts = PROBLEMS[problem]
    _, chunked = both(make())
    points, batch = draw_batch(chunked, counts)
    traces = torch.stack([dense.square().sum() for dense in dense_jacobians(chunked, points)])
    evaluation = chunked.fused(batch, lambda traces: 1 / traces)
    assert evaluation.traces is not None
    assert relative(evaluation.traces, traces) < 1e-12


def test_one_forward_and_one_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever makes the weights, every point is evaluated once."""
    _, chunked = both(Wave())
    _, batch = draw_batch(chunked, [31, 9, 8, 5])
    seen: list[int] = []
    plain = Objective.derivatives

    def count(self: Objective, group: object, x: Tensor, *rest: object) -> object:
        seen.append(len(x))
        return plain(self, group, x, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Objective, "derivatives", count)
    for evaluate in (
        lambda: chunked.gradient(batch, torch.ones(4, dtype=torch.float64)),
        lambda: chunked.gradient(batch, lambda losses: losses),
        lambda: chunked.fused(batch, lambda traces: traces),
        lambda: chunked.term_gradients(batch),
    ):
        seen.clear()
        evaluate()
        assert sum(seen) == 31 + 9 + 8 + 5
        assert max(seen) <= SIZE


WEIGHTINGS: dict[str, Callable[[], Weighting]] = {
    "none": Unweighted,
    "fixed": lambda: Fixed(values={"boundary": 7.0}),
    "exact": lambda: Exact(update_every=2),
    "exact-every-step": lambda: Exact(update_every=1, smoothing=0.5),
    "exact-own-points": lambda: Exact(update_every=2, points=9),
    "gradient-norm": lambda: GradientNorm(update_every=2),
    "relobralo": lambda: ReLoBRaLo(expected_rho=0.5),
    "softadapt": lambda: SoftAdapt(update_every=2, loss_weighted=True),
    "uncertainty": lambda: Uncertainty(learning_rate=0.1),
    "sketched": lambda: Sketched(update_every=2, sketch_size=3),
    "sketched-gaussian": lambda: Sketched(update_every=2, sketch_size=4, distribution="gaussian"),
    "sketched-parameter": lambda: Sketched(update_every=2, sketch_size=4, side="parameter", distribution="rademacher"),
    "sketched-xtrace": lambda: Sketched(update_every=2, sketch_size=4, distribution="gaussian", estimator="xtrace"),
    "sketched-recursive": lambda: Sketched(update_every=1, sketch_size=4, corrector="recursive", restart="exact"),
    "sketched-difference": lambda: Sketched(
        update_every=2,
        sketch_size=4,
        side="parameter",
        distribution="gaussian",
        derivative="finite_difference",
        difference="central",
        delta=1e-3,
    ),
    "sketched-coordinate-difference": lambda: Sketched(
        update_every=2, sketch_size=4, derivative="finite_difference", difference="central", delta=1e-3
    ),
}
POINT_WEIGHTS: dict[str, Callable[[], PointWeights]] = {
    "uniform": Uniform,
    "causal": lambda: Causal(epsilon=0.01, chunks=5),
    "attention": lambda: ResidualAttention(eta=0.5),
}


def train(objective: Objective, weighting: Weighting, point_weights: PointWeights, steps: int = 4) -> list[Evaluation]:
    weighting.start(objective, 0)
    point_weights.start(objective, True)
    optimizer = Adam(learning_rate=1e-2)
    optimizer.start(objective.network)
    _, batch = draw_batch(objective, [31, 9, 8, 5])
    evaluations = []
    for step in range(steps):
        point_weights.update(objective, batch)
        own = point_weights.apply(objective, batch)
        evaluation, _ = weighting.evaluate(step, objective, own)
        evaluations.append(evaluation)
        optimizer.step(evaluation, 1.0, lambda: pytest.fail("Adam asks for one gradient"), False)
    return evaluations


CASES = [*((name, "uniform") for name in WEIGHTINGS), *(("exact", name) for name in POINT_WEIGHTS if name != "uniform")]


@pytest.mark.parametrize(("weights", "point_weights"), CASES, ids=["-".join(case) for case in CASES])
def test_weightings_train_as_without_chunks(weights: str, point_weights: str) -> None:
    histories = []
    for k in range(2):
        torch.manual_seed(0)
        objective = both(Wave())[k]
        histories.append(train(objective, WEIGHTINGS[weights](), POINT_WEIGHTS[point_weights]()))
    # A difference of residuals over a step of 1e-3 multiplies round-off by 1e3.
    tolerance = 1e-8 if "difference" in weights else 1e-11
    for whole, ours in zip(*histories, strict=True):
        assert relative(ours.losses, whole.losses) < tolerance
        assert relative(ours.weights, whole.weights) < tolerance


# How many points at a time


@pytest.mark.parametrize("width", [8, 64])
def test_chunks_fit_into_the_memory(width: int) -> None:
    """What the graph of a chunk keeps is a third of it: as much again are gradients, and products of both."""
    pde = Wave()
    objective = Objective(pde, MLP(width, 3, domain=pde.domain, outputs=1))
    memory = 2**23
    size = points_at_a_time(objective, memory)
    assert points_at_a_time(objective, 2 * memory) == pytest.approx(2 * size, rel=1e-3, abs=2)
    _, batch = draw_batch(objective, [size, 1, 1, 1])
    group = next(piece.group for piece in cut(batch, size) if piece.term == 0)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        objective.group_residuals(group)
    assert 0.9 < 3 * sum(kept.values()) / memory < 1.02


def test_measuring_the_memory_keeps_none() -> None:
    def tensors() -> int:
        gc.collect()
        return sum(type(each) is Tensor for each in gc.get_objects())

    pde = Wave()
    objective = Objective(pde, MLP(8, 2, domain=pde.domain, outputs=1))
    before = tensors()
    points_at_a_time(objective)
    assert tensors() == before


def test_wider_networks_take_smaller_chunks() -> None:
    pde = Wave()
    sizes = [points_at_a_time(Objective(pde, MLP(w, 2, domain=pde.domain, outputs=1))) for w in (16, 64, 256)]
    for larger, smaller in itertools.pairwise(sizes):
        assert math.isclose(larger / smaller, 4, rel_tol=0.2)


# On the command line

SMALL = [
    *("optimizer=adam", "network.width=8", "network.depth=2", "pde.grid=10", "plots=false", "iterations=12"),
    "dtype=float64",
]


def final(directory: Path) -> dict[str, Tensor]:
    network: dict[str, Tensor] = torch.load(directory / "checkpoint.pt", weights_only=True)["network"]
    return network


def test_a_run_in_chunks_ends_like_one_without(tmp_path: Path) -> None:
    whole, chunked = (ntkrun("pde=wave", *SMALL, f"trainer.chunk_size={n}", cwd=tmp_path) for n in ("auto", 50))
    assert (whole.status, chunked.status) == (0, 0)
    assert "points are evaluated in chunks of at most 50" in chunked.stderr
    assert "chunks" not in whole.stderr
    for name, value in final(whole.directory).items():
        assert relative(final(chunked.directory)[name], value) < 1e-9


def test_networks_whose_points_depend_on_each_other_are_refused(
    tmp_path: Path,
) -> None:
    conf = tmp_path / "conf" / "network"
    conf.mkdir(parents=True)
    (conf / "coupled.yaml").write_text(f"_target_: {Coupled.__module__}.{Coupled.__name__}\n")
    arguments = ["--config-dir", "./conf", "network=coupled", "iterations=1", "plots=false", "pde.grid=10"]
    assert_refused(
        ntkrun(*arguments, "trainer.chunk_size=50", cwd=tmp_path), tmp_path, "trainer.chunk_size=50", "Coupled"
    )
    assert ntkrun(*arguments, cwd=tmp_path).status == 0
