"""Compiled steps, waiting, resumed runs, memory and collectives on a device."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, fx
from torch._dynamo.utils import counters

from ntkrun.runtime import memory
from ntkrun.steps.compiled import CompiledStepper
from ntkrun.steps.compiled_chunks import ChunkedStepper
from ntkrun.steps.cost_model import CompileChoice
from ntkrun.steps.eager import Stepper
from ntkrun.steps.graph import Compiler, compile_trace, forget_graphs
from ntkrun.storage.checkpoint import load_checkpoint
from tests.devices import Reads, parts, walk
from tests.driver import ntkrun

STEPS = 6
KINDS = {
    "none": ("weights=none",),
    "exact": ("weights=exact", "weights.update_every=1"),
    "sketched": ("weights=sketched", "weights.update_every=1", "weights.sketch_size=8"),
    "chunks": ("weights=exact", "weights.update_every=1", "trainer.chunk_size=90"),
}
ONE = """
import torch, torch.distributed as dist
from ntkrun.runtime.distributed import Ranks
device, port = {device!r}, {port!r}
backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
dist.init_process_group(backend, init_method="tcp://localhost:" + port, rank=0, world_size=1)
ranks = Ranks(0, 2)  # of two, the other of which adds nothing
numbers = torch.arange(5, dtype=torch.float64, device=device)
assert ranks.sum(numbers.clone()).tolist() == numbers.tolist()
assert ranks.largest([3, -1]) == [3, -1]
assert ranks.broadcast({{"a": 1}}) == {{"a": 1}}
dist.destroy_process_group()
print("exchanged on", numbers.device.type)
"""


@pytest.fixture
def compiler(device: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """That of the device; on the host traces run as they are, for its compiler has tests of its own."""

    def compiled(trace: fx.GraphModule, inputs: Sequence[Tensor], like: Tensor) -> Callable[..., list[Tensor]]:
        result: Callable[..., list[Tensor]] = trace if device == "cpu" else compile_trace(trace, inputs, like)
        return result

    monkeypatch.setattr("ntkrun.steps.graph.compile_trace", compiled)
    yield
    if device == "cuda":
        forget_graphs()


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("replays", [True, False], ids=["replayed", "called"])
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_steps(kind: str, replays: bool, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With CUDA graphs and without: the losses, weights and parameters of steps by operations, at every step."""
    if not replays:
        monkeypatch.setattr("ntkrun.steps.graph._replays", lambda like: False)
    counters.clear()
    own = ("pde=wave", "optimizer=adam", "dtype=float64", f"device={device}", *KINDS[kind])
    ours, theirs = parts(*own), parts(*own)
    kinds = CompiledStepper if ours.objective.size is None else ChunkedStepper
    choice = CompileChoice(100, 1.0, True)
    compiler = Compiler(nullcontext, lambda starts: None)
    stepper: Any = kinds(ours.objective, ours.optimizer, compiler, choice)
    plain = Stepper(theirs.objective, theirs.optimizer)
    weights: list[Tensor] = []
    for mine, expected in zip(walk(ours, stepper, range(STEPS)), walk(theirs, plain, range(STEPS)), strict=True):
        assert (mine.losses - expected.losses).abs().max() <= 1e-8 * expected.losses.max()
        assert (mine.weights - expected.weights).abs().max() <= 1e-8 * expected.weights.max()
        weights.append(mine.weights.clone())
    assert not compiler.failed
    here, there = ours.objective.parameter_vector(), theirs.objective.parameter_vector()
    assert (here - there).abs().max() <= 1e-8 * there.abs().max()
    if kind != "none":  # a replay does not freeze them
        assert all(not torch.equal(a, b) for a, b in pairwise(weights))
    if device == "cuda" and replays:
        assert counters["inductor"]["cudagraph_skips"] == 0


@contextmanager
def nothing_read(device: str, allowed: int) -> Iterator[None]:
    """On a card torch itself raises where the host waits; elsewhere reads are counted."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return
    with Reads() as reads:
        yield
    assert reads.total == allowed


@pytest.mark.parametrize("kind", KINDS)
def test_steps_wait_for_nothing(kind: str, device: str) -> None:
    """On the host a step looks once whether its losses are finite."""
    own = ("pde=wave", "pde.resample_every=null", "optimizer=adam", f"device={device}", *KINDS[kind])
    built = parts(*own)
    steps = walk(built, Stepper(built.objective, built.optimizer), range(STEPS))
    next(steps)
    with nothing_read(device, STEPS - 1):
        for _ in steps:
            pass


RUNS = {
    "adam": ("optimizer=adam", "schedule=constant", "weights=exact", "weights.update_every=1"),
    "sketched": ("optimizer=adam", "schedule=constant", "weights=sketched", "weights.update_every=2"),
    "gauss_newton": ("optimizer=gauss_newton", "optimizer.solver=cholesky"),
    "compiled": (
        "optimizer=adam",
        "schedule=constant",
        "weights=exact",
        "weights.update_every=1",
        "trainer.compile=true",
    ),
}


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("kind", RUNS)
def test_a_resumed_run_is_the_same_bit_for_bit(kind: str, device: str, tmp_path: Path) -> None:
    common = ("pde=wave", f"device={device}", "log_every=1", "plots=false", "progress=false", "pde.grid=9", *RUNS[kind])
    small = ("network.width=8", "network.depth=2")
    whole = ntkrun(*common, *small, "iterations=12", cwd=tmp_path)
    first = ntkrun(*common, *small, "iterations=6", cwd=tmp_path)
    assert whole.status == first.status == 0
    resumed = ntkrun(f"resume={first.directory}", "iterations=12", cwd=tmp_path)
    assert resumed.status == 0
    places = (whole.directory, first.directory)
    tables = [pd.read_csv(place / "metrics.csv").drop(columns="seconds") for place in places]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    networks = [load_checkpoint(place).state["network"] for place in places]
    for name, expected in networks[0].items():
        assert torch.equal(networks[1][name], expected)


def test_free_memory_is_that_of_the_device(device: str) -> None:
    before = memory.available(device)
    held = torch.ones(2**24, device=device)  # 64 MiB
    after = memory.available(device)
    assert held.sum() == 2**24
    if device == "cuda":
        assert before - after >= held.nbytes
    assert 0 < after < 2**50


def test_one_process_exchanges_with_itself(device: str) -> None:
    """NCCL on a card, Gloo elsewhere."""
    code = ONE.format(device=device, port=free_port())
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == f"exchanged on {device}"


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return str(free.getsockname()[1])
