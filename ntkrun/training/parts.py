"""The parts of a run, and the settings of the training loop."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ntkrun.diagnostics import Diagnostics
from ntkrun.objective import Objective
from ntkrun.optimizer import Optimizer, Schedule
from ntkrun.pde import PDE
from ntkrun.point_weights import PointWeights
from ntkrun.training.collocation import PointSource
from ntkrun.training.evaluation import Evaluator
from ntkrun.training.held_out import HeldOut
from ntkrun.training.progress import Targets
from ntkrun.weights import Weighting


@dataclass(frozen=True, kw_only=True)
class TrainingParts:
    """The parts of a run, started; of one time window where there are several.

    Attributes:
        pde: the problem on all of time.
        held_out: losses at points that are not trained on, where no solution is known.
        earlier: the networks of earlier time windows.
        ends: of the time windows so far, where the run chooses them.
    """

    pde: PDE
    objective: Objective
    weighting: Weighting
    point_weights: PointWeights
    optimizer: Optimizer
    schedule: Schedule
    points: PointSource
    evaluator: Evaluator
    diagnostics: Diagnostics
    held_out: HeldOut | None = None
    earlier: tuple[nn.Module, ...] = ()
    ends: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """The length of the loop, and the intervals of what it does besides training.

    Attributes:
        iterations: length of the run, or of this time window, in optimiser steps.
        windows: number of time windows.
        targets: what ends it earlier.
        seconds: after which it ends earlier, too; windows have equal shares of them. Looked at in rows of metrics.csv.
        log_every: steps between rows of metrics.csv, counted from 0; the last step has a row as well.
        evaluate_every: steps between errors, counted from 0. A row has them if a multiple lies between it and the row
            before, or it is the last one, or there are targets. Where no solution is known, the same holds of losses at
            held-out points.
        checkpoint_every: steps between checkpoints; one is always written at the end.
        keep_best: keep the best network as best.pt: that of the smallest error of the worst field, or of the smallest
            loss at held-out points.
        show_bar: show a progress bar where standard error is a terminal.
    """

    iterations: int
    windows: int
    targets: Targets
    seconds: float | None
    log_every: int
    evaluate_every: int
    checkpoint_every: int
    keep_best: bool
    show_bar: bool
