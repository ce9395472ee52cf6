"""Compiled graphs against their operations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn

from ntkrun.graph import CompileError, Graph


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
    graph = Graph(step, trial, nn.Identity(), inputs[0], ())  # compares once by itself
    torch.testing.assert_close(graph(inputs), step(*inputs), rtol=1e-12, atol=0)
    torch.compiler.reset()


def test_an_output_that_is_off_by_a_thousandth_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """In single precision too."""

    def compiler(trace: fx.GraphModule, *unused: object) -> Callable[..., list[Tensor]]:
        return lambda *inputs: [1.001 * output for output in trace(*inputs)]

    monkeypatch.setattr("ntkrun.graph.compile_trace", compiler)
    like = torch.ones(3)
    with pytest.raises(CompileError, match="differs from its operations"):
        Graph(lambda x: [x.exp()], lambda k: [torch.full((3,), float(k))], nn.Identity(), like, ())
