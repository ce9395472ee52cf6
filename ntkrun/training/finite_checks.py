"""Non-finite checks: fatal and recoverable."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ntkrun.weights import WeightUpdate

log = logging.getLogger(__name__)


class DivergenceError(RuntimeError):
    """A number that must be finite is not, or a step is not what it should be."""


def all_finite(tensor: Tensor) -> bool:
    """Whether a tensor holds neither infinities nor NaN, by one operation: the maximum norm passes both on."""
    return math.isfinite(torch.linalg.vector_norm(tensor, math.inf).item())


def check_evaluation(step: int, names: Sequence[str], weights: Sequence[float], gradient: Mapping[str, Tensor]) -> None:
    """Look at the weights and the gradient of a step; the losses of the next one would show it, but not where.

    Args:
        step: for the message.
        names: of the terms.
        weights: of the terms in the gradient.
        gradient: of the weighted loss, by parameter name; empty where a compiled step has used it up.

    Raises:
        DivergenceError: something is not finite.
    """
    if bad := [name for name, weight in zip(names, weights, strict=True) if not math.isfinite(weight)]:
        raise DivergenceError(f"step {step}: the weight of term {', '.join(bad)} is not finite")
    for name, part in gradient.items():
        if not all_finite(part):
            raise DivergenceError(f"step {step}: the gradient of parameter {name} is not finite")


class UpdateCheck:
    """Looks at weight updates when they are written, so that no step waits for the device.

    Args:
        names: of the terms.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._times: Counter[tuple[str, str]] = Counter()

    def look(self, step: int, update: WeightUpdate, columns: Mapping[str, Sequence[float]]) -> None:
        """Say in the log what was passed over in an update.

        Args:
            step: at which it was made.
            update: the update.
            columns: values by term for ``weight`` and what it was made from.

        Raises:
            DivergenceError: a weight is not finite.
        """
        for name, weight in zip(self._names, columns["weight"], strict=True):
            if not math.isfinite(weight):
                raise DivergenceError(f"step {step}: the weight of term {name} is not finite")
        for name, trace in zip(self._names, columns.get("trace", ()), strict="trace" in columns):
            if not (math.isfinite(trace) and trace > 0):
                self._say(step, name, "cannot be used; its weight stays as it is", f"the trace {trace:g} of term")
        self._flags(step, update.restarted, "is not positive; fresh", "the recursive trace of term")
        self._flags(step, update.idle, "has no gradient that could be used; its weight stays as it is", "term")
        self._flags(step, update.capped, "is below the floor of the weighting; its weight is capped", "term")

    def _flags(self, step: int, flags: Tensor | None, what: str, subject: str) -> None:
        for name, flag in zip(self._names, () if flags is None else flags.tolist(), strict=flags is not None):
            if flag:
                self._say(step, name, what, subject)

    def _say(self, step: int, name: str, what: str, subject: str) -> None:
        """The first time and then ever more rarely: the 10th, the 100th, ..."""
        self._times[name, what] += 1
        times = self._times[name, what]
        if times == 10 ** (len(str(times)) - 1):
            again = "" if times == 1 else f" (the {times}th time)"
            log.warning("step %d: %s %s %s%s", step, subject, name, what, again)
