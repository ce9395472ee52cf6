"""What the training loop is given: the parts of a run, and the settings of the loop."""

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
from ntkrun.training.progress import Targets
from ntkrun.weights import Weighting


@dataclass(frozen=True, kw_only=True)
class TrainingParts:
    """The parts of a run, started; of one time window where there are several.

    Attributes:
        pde: the problem on all of time.
        earlier: the networks of earlier time windows.
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
    earlier: tuple[nn.Module, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How long the loop goes on, and what it does how often.

    Attributes:
        iterations: length of the run, or of this time window, in optimiser steps.
        windows: number of time windows.
        targets: what ends it earlier.
        log_every: steps between rows of metrics.csv, counted from 0; the last step has a row as well.
        evaluate_every: steps between errors, counted from 0. A row has one if a multiple lies between it and the row
            before, or it is the last one, or there are targets.
        checkpoint_every: steps between checkpoints; one is always written at the end.
        keep_best: keep the network of the smallest error as best.pt.
        show_bar: show a progress bar where standard error is a terminal.
    """

    iterations: int
    windows: int
    targets: Targets
    log_every: int
    evaluate_every: int
    checkpoint_every: int
    keep_best: bool
    show_bar: bool
