"""The training loop."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ntkrun.checkpoints import save_checkpoint
from ntkrun.diagnostics import Diagnostics
from ntkrun.evaluation import Evaluator
from ntkrun.objective import Objective
from ntkrun.optimizer import Optimizer, Schedule
from ntkrun.points import PointSource
from ntkrun.records import Records
from ntkrun.weights import Weighting, WeightUpdate

log = logging.getLogger(__name__)

HISTORY = 1024  # steps whose losses may wait for a check
PHASES = ("training", "weight_updates", "diagnostics", "evaluation", "saving")


class DivergenceError(RuntimeError):
    """A number that must be finite is not."""


@dataclass
class Progress:
    """How far a run has come; part of its checkpoint.

    Attributes:
        step: optimiser steps done.
        seconds: by phase.
        updates: weight updates done.
        error: the latest relative L2 error, at ``error_step``.
        best_error: the smallest so far, at ``best_step``.
    """

    step: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    updates: int = 0
    error: float | None = None
    error_step: int | None = None
    best_error: float | None = None
    best_step: int | None = None

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

    def saw_error(self, error: float) -> None:
        """Take note of an evaluation at the present step."""
        self.error, self.error_step = error, self.step
        if self.best_error is None or error < self.best_error:
            self.best_error, self.best_step = error, self.step


@dataclass
class Trainer:
    """Everything one run consists of.

    Attributes:
        objective, weighting, optimizer, schedule, points, evaluator, diagnostics: the parts, started.
        records: where rows go.
        directory: where checkpoints go.
        iterations: length of the run in optimiser steps.
        log_every: steps between rows of metrics.csv, counted from 0; the last step has a row as well.
        checkpoint_every: steps between checkpoints; one is always written at the end.
        show_bar: show a progress bar where standard error is a terminal.
        should_stop: asked before every step.
    """

    objective: Objective
    weighting: Weighting
    optimizer: Optimizer
    schedule: Schedule
    points: PointSource
    evaluator: Evaluator
    diagnostics: Diagnostics
    records: Records
    directory: Path
    iterations: int
    log_every: int
    checkpoint_every: int
    show_bar: bool
    should_stop: Callable[[], bool]
    progress: Progress = field(default_factory=Progress)

    def fit(self) -> bool:
        """Train until the end or until asked to stop.

        Returns:
            Whether the run reached its end.

        Raises:
            DivergenceError: a loss, trace, weight or parameter is not finite. The last checkpoint stays as it was.
        """
        progress = self.progress
        self._history = self.objective.like.new_empty(min(self.log_every, HISTORY), len(self.objective.terms))
        self._unchecked: list[int] = []
        self._updates: list[tuple[int, float, WeightUpdate]] = []
        self._warned: set[str] = set()
        with self._bar() as bar:
            while progress.step < self.iterations and not self.should_stop():
                step = progress.step
                with progress.phase("training"):
                    batch = self.points.at(step)
                with progress.phase("diagnostics"):
                    self.diagnostics.observe(step, self.objective, batch)
                start = time.perf_counter()
                evaluation, update = self.weighting.evaluate(step, self.objective, batch)
                self._watch(step, evaluation.losses)
                if update is not None:
                    self._updates.append((step, progress.elapsed, update))
                    progress.seconds["weight_updates"] += update.seconds
                    progress.updates += 1
                    start += update.seconds
                if step % self.log_every == 0:
                    progress.seconds["training"] += time.perf_counter() - start
                    self._log(evaluation.losses, evaluation.weights, bar)
                    start = time.perf_counter()
                self.optimizer.step(evaluation.gradient, self.schedule.factor(step, self.iterations))
                progress.seconds["training"] += time.perf_counter() - start
                progress.step += 1
                bar.update()
                if progress.step % self.checkpoint_every == 0 and progress.step < self.iterations:
                    self.save()
            finished = progress.step >= self.iterations
            if finished:
                batch = self.points.at(progress.step) if not self.points.points else self.points.batch
                losses = self.objective.losses(batch)
                self._watch(progress.step, losses)
                self._log(losses, self.weighting.weights, bar)
                with progress.phase("diagnostics"):
                    self.diagnostics.observe(progress.step, self.objective, batch)
            self.save()
        return finished

    def save(self) -> None:
        """Flush the tables and write a checkpoint.

        Raises:
            DivergenceError: the state is not worth keeping.
        """
        with self.progress.phase("saving"):
            self._check()
            self.records.flush()
            save_checkpoint(self.directory, self.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on; the schedule is a function of the step and holds no state."""
        return {
            "progress": dict(vars(self.progress)),
            "network": self.objective.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "weighting": self.weighting.state_dict(),
            "points": self.points.state_dict(),
            "diagnostics": self.diagnostics.state_dict(),
            "random": torch.get_rng_state(),
        }

    def _bar(self) -> tqdm[Any]:
        disable = None if self.show_bar else True
        return tqdm(total=self.iterations, initial=self.progress.step, disable=disable, unit="it", dynamic_ncols=True)

    def _watch(self, step: int, losses: torch.Tensor) -> None:
        """Keep the losses of a step until the next check, without waiting for the device."""
        self._history[len(self._unchecked)] = losses
        self._unchecked.append(step)
        if len(self._unchecked) == len(self._history):
            self._check()

    def _check(self) -> None:
        """Find the first step since the last check at which something was not finite; write weight updates."""
        names = self.objective.names
        losses = self._history[: len(self._unchecked)].cpu()
        for step, row in zip(self._unchecked, torch.isfinite(losses).tolist(), strict=True):
            for updated, elapsed, update in [u for u in self._updates if u[0] <= step]:
                self._write_update(updated, elapsed, update)
            self._updates = [u for u in self._updates if u[0] > step]
            if not all(row):
                bad = [name for name, finite in zip(names, row, strict=True) if not finite]
                raise DivergenceError(f"step {step}: the loss of term {', '.join(bad)} is not finite")
        self._unchecked.clear()
        for name, parameter in self.objective.network.named_parameters():
            if not torch.isfinite(parameter).all():
                raise DivergenceError(f"step {self.progress.step}: parameter {name} is not finite")

    def _write_update(self, step: int, elapsed: float, update: WeightUpdate) -> None:
        names = self.objective.names
        traces, weights = update.traces.tolist(), update.weights.tolist()
        for what, values in (("trace", traces), ("weight", weights)):
            for name, value in zip(names, values, strict=True):
                if not math.isfinite(value):
                    raise DivergenceError(f"step {step}: the {what} of term {name} is not finite")
        for name, floored in zip(names, update.floored.tolist(), strict=True):
            if floored and name not in self._warned:
                self._warned.add(name)
                log.warning("step %d: the trace of term %s is below the floor; its weight is capped", step, name)
        extras = {name: values.tolist() for name, values in update.extras.items()}
        self.records.weight_update(step, elapsed, update.seconds, traces, weights, extras)

    def _log(self, losses: torch.Tensor, weights: torch.Tensor, bar: tqdm[Any]) -> None:
        self._check()
        progress = self.progress
        with progress.phase("evaluation"):
            error = self.evaluator.error()
        if error is not None:
            progress.saw_error(error)
        values, factors = losses.tolist(), weights.tolist()
        rate = self.optimizer.learning_rate * self.schedule.factor(progress.step, self.iterations)
        self.records.metrics(progress.step, progress.elapsed, values, factors, error, rate)
        total = sum(w * value for w, value in zip(factors, values, strict=True))
        shown = {"loss": f"{total:.2e}"}
        if error is not None:
            shown["rel_l2"] = f"{error:.2e}"
        shown["weights"] = "/".join(f"{w:.3g}" for w in factors)
        bar.set_postfix(shown, refresh=False)
        tenth = max(1, self.iterations // 10)
        if progress.step % tenth < self.log_every or progress.step == self.iterations:
            log.info(
                "step %d of %d: %s", progress.step, self.iterations, ", ".join(f"{k} {v}" for k, v in shown.items())
            )


def restore(
    objective: Objective,
    weighting: Weighting,
    optimizer: Optimizer,
    points: PointSource,
    diagnostics: Diagnostics,
    state: Mapping[str, Any],
) -> Progress:
    """Put what ``Trainer.state_dict`` gave into the parts of a run; returns how far that run had come."""
    progress = Progress(**state["progress"])
    objective.network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    weighting.load_state_dict(state["weighting"])
    points.load_state_dict(state["points"])
    diagnostics.load_state_dict(state["diagnostics"])
    torch.set_rng_state(state["random"])
    return progress
