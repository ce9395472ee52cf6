"""Compiled steps against the same steps made operation by operation."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module
from torch import Tensor
from torch._dynamo.utils import counters

from ntkrun.cli.preflight import own_values
from ntkrun.config.assembly import Parts, assemble
from ntkrun.config.configuration import read_configuration
from ntkrun.network import JetNetwork
from ntkrun.objective import Evaluation
from ntkrun.objective.chunked import ChunkedObjective
from ntkrun.steps.compiled import CompiledStepper
from ntkrun.steps.compiled_chunks import ChunkedStepper
from ntkrun.steps.cost_model import CompileChoice, choose
from ntkrun.steps.eager import Stepper
from ntkrun.steps.graph import Compiler

pytestmark = pytest.mark.long

ALWAYS = CompileChoice(100, 1.0, True)
SMALL = ("optimizer=adam", "dtype=float64", "pde.grid=5", "network.width=6", "network.depth=2")
PDES = (
    "advection", "allen_cahn", "beam", "burgers", "cavity", "diffusion", "helmholtz", "klein_gordon", "poisson",
    "poisson2d", "regression", "wave",
)  # fmt: skip
WEIGHTS = ("exact", "sketched", "none", "fixed", "gradient_norm", "relobralo", "softadapt", "uncertainty")
NETWORKS = {
    "modified_mlp": ("network=modified_mlp",),
    "fourier": ("network=fourier", "network.trainable=true"),
    "cpikan": ("network=cpikan",),
    "ecrn": ("network=ecrn", "network.survival=0.5"),
    "periodic": ("pde=advection", "network.periodic=true"),
}
OPTIMIZERS = ("adam", "adamw", "gradient_descent", "lbfgs", "adam_lbfgs")


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traces run as they are: everything but the compiler is tested, in a hundredth of the time."""
    monkeypatch.setattr("ntkrun.steps.graph.compile_trace", lambda trace, inputs, like: trace)


def parts(*overrides: str) -> Parts:
    with initialize_config_module("ntkrun.conf", version_base="1.3"):
        config = compose("config", overrides=[*SMALL, *(o for o in overrides)])
    built = assemble(read_configuration(own_values(config)))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():  # biases of zero have gradients that vanish by symmetry, and Adam makes steps of their noise
        for parameter in built.objective.network.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.add_(0.05 * noise)
    return built


def walk(built: Parts, stepper: Stepper, steps: range) -> list[tuple[Evaluation, Tensor]]:
    """Evaluations of some steps and the parameters after each of them."""
    out = []
    for step in steps:
        if isinstance(built.objective.network, JetNetwork):
            built.objective.network.start_step(step)
        plain = built.points.at(step)
        built.point_weights.update(built.objective, plain)
        batch = built.point_weights.apply(built.objective, plain)
        request = built.weighting.request(step, built.objective, batch)
        changed = bool(request.update or request.rule) or built.points.drawn_at == step
        evaluation = stepper.step(request, batch, 0.9**step, changed)
        built.weighting.take(request, evaluation)
        out.append((evaluation, built.objective.parameter_vector().clone()))
    return out


def compiled_stepper(built: Parts, choice: CompileChoice = ALWAYS) -> CompiledStepper:
    return CompiledStepper(built.objective, built.optimizer, Compiler(nullcontext, lambda starts: None), choice)


def chunked_stepper(built: Parts, choice: CompileChoice = ALWAYS) -> ChunkedStepper:
    assert isinstance(built.objective, ChunkedObjective)
    return ChunkedStepper(built.objective, built.optimizer, Compiler(nullcontext, lambda starts: None), choice)


def assert_alike(overrides: tuple[str, ...], tolerance: float, steps: int = 5) -> None:
    """The same losses, weights, traces and parameters both ways, relative to the largest entry of each."""
    eager, other = parts(*overrides), parts(*overrides)
    stepper = compiled_stepper(other)
    ours = walk(other, stepper, range(steps))
    theirs = walk(eager, Stepper(eager.objective, eager.optimizer), range(steps))
    assert stepper.programs
    compare(ours, theirs, tolerance)


