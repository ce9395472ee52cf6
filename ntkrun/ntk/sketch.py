"""Randomised estimates of the kernel traces tr(K_ii).

A sketch S has E[S S^T] = I. On the parameter side, with probes xi in R^P, the mean of |J_i xi|^2 is
an unbiased estimate of tr(K_ii); on the residual side, with probes omega in R^{N_i}, so is the mean of
omega^T K_ii omega. Products with J come from automatic differentiation, or from a predictor step of
length delta along the probe followed by a difference of residuals, which costs forward passes only and
adds a bias of order delta (forward) or delta^2 (central).

The algorithm is derived from the abstract of Hirsch and Pichi, arXiv 2511.15530.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ntkrun.checked import Positive
from ntkrun.objective import Batch, Objective

Side = Literal["parameter", "residual"]
Derivative = Literal["autodiff", "finite_difference"]
Distribution = Literal["gaussian", "rademacher", "coordinate"]
Difference = Literal["forward", "central"]


@dataclass(frozen=True)
class TraceEstimate:
    """Estimated traces.

    Attributes:
        traces: estimates of tr(K_ii), ``[n]``.
        standard_errors: their estimated standard deviations, ``[n]``; NaN from a single probe.
        deltas: the difference steps used for each term, ``[n]``, or ``None`` under autodiff.
    """

    traces: Tensor
    standard_errors: Tensor
    deltas: Tensor | None = None


@dataclass(frozen=True)
class Sketch:
    """One member of the estimator family.

    Args:
        size: number of probes s; with ``coordinate``, the number of points m drawn from each term
            without replacement (all of them where a term has fewer).
        side: ``parameter`` probes parameters, all terms at once; ``residual`` probes residual rows.
        derivative: ``autodiff``, or ``finite_difference`` (predictor and corrector).
        distribution: of the probes; ``coordinate`` exists on the residual side only.
        difference: ``forward`` or ``central``.
        delta: step of the difference as a multiple of the probe (of J^T omega on the residual side),
            or ``"auto"``, which measures truncation and round-off at every estimate and balances them.

    Raises:
        ValueError: the options contradict each other.
    """

    size: Positive[int]
    side: Side
    derivative: Derivative
    distribution: Distribution
    difference: Difference
    delta: Positive[float] | Literal["auto"]

    def __post_init__(self) -> None:
        if self.side == "parameter" and self.distribution == "coordinate":
            raise ValueError("distribution=coordinate needs side=residual; side=parameter takes gaussian or rademacher")
        if self.derivative == "autodiff" and self.delta != "auto":
            raise ValueError(f"delta={self.delta} is read by derivative=finite_difference only, not by autodiff")

    def estimate(self, objective: Objective, batch: Batch, generator: torch.Generator) -> TraceEstimate:
        """Estimate every trace.

        Args:
            objective: supplies residuals and Jacobian products.
            batch: the kernel's points.
            generator: source of the probes, on the CPU.
        """
        if self.distribution == "coordinate":
            return self._coordinate(objective, batch, generator)
        if self.side == "parameter":
            return self._parameter_side(objective, batch, generator)
        return self._residual_side(objective, batch, generator)

    def _parameter_side(self, objective: Objective, batch: Batch, generator: torch.Generator) -> TraceEstimate:
        probes = self._probes(objective.layout.size, batch, generator)
        if self.derivative == "autodiff":
            products = [j.matvec(probes) for j in objective.jacobians(batch)]
            return _average(torch.stack([y.square().sum(1) for y in products]))

        def residuals(shift: Tensor) -> tuple[Tensor, ...]:
            return objective.residuals(batch, objective.shifted(shift))

        delta = self._delta(residuals, probes[0], objective)
        samples = []
        for probe in probes:
            differences = self._difference(residuals, probe, delta)
            samples.append(torch.stack([y.square().sum() for y in differences]))
        traces = torch.stack(samples, dim=1)
        return _average(traces, torch.full_like(traces[:, 0], delta))

    def _residual_side(self, objective: Objective, batch: Batch, generator: torch.Generator) -> TraceEstimate:
        samples, deltas = [], []
        functions = objective.term_functions(batch)
        for jacobian, function in zip(objective.jacobians(batch), functions, strict=True):
            probes = self._probes(jacobian.rows, batch, generator)
            directions = jacobian.rmatvec(probes)
            if self.derivative == "autodiff":
                samples.append(directions.square().sum(1))
                continue
            residuals = _shifted_term(function, objective)
            delta = self._delta(residuals, directions[0], objective)
            products = [self._difference(residuals, v, delta)[0] for v in directions]
            samples.append((torch.stack(products) * probes).sum(1))
            deltas.append(delta)
        traces = torch.stack(samples)
        return _average(traces, traces.new_tensor(deltas) if deltas else None)

    def _coordinate(self, objective: Objective, batch: Batch, generator: torch.Generator) -> TraceEstimate:
        counts = objective.point_counts(batch)
        chosen = [torch.randperm(n, generator=generator)[: self.size] for n in counts]
        subset = objective.subset(batch, chosen)
        deltas = None
        if self.derivative == "autodiff":
            diagonals = objective.diagonals(subset)
        else:
            pairs = [self._difference_diagonal(objective, subset, i) for i in range(len(counts))]
            diagonals = tuple(diagonal for diagonal, _ in pairs)
            deltas = diagonals[0].new_tensor([delta for _, delta in pairs])
        traces, errors = [], []
        for n, diagonal in zip(counts, diagonals, strict=True):
            m = len(diagonal)
            traces.append(n * diagonal.mean())
            # Sampling without replacement: the finite population factor 1 - m/n.
            variance = diagonal.var() if m > 1 else diagonal.new_tensor(math.nan if n > 1 else 0.0)
            errors.append(n * (variance * (1 - m / n) / m).sqrt())
        return TraceEstimate(torch.stack(traces), torch.stack(errors), deltas)

    def _difference_diagonal(self, objective: Objective, subset: Batch, i: int) -> tuple[Tensor, float]:
        """K_kk of the chosen points of term i by predictor and corrector, and the step."""
        jacobian = objective.jacobians(subset)[i]
        residuals = _shifted_term(objective.term_functions(subset)[i], objective)
        identity = torch.eye(jacobian.rows, dtype=objective.like.dtype, device=objective.like.device)
        directions = jacobian.rmatvec(identity)
        delta = self._delta(residuals, directions[0], objective)
        diagonal = [self._difference(residuals, v, delta)[0][k] for k, v in enumerate(directions)]
        points = objective.point_counts(subset)[i]
        return torch.stack(diagonal).view(-1, points).sum(0), delta

    def _probes(self, length: int, batch: Batch, generator: torch.Generator) -> Tensor:
        like = batch[0].x
        if self.distribution == "gaussian":
            probes = torch.randn(self.size, length, generator=generator, dtype=like.dtype)
        else:
            probes = torch.randint(0, 2, (self.size, length), generator=generator).to(like.dtype) * 2 - 1
        return probes.to(like.device)

    def _difference(self, residuals: Shifted, direction: Tensor, delta: float) -> tuple[Tensor, ...]:
        """Difference quotient of the residuals along a direction."""
        ahead = residuals(delta * direction)
        if self.difference == "central":
            behind = residuals(-delta * direction)
            return tuple((a - b) / (2 * delta) for a, b in zip(ahead, behind, strict=True))
        here = residuals(torch.zeros_like(direction))
        return tuple((a - h) / delta for a, h in zip(ahead, here, strict=True))

    def _delta(self, residuals: Shifted, direction: Tensor, objective: Objective) -> float:
        if self.delta != "auto":
            return self.delta
        return balanced_step(residuals, direction, objective.parameter_vector().norm().item(), self.difference)


Shifted = Callable[[Tensor], tuple[Tensor, ...]]
"""Residuals of some terms at theta + shift, for a shift ``[P]``."""


def balanced_step(residuals: Shifted, direction: Tensor, size: float, difference: Difference) -> float:
    """The step at which truncation and round-off of a difference quotient balance.

    Round-off is measured by second differences so small that only noise is left; truncation by second
    (forward) or third (central) differences at a coarse step. The step returned minimises the summed
    squared relative error of all terms.

    Args:
        residuals: residuals at theta + shift.
        direction: the probe direction, ``[P]``.
        size: norm of the parameters, which sets the scale of the trial steps.
        difference: ``forward`` or ``central``.
    """
    epsilon = torch.finfo(direction.dtype).eps
    unit: float = max(size, 1.0) / max(direction.norm().item(), torch.finfo(direction.dtype).tiny)

    def at(multiple: float) -> tuple[Tensor, ...]:
        return residuals(multiple * direction)

    here = at(0.0)
    tiny = 4 * epsilon * unit
    noise = [
        max((a - 2 * h + b).square().mean().sqrt().item() / math.sqrt(6), epsilon * h.square().mean().sqrt().item() / 2)
        for a, h, b in zip(at(tiny), here, at(-tiny), strict=True)
    ]
    coarse = unit * (epsilon**0.25 if difference == "forward" else epsilon**0.2)
    ahead, behind = at(coarse), at(-coarse)
    slopes = [(a - b).norm().item() / (2 * coarse) / math.sqrt(len(a)) for a, b in zip(ahead, behind, strict=True)]
    if difference == "forward":
        order, factor = 1, 2.0
        curvature = [
            (a - 2 * h + b).square().mean().sqrt().item() / coarse**2 / 2
            for a, h, b in zip(ahead, here, behind, strict=True)
        ]
    else:
        order, factor = 2, 0.5
        far, back = at(2 * coarse), at(-2 * coarse)
        curvature = [
            (f - 2 * a + 2 * b - k).square().mean().sqrt().item() / (2 * coarse**3) / 6
            for f, a, b, k in zip(far, ahead, behind, back, strict=True)
        ]
    trials = [unit * math.pow(10, x / 8) for x in range(round(8 * math.log10(epsilon)), 1)]

    def error(delta: float) -> float:
        total: float = sum(
            ((c * math.pow(delta, order)) ** 2 + factor * (e / delta) ** 2) / s**2
            for c, e, s in zip(curvature, noise, slopes, strict=True)
            if s > 0
        )
        return total

    return min(trials, key=error)


def _shifted_term(function: Callable[[Mapping[str, Tensor]], Tensor], objective: Objective) -> Shifted:
    return lambda shift: (function(objective.shifted(shift)),)


def _average(samples: Tensor, deltas: Tensor | None = None) -> TraceEstimate:
    """Means and standard errors of per-probe samples, ``[n, s]``."""
    s = samples.shape[1]
    errors = samples.std(1) / math.sqrt(s) if s > 1 else torch.full_like(samples[:, 0], math.nan)
    return TraceEstimate(samples.mean(1), errors, deltas)
