"""The stepper that fits an objective: compiled or not, all points at once or in chunks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from ntkrun.objective import ChunkedObjective, Objective
from ntkrun.optimizer import Optimizer
from ntkrun.steps.cost_model import CompileChoice
from ntkrun.steps.eager import Stepper


def make_stepper(
    objective: Objective,
    optimizer: Optimizer,
    choice: CompileChoice,
    measured: Callable[[], AbstractContextManager[None]],
    announce: Callable[[bool], None],
) -> Stepper:
    """What makes the steps of a run.

    Args:
        objective: the problem and the network.
        optimizer: moves the network's parameters.
        choice: which steps are compiled.
        measured: what a compilation is done in, such as a stopwatch.
        announce: called before and after a compilation, with whether it starts.
    """
    if not choice.pays():
        return Stepper(objective, optimizer)
    from ntkrun.steps.compiled import CompiledStepper  # loads much of torch
    from ntkrun.steps.compiled_chunks import ChunkedStepper
    from ntkrun.steps.graph import Compiler

    compiler = Compiler(measured, announce)
    if isinstance(objective, ChunkedObjective):
        return ChunkedStepper(objective, optimizer, compiler, choice)
    return CompiledStepper(objective, optimizer, compiler, choice)