def compare(ours: list[tuple[Evaluation, Tensor]], theirs: list[tuple[Evaluation, Tensor]], tolerance: float) -> None:
    for (a, p), (b, q) in zip(ours, theirs, strict=True):
        pairs = [(a.losses, b.losses), (a.weights, b.weights), (p, q)]
        if b.traces is not None:
            assert a.traces is not None
            pairs.append((a.traces, b.traces))
        for mine, expected in pairs:
            assert (mine - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("pde", PDES)
def test_every_problem(pde: str, traced: None) -> None:
    assert_alike((f"pde={pde}", "weights=exact", "weights.update_every=2"), 1e-9)


def test_integrals(traced: None, tmp_path: Path) -> None:
    """At all points at once, and a few at a time, where rows have several nodes."""
    (tmp_path / "pde").mkdir()
    points = "{residual: 13, mass: 5, jump: 3, initial: 7}"
    text = f"_target_: tests.problems.Integrated\npoints: {points}\nsampling: uniform\nresample_every: 1\ngrid: 5\n"
    (tmp_path / "pde" / "own.yaml").write_text(text)
    own = (f"hydra.searchpath=[file://{tmp_path}]", "pde=own", "weights=exact", "weights.update_every=2")
    assert_alike(own, 1e-9)
    whole, other = parts(*own), parts(*own, "trainer.chunk_size=5")
    stepper = chunked_stepper(other)
    ours = walk(other, stepper, range(4))
    assert stepper.pieces.graphs
    compare(ours, walk(whole, Stepper(whole.objective, whole.optimizer), range(4)), 1e-9)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_every_weighting(weights: str, traced: None) -> None:
    every = ("weights.update_every=2",) if weights in ("exact", "sketched", "gradient_norm", "softadapt") else ()
    assert_alike(("pde=wave", f"weights={weights}", *every), 1e-9)


def test_averages_of_sketches(traced: None) -> None:
    own = (
        "pde=wave",
        "weights=sketched",
        "weights.sketch_size=8",
        "network.depth=3",  # an inner map that is not known at all points
        "weights.average=kalman",
        "weights.update_every=auto",
    )
    assert_alike(own, 1e-9, steps=8)


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_every_network(network: tuple[str, ...], traced: None, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = ("pde=wave", *network, "weights.update_every=2")
    known = {"network.width", "network.depth"} if "cpikan" in network[0] or "ecrn" in network[0] else set()
    monkeypatch.setattr("tests.steps.test_compiled.SMALL", tuple(o for o in SMALL if o.partition("=")[0] not in known))
    assert_alike(overrides, 1e-9)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer(optimizer: str, traced: None) -> None:
    switch = ("optimizer.switch_at=3",) if optimizer == "adam_lbfgs" else ()
    fixed = ("pde=wave", "pde.resample_every=null", f"optimizer={optimizer}", *switch, "weights.freeze_after=0")
    assert_alike(fixed, 1e-7)


@pytest.mark.parametrize("optimizer", ["soap", "lbfgs"])
def test_gradients_for_optimizers_outside_the_graph(optimizer: str, traced: None) -> None:
    """Not their steps: after one gradient SOAP's eigenbasis is arbitrary but for one direction, so rounding decides."""
    built = parts("pde=wave", f"optimizer={optimizer}")
    stepper, batch = compiled_stepper(built), built.points.at(0)
    for values in ([1.0, 2, 3, 4], [5.0, 0.1, 7, 1]):
        weights = torch.tensor(values, dtype=torch.float64)
        ours, theirs = stepper.gradient(batch, weights), built.objective.gradient(batch, weights)
        assert stepper.programs
        assert (ours.losses - theirs.losses).abs().max() <= 1e-12 * theirs.losses.max()
        a, b = (built.objective.layout.flatten(each.gradient) for each in (ours, theirs))
        assert (a - b).abs().max() <= 1e-12 * b.abs().max()


@pytest.mark.parametrize("kind", ["causal", "residual_attention"])
def test_point_weights(kind: str, traced: None) -> None:
    overrides = ("pde=wave", "pde.resample_every=null", f"point_weights={kind}", "weights.update_every=2")
    assert_alike(overrides, 1e-9)


@pytest.mark.parametrize(
    "overrides",
    [
        ("pde=wave", "weights=exact", "weights.update_every=2"),
        ("pde=cavity", "weights=exact", "weights.update_every=1"),
        ("pde=wave", "weights=sketched", "weights.sketch_size=3", "weights.update_every=2", "network.depth=3"),
        ("pde=advection", "weights=softadapt", "weights.update_every=2"),
        ("pde=burgers", "weights=gradient_norm", "weights.update_every=2"),
        ("pde=wave", "pde.resample_every=null", "point_weights=residual_attention", "weights.update_every=2"),
        ("pde=wave", "network=ecrn", "network.survival=0.5", "weights=none"),
        ("pde=poisson", "optimizer=lbfgs", "weights=none"),
    ],
    ids=["exact", "systems", "sketches", "partners", "gradients", "point-weights", "draws", "lbfgs"],
)
def test_chunks(overrides: tuple[str, ...], traced: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of unequal lengths by one graph each, against all points at once operation by operation."""
    known = {"network.width", "network.depth"} if "network=ecrn" in overrides else set()
    monkeypatch.setattr("tests.steps.test_compiled.SMALL", tuple(o for o in SMALL if o.partition("=")[0] not in known))
    counts = parts(*overrides).points.counts
    few = tuple(f"pde.points.{name}={13 + 5 * i}" for i, name in enumerate(counts))
    few = (*few, "pde.sampling=uniform")
    whole, other = parts(*overrides, *few), parts(*overrides, *few, "trainer.chunk_size=5")
    stepper = chunked_stepper(other)
    ours = walk(other, stepper, range(5))
    compare(ours, walk(whole, Stepper(whole.objective, whole.optimizer), range(5)), 1e-9)
    kinds = {(traced, term) for traced, _, term, _ in stepper.pieces.graphs}
    assert len(kinds) == len(stepper.pieces.graphs) > 0


def test_generated_code_for_chunks() -> None:
    """The compiler itself; what is not worth graphs of its own is left as it is."""
    few = ("pde.points.residual=13", "pde.points.boundary=4", "pde.sampling=uniform", "weights=exact")
    whole = parts("pde=helmholtz", *few, "weights.update_every=3")
    other = parts("pde=helmholtz", *few, "weights.update_every=3", "trainer.chunk_size=5")
    stepper = chunked_stepper(other, CompileChoice(100, 2.0, "auto"))
    ours = walk(other, stepper, range(5))
    compare(ours, walk(whole, Stepper(whole.objective, whole.optimizer), range(5)), 1e-9)
    assert {traced for traced, *_ in stepper.pieces.graphs} == {"no"}
    torch.compiler.reset()


def test_generated_code() -> None:
    """The compiler itself, and that weights, rates and fresh points never ask it for another graph."""
    counters.clear()
    assert_alike(("pde=wave", "weights=exact", "weights.update_every=2"), 1e-9, steps=7)
    assert counters["aot_autograd"]["total"] == 2  # graphs: of steps with an update and of steps without
    torch.compiler.reset()


def test_generated_code_in_single_precision() -> None:
    assert_alike(("pde=poisson", "weights=exact", "weights.update_every=1", "dtype=float32"), 2e-4)
    torch.compiler.reset()


def test_weights_are_not_frozen_by_the_trace(traced: None) -> None:
    """A weight that is changed by hand changes the next step alike both ways."""
    gradients = []
    for kind in (Stepper, compiled_stepper):
        built = parts("pde=wave", "weights=none", "optimizer=gradient_descent")
        stepper = compiled_stepper(built) if kind is compiled_stepper else Stepper(built.objective, built.optimizer)
        moves = []
        for step, weights in enumerate(([1.0, 1, 1, 1], [1.0, 50, 1, 1], [3.0, 1, 1, 7])):
            built.weighting.weights = torch.tensor(weights, dtype=torch.float64)
            before = built.objective.parameter_vector().clone()
            walk(built, stepper, range(step, step + 1))
            moves.append(built.objective.parameter_vector() - before)
        gradients.append(moves)
    for ours, theirs in zip(*gradients, strict=True):
        assert (ours - theirs).abs().max() <= 1e-10 * theirs.abs().max()


def test_a_problem_that_hides_its_points_from_the_trace_is_left_eager(
    traced: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A target computed by NumPy would be that of the first points for ever."""
    built = parts("pde=regression", "pde.resample_every=1", "pde.sampling=uniform")
    (term,) = built.objective.terms

    def residual(x: Any, d: Any) -> Tensor:
        return d.u - torch.from_numpy(x.x.detach().numpy() ** 2)

    monkeypatch.setattr(built.objective, "terms", (type(term)(term.name, term.region, term.derivatives, residual),))
    stepper = compiled_stepper(built)
    with caplog.at_level(logging.WARNING):
        walk(built, stepper, range(2))
    assert not stepper.programs
    assert "steps are not compiled" in caplog.text


def test_a_compiler_that_fails_costs_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: Any, **more: Any) -> Callable[..., Any]:
        raise RuntimeError("no such compiler\nand more about it")

    monkeypatch.setattr("ntkrun.steps.graph.compile_trace", fail)
    assert_eager = parts("pde=poisson", "weights=none")
    with caplog.at_level(logging.WARNING):
        walk(assert_eager, compiled_stepper(assert_eager), range(3))
    assert [record.message for record in caplog.records] == ["steps are not compiled: no such compiler"]


def test_the_length_of_the_run_decides(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("ntkrun.steps.cost_model.shutil.which", lambda name: "/bin/true")
    built = parts("pde=poisson")
    counts = {"residual": 100, "boundary": 2}
    caplog.set_level(logging.INFO, "ntkrun")
    assert not choose("auto", 1000, built.objective, counts).pays()
    long = choose("auto", 10**6, built.objective, counts)
    assert long.pays()
    assert not long.pays(every=10**6)  # what happens once is not worth a graph of its own
    assert choose(True, 10, built.objective, counts).pays(every=10)
    assert not choose(False, 10**9, built.objective, counts).pays()
    assert "steps are not compiled: the run is estimated at 2 s without (trainer.compile=auto)" in caplog.text
    monkeypatch.setattr("ntkrun.steps.cost_model.shutil.which", lambda name: None)
    assert not choose(True, 10, built.objective, counts).pays()
    assert "a C++ compiler" in caplog.text
