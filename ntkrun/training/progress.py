"""How far a run has come, and what ends it early."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ntkrun.common.state_schema import Added, NoneOr, Real, Whole, schema_of

PHASES = ("compilation", "training", "weight_updates", "diagnostics", "evaluation", "logging", "saving")


@dataclass(frozen=True)
class Targets:
    """What ends a run before its last step, looked at in every row of metrics.csv.

    Attributes:
        error: relative L2 error to reach.
        loss: weighted loss to reach.
    """

    error: float | None = None
    loss: float | None = None

    def __bool__(self) -> bool:
        return self.error is not None or self.loss is not None

    def reached(self, error: float | None, loss: float) -> str | None:
        """Which target is reached, in words."""
        if self.error is not None and error is not None and error <= self.error:
            return f"relative L2 error {error:.3e}, target {self.error:g}"
        if self.loss is not None and loss <= self.loss:
            return f"loss {loss:.3e}, target {self.loss:g}"
        return None


@dataclass
class Progress:
    """How far a run has come; part of its checkpoint.

    Attributes:
        step: optimiser steps done in this time window.
        window: the time window, from 0.
        first_step: optimiser steps done in the windows before.
        seconds: by phase.
        updates: weight updates done.
        error: the latest relative L2 error, at ``error_step``.
        best_error: the smallest so far, at ``best_step``.
    """

    step: int = 0
    window: int = 0
    first_step: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    updates: int = 0
    error: float | None = None
    error_step: int | None = None
    best_error: float | None = None
    best_step: int | None = None

    @classmethod
    def state_schema(cls) -> Any:
        """What saved attributes must look like; those that earlier versions lack have their defaults."""
        schema: dict[str, Any] = {name: Whole() for name in ("step", "window", "first_step", "updates")}
        schema |= {name: NoneOr(Whole()) for name in ("error_step", "best_step")}
        schema |= {name: NoneOr(Real()) for name in ("error", "best_error")}
        schema["seconds"] = {phase: Added(Real(least=0), 0.0) for phase in PHASES}
        return {name: Added(schema.get(name, schema_of(value)), value) for name, value in vars(cls()).items()}

    @property
    def elapsed(self) -> float:
        """Seconds in all phases."""
        return sum(self.seconds.values())

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time spent inside towards a phase."""
        start = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - start

    @property
    def total_steps(self) -> int:
        """Optimiser steps done in all time windows."""
        return self.first_step + self.step

    def saw_error(self, error: float) -> bool:
        """Take note of an evaluation at the present step; returns whether it is the best so far."""
        self.error, self.error_step = error, self.total_steps
        best = self.best_error is None or error < self.best_error
        if best:
            self.best_error, self.best_step = error, self.total_steps
        return best
