"""Directional derivatives of residuals by finite differences, and the step to take."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Difference = Literal["forward", "central"]

Shifted = Callable[[Tensor], tuple[Tensor, ...]]
"""Residuals of some terms at theta + shift, for a shift ``[P]``."""


def difference_quotient(
    residuals: Shifted, direction: Tensor, delta: float, difference: Difference
) -> tuple[Tensor, ...]:
    """Approximate J v for every term.

    Args:
        residuals: residuals at theta + shift.
        direction: v, ``[P]``.
        delta: step as a multiple of v.
        difference: ``forward``, error O(delta), or ``central``, error O(delta^2).
    """
    ahead = residuals(delta * direction)
    if difference == "central":
        behind = residuals(-delta * direction)
        return tuple((a - b) / (2 * delta) for a, b in zip(ahead, behind, strict=True))
    here = residuals(torch.zeros_like(direction))
    return tuple((a - h) / delta for a, h in zip(ahead, here, strict=True))


def balanced_step(residuals: Shifted, direction: Tensor, size: float, difference: Difference) -> float:
    """The step at which truncation and round-off of a difference quotient balance.

    Round-off is measured by second differences so small that only noise is left; truncation by second
    (forward) or third (central) differences at a coarse step. The step returned minimises the summed
    squared relative error of all terms. It costs 5 (forward) or 7 (central) residual evaluations.

    Args:
        residuals: residuals at theta + shift.
        direction: the probe direction, ``[P]``; along zero every step serves.
        size: norm of the parameters, which sets the scale of the trial steps.
        difference: ``forward`` or ``central``.
    """
    if not direction.any():
        return 1.0
    epsilon = torch.finfo(direction.dtype).eps
    unit: float = max(size, 1.0) / max(direction.norm().item(), torch.finfo(direction.dtype).tiny)

    def at(multiple: float) -> tuple[Tensor, ...]:
        return residuals(multiple * direction)

    here = at(0.0)
    tiny = 4 * epsilon * unit
    noise = [
        max(_rms(a - 2 * h + b) / math.sqrt(6), epsilon * _rms(h) / 2)
        for a, h, b in zip(at(tiny), here, at(-tiny), strict=True)
    ]
    coarse = unit * (epsilon**0.25 if difference == "forward" else epsilon**0.2)
    ahead, behind = at(coarse), at(-coarse)
    slopes = [_rms(a - b) / (2 * coarse) for a, b in zip(ahead, behind, strict=True)]
    if difference == "forward":
        order, noises = 1, 2.0
        truncation = [_rms(a - 2 * h + b) / coarse**2 / 2 for a, h, b in zip(ahead, here, behind, strict=True)]
    else:
        order, noises = 2, 0.5
        truncation = [
            _rms(f - 2 * a + 2 * b - k) / (2 * coarse**3) / 6
            for f, a, b, k in zip(at(2 * coarse), ahead, behind, at(-2 * coarse), strict=True)
        ]

    def squared_error(delta: float) -> float:
        total: float = sum(
            ((t * math.pow(delta, order)) ** 2 + noises * (e / delta) ** 2) / s**2
            for t, e, s in zip(truncation, noise, slopes, strict=True)
            if s > 0
        )
        return total

    trials = [unit * math.pow(10, x / 8) for x in range(round(8 * math.log10(epsilon)), 1)]
    return min(trials, key=squared_error)


def _rms(x: Tensor) -> float:
    return x.square().mean().sqrt().item()
