"""One training step: the gradient under its weights, and the optimiser's move."""

from __future__ import annotations

from torch import Tensor

from ntkrun.objective import Evaluation, Objective
from ntkrun.objective.batch import Batch
from ntkrun.optimizer import Optimizer
from ntkrun.steps.rows import step_on_rows
from ntkrun.weights import Request


class StepError(RuntimeError):
    """A step is not what it should be."""


class Stepper:
    """Makes steps operation by operation.

    Args:
        objective: the problem and the network.
        optimizer: moves the network's parameters.

    Attributes:
        halted: a loss was not finite, so the parameters have not been moved; not looked for on devices and in
            compiled steps.
    """

    halted = False

    def __init__(self, objective: Objective, optimizer: Optimizer) -> None:
        self.objective = objective
        self.optimizer = optimizer

    def step(self, request: Request, batch: Batch, factor: float, changed: bool) -> Evaluation:
        """Evaluate what is asked for and move the parameters.

        Args:
            request: what the weighting asks for.
            batch: the points, with their weights.
            factor: the schedule's factor of the learning rate.
            changed: whether weights or points are others than at the step before.

        Returns:
            The evaluation at the parameters before the move.
        """
        if self.optimizer.wants_rows:
            return step_on_rows(self.objective, self.optimizer, request, batch)
        evaluation = request.evaluate(self.objective, batch)
        if evaluation.losses.device.type == "cpu" and not evaluation.losses.isfinite().all():
            self.halted = True  # at the parameters that show why
            return evaluation
        self.optimizer.step(evaluation, factor, lambda: self.gradient(batch, evaluation.weights), changed)
        return evaluation

    def gradient(self, batch: Batch, weights: Tensor) -> Evaluation:
        """The gradient under given weights."""
        return self.objective.gradient(batch, weights)

    def check_next(self) -> None:
        """Compare the coming step, where it is compiled, with the operations that it stands for.

        The step itself raises a ``StepError`` where it differs.
        """
