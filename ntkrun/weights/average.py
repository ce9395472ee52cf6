"""The average of successive trace estimates, each weighted by its variance (a Kalman filter)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

MEMORY = 0.7
"""The part of what is known of the variance of changes that is kept from one update to the next."""
JUMP = 9.0
"""Squared surprise, in units of the variance expected, beyond which a change is taken for real at once."""
START = 0.1
"""Variance of the changes of log t_i per update before any has been seen."""
STATE = ("mean", "variance", "drift", "begun")


def no_average(like: Tensor) -> dict[str, Tensor]:
    """The state before any estimate, ``[n]`` each: nothing is known."""
    zero = torch.zeros_like(like)
    return {"mean": zero, "variance": zero, "drift": torch.full_like(like, START), "begun": zero.bool()}


def averaged(traces: Tensor, errors: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Estimates that take account of those before, by tensor operations alone.

    log t_i is taken for a random walk, seen with the variance r = (standard error / estimate)^2. From one update to the
    next its variance P grows by q, the mean of nu^2 - r - P over the last updates as far as that is positive, where nu
    is what the new estimate differs by from the mean; then the new estimate has the share P / (P + r). Source: R. E.
    Kalman, J. Basic Eng. 82 (1960); the variance of the walk from the differences, R. K. Mehra, IEEE Trans. Autom.
    Control 15 (1970).

    Args:
        traces: estimates, ``[n]``.
        errors: their standard errors, ``[n]``.
        state: as ``no_average`` or the call before gave it.

    Returns:
        The estimates, ``[n]``, and the new state. An estimate that is not positive, or of unknown error, is passed on
        as it is and leaves no trace.
    """
    seen = (traces > 0) & torch.isfinite(traces) & torch.isfinite(errors)
    new = torch.where(seen, traces, 1).log()
    noise = torch.where(seen, errors / traces, 0).square()
    first, mean, variance = ~state["begun"], state["mean"], state["variance"]
    surprise, expected = (new - mean).square(), noise + variance
    drift = MEMORY * state["drift"] + (1 - MEMORY) * (surprise - expected)
    prior = variance + torch.maximum(drift, surprise - JUMP * expected).clamp_min(0)
    share = torch.where(first | (noise == 0), 1, prior / (prior + noise))
    after = {
        "mean": mean + share * (new - mean),
        "variance": torch.where(first, noise, share * noise),
        "drift": torch.where(first, state["drift"], drift),
        "begun": seen,
    }
    kept = {name: torch.where(seen, value, state[name]) for name, value in after.items()}
    return torch.where(seen, after["mean"].exp(), traces), kept
