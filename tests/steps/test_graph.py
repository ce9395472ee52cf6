"""Compiled graphs against their operations."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, fx, nn
from torch._inductor import config
from torch.fx.experimental.proxy_tensor import make_fx

from ntkrun.steps.graph import CompileError, Compiler, Graph, _bytes_worth_sharing, forget_graphs


def test_a_slice_of_a_concatenation_is_not_given_away_twice() -> None:
    """torch 2.13 with its own options puts ``other`` over ``kept``: both may lie where ``both`` was."""

    def step(x: Tensor, w: Tensor, large: Tensor) -> list[Tensor]:
        w = w + (large @ large.mT @ large[:, : len(w)])[: len(w)]  # places are shared where that saves memory
        s = x.sigmoid()
        both = torch.cat([s, s * x])
        p = both @ w
        q = s * p[: len(s)]
        a = (q @ w).sin()
        kept = a @ x
        other = torch.cat([a.cos(), a * x]) @ w
        return [kept @ other.mT @ other]

    def trial(k: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(k)
        shapes = ((16, 16), (16, 16), (640, 640))
        return [torch.randn(shape, dtype=torch.float64, generator=generator) / shape[0] for shape in shapes]

    inputs = trial(2)
    graph = Graph(step, trial, nn.Identity(), inputs[0], {})  # compares once by itself
    torch.testing.assert_close(graph(inputs), step(*inputs), rtol=1e-12, atol=0)
    torch.compiler.reset()


def test_an_output_that_is_off_by_a_thousandth_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """In single precision too."""

    def compiler(trace: fx.GraphModule, *unused: object) -> Callable[..., list[Tensor]]:
        return lambda *inputs: [1.001 * output for output in trace(*inputs)]

    monkeypatch.setattr("ntkrun.steps.graph.compile_trace", compiler)
    like = torch.ones(3)
    with pytest.raises(CompileError, match="differs from its operations"):
        Graph(lambda x: [x.exp()], lambda k: [torch.full((3,), float(k))], nn.Identity(), like, {})


def test_loops_over_large_arrays_are_not_joined_for_a_number_per_point() -> None:
    def scale(x: Tensor, c: Tensor) -> Tensor:
        return x * c

    def shared(points: int) -> int:
        x, c = torch.ones(points, 256), torch.ones(points, 1)
        return _bytes_worth_sharing(make_fx(scale)(x, c))

    few, many = 1_000, 10_000
    assert shared(few) == config.score_fusion_memory_threshold < 4 * few
    assert 4 * many < shared(many) < 4 * 256 * many


def test_what_a_compilation_leaves_is_no_garbage_until_its_run_ends() -> None:
    before = gc.get_freeze_count()
    made = Compiler(nullcontext, lambda _: None).make(lambda: [[k] for k in range(1000)])
    assert gc.get_freeze_count() > before + 1000
    assert made is not None
    forget_graphs()
    assert gc.get_freeze_count() == 0
