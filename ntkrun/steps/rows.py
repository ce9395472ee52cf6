"""One training step made from residual rows and their Jacobian."""

from __future__ import annotations

import torch
from torch import Tensor

from ntkrun.objective import Evaluation, Objective
from ntkrun.objective.batch import Batch
from ntkrun.objective.chosen import samples
from ntkrun.objective.linearized import LinearizedRows
from ntkrun.optimizer import Optimizer
from ntkrun.weights import Request


def step_on_rows(objective: Objective, optimizer: Optimizer, request: Request, batch: Batch) -> Evaluation:
    """Form the rows, weigh them and let the optimiser move the parameters.

    Whatever the weights are made from, losses or traces, comes out of the rows at hand.

    Returns:
        The evaluation at the parameters before the move.
    """
    rows = sum(objective.row_counts(batch))
    system = LinearizedRows(objective, batch, optimizer.wants_factors(rows, objective.layout.size))
    losses = system.losses()
    weights, traces, seconds, state = request.weights, None, 0.0, {}
    if request.evaluation is not None:
        weights = request.evaluation.weights
    elif request.rule is not None:
        start = objective.clock()
        signal = losses if request.signal == "losses" else _signal(system, request)
        weights, given = request.rule(signal, request.state)
        state = dict(given)
        seconds = objective.clock() - start
        traces = signal if request.signal == "traces" else None
    system.weigh(weights)
    gradient = objective.layout.unflatten(2 * system.rows.rmatvec(system.residual))
    optimizer.step_on_rows(system)
    return Evaluation(losses, weights, gradient, traces, seconds, state)


def _signal(system: LinearizedRows, request: Request) -> Tensor:
    """Kernel traces, or samples, as ``Objective.fused`` gives them to a rule; all of the diagonal is known."""
    diagonals = system.diagonals()
    if request.signal == "traces":
        return torch.stack([d.sum() for d in diagonals])
    pieces = []
    for d, chosen in zip(diagonals, request.chosen, strict=True):
        _, chances = chosen.drawn(d)
        pieces.append(d.sum()[None] if chosen.whole(len(d)) else samples(d, chosen, chances, torch.zeros_like(chances)))
    return torch.cat(pieces)
