"""Averages of successive estimates against a filter written out, and what they gain."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ntkrun.network import MLP
from ntkrun.objective import Objective
from ntkrun.pde import Poisson
from ntkrun.weights import Sketched
from ntkrun.weights.average import JUMP, MEMORY, START, averaged, no_average
from tests.oracle import draw_batch

NOISE = 0.1


def run(traces: Tensor, errors: Tensor) -> Tensor:
    """Estimates, ``[K, n]``, averaged one after the other."""
    state, results = no_average(traces[0]), []
    for trace, error in zip(traces, errors, strict=True):
        result, state = averaged(trace, error, state)
        results.append(result)
    return torch.stack(results)


def written_out(estimates: list[float], errors: list[float]) -> list[float]:
    """The same for one term."""
    mean, variance, change = math.log(estimates[0]), (errors[0] / estimates[0]) ** 2, START
    results = [estimates[0]]
    for estimate, error in zip(estimates[1:], errors[1:], strict=True):
        noise = (error / estimate) ** 2
        square = (math.log(estimate) - mean) ** 2
        change = MEMORY * change + (1 - MEMORY) * (square - noise - variance)
        prior = variance + max(change, square - JUMP * (noise + variance), 0)
        mean += prior / (prior + noise) * (math.log(estimate) - mean)
        variance = prior * noise / (prior + noise)
        results.append(math.exp(mean))
    return results


def estimates(truth: np.ndarray[Any, Any], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noisy estimates of traces, and their standard errors."""
    noise = np.random.default_rng(seed).normal(0, NOISE, truth.shape)
    traces = torch.from_numpy(truth * np.exp(noise))
    return traces, NOISE * traces


def test_a_filter_written_out() -> None:
    truth = np.exp(np.stack([np.linspace(0, 3, 40), np.r_[np.zeros(20), 4 * np.ones(20)], np.zeros(40)], axis=1))
    traces, errors = estimates(truth)
    ours = run(traces, errors)
    for term in range(3):
        assert ours[:, term].tolist() == pytest.approx(written_out(traces[:, term].tolist(), errors[:, term].tolist()))


def test_at_rest_errors_are_less_and_a_jump_is_followed_at_once() -> None:
    """300 updates of 20 terms: the error at rest is known to 2 %."""
    rest = np.ones((300, 20))
    traces, errors = estimates(rest)
    assert float(run(traces, errors).log().square().mean().sqrt()) < 0.65 * NOISE
    rest[150:] *= 100
    traces, errors = estimates(rest, seed=1)
    off = (run(traces, errors) / torch.from_numpy(rest)).log().abs()
    assert float(off[150].max()) < 4 * NOISE


def test_what_cannot_be_used_is_passed_on() -> None:
    traces = torch.tensor([[2.0, 2.0, 2.0], [0.0, math.nan, 3.0], [2.0, 2.0, 2.0]], dtype=torch.float64)
    errors = torch.tensor([[0.1, 0.1, 0.1], [0.1, 0.1, math.nan], [0.1, 0.1, 0.1]], dtype=torch.float64)
    ours = run(traces, errors)
    assert torch.equal(ours[1].nan_to_num(7), traces[1].nan_to_num(7))
    assert ours[2].tolist() == pytest.approx([2.0, 2.0, 2.0])
    exact = run(torch.tensor([[2.0], [5.0]]), torch.zeros(2, 1))  # without noise there is nothing to average
    assert exact[:, 0].tolist() == pytest.approx([2.0, 5.0])


@pytest.mark.parametrize("distribution", ["systematic", "gaussian"], ids=["in-pass", "own-pass"])
def test_weights_are_made_from_averages(distribution: Any) -> None:
    pde = Poisson()
    objective = Objective(pde, MLP(6, 1, domain=pde.domain).double())
    _, batch = draw_batch(objective, [40, 2])
    weighting = Sketched(update_every=1, sketch_size=4, distribution=distribution, average="kalman")
    weighting.start(objective, seed=0)
    traces, errors, weights = [], [], []
    for step in range(6):
        _, update = weighting.evaluate(step, objective, batch)
        assert update is not None
        traces.append(update.columns["trace"])
        errors.append(update.columns["standard_error"])
        weights.append(update.weights)
    rows = torch.tensor(objective.row_counts(batch), dtype=torch.float64)
    t = run(torch.stack(traces), torch.stack(errors)) / rows
    assert torch.allclose(torch.stack(weights), t.sum(1, keepdim=True) / t, rtol=1e-10)
    again = Sketched(update_every=1, sketch_size=4, distribution=distribution, average="kalman")
    again.start(objective, seed=1)
    again.load_state_dict(weighting.state_dict())
    results = [each.evaluate(6, objective, batch)[1] for each in (weighting, again)]
    assert results[0] is not None
    assert results[1] is not None
    assert torch.equal(results[0].weights, results[1].weights)


def test_estimates_that_share_errors_are_refused() -> None:
    pde = Poisson()
    objective = Objective(pde, MLP(6, 1, domain=pde.domain).double())
    with pytest.raises(ValueError, match="average=kalman needs corrector=fresh"):
        Sketched(average="kalman", corrector="recursive").start(objective, seed=0)
