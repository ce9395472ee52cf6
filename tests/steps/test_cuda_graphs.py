"""What CUDA graphs ask of a compiled step, shown without a card.

A graph that is replayed knows the addresses of the tensors that it was recorded with and nothing of the host: whatever
changes from step to step must be a tensor among its inputs, and what it changes must stay where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx

from ntkrun.backend.tracing import traced
from ntkrun.steps.compiled import CompiledStepper
from ntkrun.steps.compiled_chunks import ChunkedStepper
from ntkrun.steps.cost_model import CompileChoice
from ntkrun.steps.eager import Stepper
from ntkrun.steps.graph import CompileError, Compiler, Graph
from tests.devices import READING, parts, parts_on_meta, walk

STEPS = 5
KINDS = {
    "none": ("weights=none",),
    "exact": ("weights=exact", "weights.update_every=1", "weights.smoothing=0.5"),
    "rarely": ("weights=exact", "weights.update_every=3"),
    "sketched": ("weights=sketched", "weights.update_every=1", "weights.sketch_size=8"),
    "causal": ("weights=exact", "weights.update_every=1", "point_weights=causal"),
    "chunks": ("weights=exact", "weights.update_every=1", "trainer.chunk_size=150"),
    "draws": ("weights=exact", "weights.update_every=1", "network=ecrn", "network.survival=0.5", "network.features=4"),
    "new points": ("weights=exact", "weights.update_every=1", "pde.resample_every=1"),
}


class Replayed:
    """Does with a trace what a CUDA graph does: the first call runs it, the second records it, others replay it.

    A recording keeps the addresses of its inputs: tensors marked as static are read where they were then, others are
    copied to places of its own. Its outputs lie at the same places every time.
    """

    def __init__(self, trace: fx.GraphModule) -> None:
        self.trace = trace
        self.calls = 0
        self.places: list[Tensor] = []
        self.static: list[bool] = []
        self.outputs: list[Tensor] = []

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        self.calls += 1
        if self.calls == 1:
            result: list[Tensor] = self.trace(*inputs)
            return result
        if self.calls == 2:
            self.static = [hasattr(each, "_dynamo_static_input_type") for each in inputs]
            self.places = [each if fixed else each.clone() for each, fixed in zip(inputs, self.static, strict=True)]
            self.outputs = [torch.zeros_like(each) for each in self.trace(*[each.clone() for each in inputs])]
        for place, each, fixed in zip(self.places, inputs, self.static, strict=True):
            if not fixed:
                place.copy_(each)
        before = [place.clone() for place in self.places]
        for output, value in zip(self.outputs, self.trace(*self.places), strict=True):
            output.copy_(value)
        for place, old, fixed in zip(self.places, before, self.static, strict=True):
            assert fixed or torch.equal(place, old), "a tensor that is not kept would have been changed"
        return self.outputs


@pytest.fixture
def replayed(monkeypatch: pytest.MonkeyPatch) -> list[Replayed]:
    """Compiled steps as on a device with CUDA graphs; gives those that are made."""
    made: list[Replayed] = []

    def compile_trace(trace: fx.GraphModule, inputs: Sequence[Tensor], like: Tensor) -> Replayed:
        made.append(Replayed(trace))
        return made[-1]

    monkeypatch.setattr("ntkrun.steps.graph._replays", lambda like: True)
    monkeypatch.setattr("ntkrun.steps.graph.compile_trace", compile_trace)
    return made


def stepper_of(built: Any) -> Stepper:
    choice = CompileChoice(100, 1.0, True)
    kind = CompiledStepper if built.objective.size is None else ChunkedStepper
    stepper: Stepper = kind(built.objective, built.optimizer, Compiler(nullcontext, lambda starts: None), choice)
    return stepper


def check_replays(replayed: list[Replayed], *overrides: str) -> None:
    """Steps by replays are the steps by operations, weights and all."""
    own = ("pde=wave", "optimizer=adam", "dtype=float64", *overrides)
    ours, theirs = parts(*own), parts(*own)
    stepper, plain = stepper_of(ours), Stepper(theirs.objective, theirs.optimizer)
    weights = []
    for mine, expected in zip(walk(ours, stepper, range(STEPS)), walk(theirs, plain, range(STEPS)), strict=True):
        assert (mine.losses - expected.losses).abs().max() <= 1e-9 * expected.losses.max()
        assert (mine.weights - expected.weights).abs().max() <= 1e-9 * expected.weights.max()
        weights.append(mine.weights.clone())
    here, there = ours.objective.parameter_vector(), theirs.objective.parameter_vector()
    assert (here - there).abs().max() <= 1e-9 * there.abs().max()
    assert all(each.calls > 2 for each in replayed)
    if "weights=none" not in overrides:
        assert not torch.equal(weights[-1], weights[1])


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_replayed_steps(kind: str, replayed: list[Replayed]) -> None:
    check_replays(replayed, *KINDS[kind])


def test_a_number_of_the_host_in_a_replay_is_found(replayed: list[Replayed]) -> None:
    """The trial that follows the recording differs from it in every number."""
    calls = 0

    def compile_trace(trace: fx.GraphModule, *unused: object) -> Callable[..., list[Tensor]]:
        graph = Replayed(trace)

        def frozen(*inputs: Tensor) -> list[Tensor]:
            nonlocal calls
            calls += 1
            outputs = graph(*inputs)
            return [output.clone() for output in outputs] if calls < 3 else [2.0 * output for output in outputs]

        return frozen

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ntkrun.steps.graph.compile_trace", compile_trace)
        with pytest.raises(CompileError, match="differs from its operations"):
            Graph(lambda x: [x.exp()], lambda k: [torch.full((3,), float(k))], nn.Identity(), torch.ones(3), {})
    assert calls == 3


class Recorded:
    """In place of a graph: traces the step of the moment, and computes it by its operations."""

    traces: list[fx.GraphModule]

    def __init__(self, function: Any, trial: Any, *unused: object) -> None:
        self.function = function
        self.check_next = False

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        with torch.no_grad(), traced():
            copies = [each.clone() for each in inputs]
            type(self).traces.append(make_fx(self.function, tracing_mode="real")(*copies))
            outputs: list[Tensor] = self.function(*inputs)
        return outputs


def constants(trace: fx.GraphModule) -> list[Tensor]:
    """What a trace holds besides its inputs."""
    return [getattr(trace, str(node.target)) for node in trace.graph.nodes if node.op == "get_attr"]


def check_traces(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> None:
    """Traces of one kind of step are the same at every step, whatever rates, weights, points and progress are."""
    monkeypatch.setattr("ntkrun.steps.compiled.Graph", Recorded)
    monkeypatch.setattr("ntkrun.steps.compiled_chunks.Graph", Recorded)
    Recorded.traces = []
    built = parts("pde=wave", "optimizer=adam", *overrides)
    for _ in walk(built, stepper_of(built), range(STEPS)):
        pass
    kinds: dict[str, list[fx.GraphModule]] = {}
    for trace in Recorded.traces:
        kinds.setdefault(trace.code, []).append(trace)
    most = {"rarely": 2, "chunks": len(built.objective.terms)}
    name = next(name for name, own in KINDS.items() if own == overrides)
    assert len(kinds) <= most.get(name, 1)
    for first, *others in kinds.values():
        assert others
        for other in others:
            for ours, theirs in zip(constants(first), constants(other), strict=True):
                assert torch.equal(ours, theirs)
        packets = {getattr(node.target, "overloadpacket", None) for node in first.graph.nodes}
        assert not packets & set(READING)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_traces_hold_no_numbers_of_the_host(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_traces(monkeypatch, *KINDS[kind])


@pytest.mark.long
@pytest.mark.parametrize("kind", ["exact", "sketched"])
def test_constants_of_traces_are_on_the_device(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One tensor of the host among them, and torch records no CUDA graph."""
    monkeypatch.setattr("ntkrun.ntk.sketch.hilbert_order", lambda points: torch.arange(len(points)))
    monkeypatch.setattr("ntkrun.steps.compiled.Graph", Recorded)
    Recorded.traces = []
    built = parts_on_meta(monkeypatch, "pde=wave", "optimizer=adam", *KINDS[kind])
    next(walk(built, stepper_of(built), range(1)))
    (trace,) = Recorded.traces
    assert all(each.device.type == "meta" for each in constants(trace))
    devices = {node.meta["val"].device.type for node in trace.graph.nodes if isinstance(node.meta.get("val"), Tensor)}
    assert devices == {"meta"}
