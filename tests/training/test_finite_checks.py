"""Numbers that are not finite or make no sense, put into a run: named in the log, passed over or the end of it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from ntkrun.ntk.spectrum import condition_number, eigenvalues
from ntkrun.objective import Evaluation, Objective
from ntkrun.storage.checkpoint import load_checkpoint
from ntkrun.weights import Exact, NTKWeighting
from tests.cli.test_resume import resume, start, summary

INF, NAN = math.inf, math.nan
ROWS = torch.tensor([10.0, 2.0, 4.0], dtype=torch.float64)


def absorbed(traces: list[float], before: list[float], **options: Any) -> list[float]:
    weighting = Exact(update_every=1, **options)
    weighting.weights, weighting.updates, weighting.constants = torch.tensor(before, dtype=torch.float64), 0, {}
    weighting.known = torch.zeros(len(before), dtype=torch.bool)
    weighting.absorb(torch.tensor(traces, dtype=torch.float64), ROWS)
    values: list[float] = weighting.weights.tolist()
    return values


@pytest.mark.parametrize("bad", [NAN, INF, -INF, 0.0, -3.0], ids=str)
@pytest.mark.parametrize("total", ["sum", "average"])
def test_a_trace_that_cannot_be_used_leaves_its_weight_and_has_no_part_in_the_others(bad: float, total: str) -> None:
    before = absorbed([60.0, 4.0, 1.0], [1.0] * 3, total=total)  # t = 6, 2, 1/4
    after = absorbed([120.0, bad, 4.0], before, total=total)  # t = 12, ?, 1
    assert after[1] == before[1]
    whole = 13 if total == "sum" else 13 / 2
    assert after[::2] == pytest.approx([whole / 12, whole / 1], rel=1e-14)


@pytest.mark.parametrize("bad", [NAN, INF, 0.0, -3.0], ids=str)
def test_without_any_usable_trace_no_weight_changes(bad: float) -> None:
    assert absorbed([bad] * 3, [3.0, 2.0, 7.0]) == [3.0, 2.0, 7.0]


# In a run


def log(directory: Path) -> str:
    return (directory / "ntkrun.log").read_text()


def spoil_traces(patch: pytest.MonkeyPatch, since: int, spoil: Callable[[Tensor], Tensor]) -> None:
    """From the given update on, the traces are others."""
    rule = NTKWeighting.rule

    def spoilt(self: NTKWeighting, traces: Tensor, state: Any) -> Any:
        if self.updates >= since:
            traces.copy_(spoil(traces))  # the trace that is logged as well
        return rule(self, traces, state)

    patch.setattr(NTKWeighting, "rule", spoilt)


@pytest.mark.parametrize("bad", [NAN, INF, 0.0, -2.0], ids=str)
@pytest.mark.parametrize("weights", ["exact", "sketched"])
def test_a_bad_trace_is_named_and_its_weight_kept(
    weights: str, bad: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_traces(monkeypatch, 2, lambda traces: traces * torch.tensor([1.0, 0.0]) + torch.tensor([0.0, bad]))
    run = tmp_path / "run"
    assert start(run, f"weights={weights}", "weights.update_every=2").status == 0
    lines = [line for line in log(run).splitlines() if "cannot be used" in line]
    named = [f"step {step}: the trace {bad:g} of term boundary cannot be used" for step in (4, 22)]
    assert len(lines) == 2  # the first and the tenth time of thirteen
    assert named[0] in lines[0]
    assert named[1] in lines[1]
    assert lines[1].endswith("(the 10th time)")
    table = pd.read_csv(run / "weights.csv")
    assert table["weight/boundary"][1:].nunique() == 1
    assert table["weight/boundary"][0] != table["weight/boundary"][1]
    assert np.isfinite(pd.read_csv(run / "metrics.csv").to_numpy(float)).all()


def assert_stopped(run: Path, what: str) -> None:
    assert summary(run)["status"] == "failed"
    assert re.fullmatch(what, summary(run)["message"])
    assert summary(run)["message"] in log(run)
    checkpoint = load_checkpoint(run)
    assert checkpoint.state["progress"]["step"] == 12
    assert all(torch.isfinite(value).all() for value in checkpoint.state["network"].values())


def test_an_exploding_weight_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traces so near the largest number that their sum is none."""
    with monkeypatch.context() as patch:
        spoil_traces(patch, 5, lambda traces: torch.full_like(traces, 3e38))
        run = tmp_path / "run"
        assert start(run, "weights.update_every=3", "weights.normalization=trace").status == 1
    assert_stopped(run, "step 15: the weight of term residual is not finite")
    assert resume(run).status == 0


