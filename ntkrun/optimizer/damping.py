"""Damping of Gauss-Newton steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Trial:
    """What a damped step gives.

    Attributes:
        damping: mu, relative to |J|_F^2.
        ratio: the fall of the loss over that of its linear model (gain ratio).
        loss: |R|^2 after the step.
        position: the parameters after the step, ``[P]``.
        length: of the step.
    """

    damping: float
    ratio: float
    loss: float
    position: Tensor
    length: float


@dataclass(frozen=True)
class Search:
    """What came of the search for a damping.

    Attributes:
        best: the trial that is taken, if any is.
        damping: to start from at the next step.
        trials: how many were made.
    """

    best: Trial | None
    damping: float
    trials: int


@dataclass(frozen=True)
class DampingPolicy:
    """Takes the least damping, and so the longest step, whose gain ratio is still above a target.

    Source: arXiv 2607.02194, where the longest such step beats the one of the least loss.

    Args:
        target: the gain ratio.
        factor: by which damping changes from trial to trial.
        lowerings: how often it may be lowered within a step.
        most: the largest damping tried.
    """

    target: float
    factor: float = 4.0
    lowerings: int = 3
    most: float = 1e9

    def search(self, damping: float, attempt: Callable[[float], Trial | None]) -> Search:
        """Search from the damping of the step before.

        Args:
            damping: of the step before.
            attempt: makes a trial; ``None`` where a step of so little damping cannot be made or is turned down.
        """
        trials = 1
        best = self._good(attempt(damping))
        if best is None:
            while best is None and damping < self.most:
                damping *= self.factor
                best = self._good(attempt(damping))
                trials += 1
            return Search(best, damping, trials)
        for _ in range(self.lowerings):
            lower = self._good(attempt(damping / self.factor))
            trials += 1
            if lower is None:
                break
            best, damping = lower, damping / self.factor
        return Search(best, damping, trials)

    def _good(self, trial: Trial | None) -> Trial | None:
        return trial if trial is not None and trial.ratio >= self.target else None
