"""Progress of a run and its stopping targets."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ntkrun.common.state_schema import Added, ListOf, NoneOr, Real, Whole, schema_of
from ntkrun.training.evaluation import Errors, worst

MOST = 10_000  # fields, and terms

ALWAYS = ("step", "window", "first_step", "seconds", "updates", "error", "error_step", "best_error", "best_step")
"""Attributes that states of all versions have."""

PHASES = ("compilation", "training", "weight_updates", "diagnostics", "evaluation", "logging", "saving")


@dataclass(frozen=True)
class Targets:
    """What ends a run before its last step, looked at in every row of metrics.csv.

    Attributes:
        error: relative L2 error to reach, by every field.
        loss: weighted loss to reach.
    """

    error: float | None = None
    loss: float | None = None

    def __bool__(self) -> bool:
        return self.error is not None or self.loss is not None

    def reached(self, errors: Errors | None, loss: float) -> str | None:
        """Which target is reached, in words."""
        if self.error is not None and errors is not None and errors.worst <= self.error:
            what = "largest relative L2 error of a field" if len(errors.fields) > 1 else "relative L2 error"
            return f"{what} {errors.worst:.3e}, target {self.error:g}"
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
        ends: of the windows so far, where the run chooses them.
        growing: the part of the time, or of a window, that training begins with, if it is not all.
        seconds: by phase.
        updates: weight updates done.
        error: the latest relative L2 error over all fields, at ``error_step``.
        errors: those of every field, ``None`` where one is not known.
        held_out: where no solution is known, the latest loss at held-out points, at ``error_step``, under ``compared``.
        best_error, best_errors, best_held_out: those of the best network so far, at ``best_step``.
        best_losses: its losses by term at held-out points.
        compared: the weights under which these are compared in all of the run: those at the second of them, before
            which there is nothing to compare and weights may not have been updated yet.
    """

    step: int = 0
    window: int = 0
    first_step: int = 0
    ends: list[float] = field(default_factory=list)
    growing: float | None = None
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    updates: int = 0
    error: float | None = None
    error_step: int | None = None
    errors: list[float | None] = field(default_factory=list)
    held_out: float | None = None
    best_error: float | None = None
    best_errors: list[float | None] = field(default_factory=list)
    best_step: int | None = None
    best_held_out: float | None = None
    best_losses: list[float] = field(default_factory=list)
    compared: list[float] = field(default_factory=list)

    @classmethod
    def state_schema(cls) -> Any:
        """What saved attributes must look like; those that earlier versions lack have their defaults."""
        schema: dict[str, Any] = {name: Whole() for name in ("step", "window", "first_step", "updates")}
        schema |= {name: NoneOr(Whole()) for name in ("error_step", "best_step")}
        schema |= {name: NoneOr(Real()) for name in ("error", "held_out", "best_error", "best_held_out", "growing")}
        schema |= {name: ListOf(NoneOr(Real()), MOST) for name in ("errors", "best_errors")}
        schema |= {name: ListOf(Real(), MOST) for name in ("best_losses", "compared", "ends")}
        schema["seconds"] = {phase: Added(Real(least=0), 0.0) for phase in PHASES}
        whole = {name: schema.get(name, schema_of(value)) for name, value in vars(cls()).items()}
        return {name: each if name in ALWAYS else Added(each, getattr(cls(), name)) for name, each in whole.items()}

    @property
    def first_window(self) -> bool:
        """Whether nothing was trained before this time window, and none was tried in its place."""
        return not (self.window or self.first_step)

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

    def saw_errors(self, errors: Errors) -> bool:
        """Take note of an evaluation at the present step; returns whether it is the best so far, by its worst field."""
        self.error, self.error_step, self.errors = errors.total, self.total_steps, list(errors.fields.values())
        # A checkpoint of version 0.1.0 knows the error over all fields alone.
        best = worst(self.best_errors or [self.best_error])
        if self.best_step is not None and not errors.worst < best:
            return False
        self.best_error, self.best_errors, self.best_step = self.error, self.errors, self.error_step
        return True

    def saw_losses(self, losses: Sequence[float], weights: Sequence[float]) -> bool:
        """Take note of losses at held-out points; returns whether they are the best so far.

        Weights change along a run. Were each network compared with the best so far under the weights of its own time,
        each of three could be better than the one before and the last worse than the first. Under ``compared``, which
        stay as they are, the best of all has the smallest loss of all.

        Args:
            losses: by term.
            weights: of the terms, the present ones.
        """
        known = self.best_step is not None and len(self.best_losses) == len(losses)
        if known and len(self.compared) != len(losses):
            self.compared = list(weights)
        used = self.compared if known else weights
        self.held_out, self.error_step = _weighted(losses, used), self.total_steps
        if known:
            self.best_held_out = _weighted(self.best_losses, used)
            if not self.held_out < self.best_held_out:
                return False
        self.best_losses, self.best_held_out, self.best_step = list(losses), self.held_out, self.error_step
        return True

    def forget_best(self) -> None:
        """There is no best network of a run whose networks each serve a part of time."""
        self.best_error = self.best_step = self.best_held_out = self.held_out = None
        self.best_errors, self.best_losses, self.compared = [], [], []


def _weighted(losses: Sequence[float], weights: Sequence[float]) -> float:
    """The weighted sum, infinite where it is not a number."""
    total = sum(w * loss for w, loss in zip(weights, losses, strict=True))
    return math.inf if math.isnan(total) else total