def spoil_evaluation(patch: pytest.MonkeyPatch, at: int, spoil: Callable[[Evaluation], Evaluation]) -> None:
    gradient, step = Objective.gradient, iter(range(1000))

    def spoilt(self: Objective, *arguments: Any) -> Evaluation:
        evaluation = gradient(self, *arguments)
        return spoil(evaluation) if next(step) == at else evaluation

    patch.setattr(Objective, "gradient", spoilt)


def bad_loss(evaluation: Evaluation) -> Evaluation:
    losses = evaluation.losses.clone()
    losses[1] = NAN
    return replace(evaluation, losses=losses)


def bad_gradient(evaluation: Evaluation) -> Evaluation:
    name = list(evaluation.gradient)[2]
    return replace(evaluation, gradient={**evaluation.gradient, name: torch.full_like(evaluation.gradient[name], INF)})


@pytest.mark.parametrize(
    ("step", "spoil", "what"),
    [
        (14, bad_loss, "step 14: the loss of term boundary is not finite"),
        (15, bad_gradient, r"step 15: the gradient of parameter layers\.1\.weight is not finite"),
        (13, bad_gradient, "step 14: the loss of term residual, boundary is not finite"),
    ],
    ids=["loss", "gradient-at-a-row", "gradient-between-rows"],
)
def test_a_loss_or_gradient_that_is_not_finite_stops_the_run(
    step: int, spoil: Callable[[Evaluation], Evaluation], what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between rows only the losses are looked at; resuming with log_every=1 looks at every gradient."""
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        spoil_evaluation(patch, step, spoil)
        assert start(run, "weights=uncertainty").status == 1
    assert_stopped(run, what)
    if spoil is bad_gradient:
        with monkeypatch.context() as patch:
            spoil_evaluation(patch, step - 12, spoil)
            assert resume(run, "log_every=1").status == 1
        assert_stopped(run, rf"step {step}: the gradient of parameter layers\.1\.weight is not finite")
    assert resume(run).status == 0


# Singular kernels


def test_a_singular_kernel_is_named_and_does_no_harm(tmp_path: Path) -> None:
    """More rows than parameters cannot be independent."""
    run = tmp_path / "run"
    result = start(run, "network.width=1", "network.depth=1", "diagnostics=spectrum", "diagnostics.steps=[10]")
    assert result.status == 0
    line = "step 0: the kernel of term residual is singular to rounding; its condition number is infinite"
    assert log(run).count("the kernel of term residual is singular") == 1
    assert line in log(run)
    with np.load(run / "spectrum.npz") as file:
        assert np.isinf(file["condition_number/residual"]).all()
        assert np.isfinite(file["eigenvalues/residual"]).all()


def test_a_kernel_without_eigenvalues(monkeypatch: pytest.MonkeyPatch) -> None:
    def eigvalsh(matrix: Tensor) -> Tensor:
        raise torch.linalg.LinAlgError("failed to converge")

    monkeypatch.setattr(torch.linalg, "eigvalsh", eigvalsh)
    spectrum = eigenvalues(torch.eye(3, dtype=torch.float64))
    assert spectrum.isnan().all()
    assert condition_number(spectrum).isnan()


@pytest.mark.parametrize("estimator", ["hutchpp", "xtrace"])
def test_sketches_of_singular_kernels(estimator: str, tmp_path: Path) -> None:
    """Kernels of rank 3 or less under bases of four and more columns."""
    run = tmp_path / "run"
    sketch = ["weights.distribution=gaussian", "weights.sketch_size=12", f"weights.estimator={estimator}"]
    result = start(run, "network.width=1", "network.depth=1", "weights=sketched", *sketch, "weights.compare_exact=true")
    assert result.status == 0, result.stderr
    table = pd.read_csv(run / "weights.csv")
    np.testing.assert_allclose(table["trace/residual"], table["exact_trace/residual"], rtol=1e-3)
