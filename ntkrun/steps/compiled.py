"""Training steps as compiled graphs.

A step is traced once, operation by operation, with everything that changes from step to step as an input: parameters,
the network's buffers, points and their weights, the weights of the terms and what they are made from, the optimiser's
state and its numbers. The trace holds the forward pass, the backward pass, the weights' rule and the optimiser's
update, and torch compiles it as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ntkrun.geometry import Sampler
from ntkrun.objective import Evaluation, Objective
from ntkrun.objective.batch import Batch
from ntkrun.objective.chosen import Chosen
from ntkrun.optimizer import GraphUpdate, Optimizer
from ntkrun.steps.cost_model import CompileChoice
from ntkrun.steps.eager import Stepper
from ntkrun.steps.graph import Compiler, Graph
from ntkrun.weights import Request

TRIAL = 7  # seed of the points on which a compiled step is tried


class Signature(NamedTuple):
    """The lists of tensors that go into a step, as the names of their places.

    Attributes:
        state: names of what the weights' rule reads.
        scaled: whether points have weights.
        moves: whether the optimiser's update is part of the step.
        rule: what the weights are made from and how, as ``Request`` says.
        shapes: of the points of all groups, and the number of those chosen of every term.
    """

    state: tuple[str, ...]
    scaled: bool
    moves: bool
    rule: Hashable
    shapes: tuple[Hashable, ...]

    @classmethod
    def of(cls, request: Request, batch: Batch, moves: bool) -> Signature:
        """The signature of a step."""
        shapes: tuple[Hashable, ...] = tuple((group.plan, group.members, group.x.shape) for group in batch)
        if request.chosen:
            shapes = (*shapes, *(len(part) for own in request.chosen for part in own))
        scaled = any(group.scales is not None for group in batch)
        return cls(tuple(request.state), scaled, moves, (request.signal, request.rule), shapes)


class CompiledStepper(Stepper):
    """Makes steps by compiled graphs, one for every kind of step that occurs.

    Every graph is tried once on other points, parameters and weights and compared with the operations it stands for.
    Where that fails, or nothing can be compiled here, all steps are made operation by operation. Later on it is
    compared again where ``check_next`` asks for it.

    Args:
        objective: the problem and the network.
        optimizer: moves the network's parameters.
        compiler: makes the graphs.
        choice: which steps are compiled.
    """

    def __init__(self, objective: Objective, optimizer: Optimizer, compiler: Compiler, choice: CompileChoice) -> None:
        super().__init__(objective, optimizer)
        self._compiler = compiler
        self._choice = choice
        self.programs: dict[Signature, Program] = {}
        self._numbers: tuple[Tensor, ...] = ()  # of the optimiser's update

    def step(self, request: Request, batch: Batch, factor: float, changed: bool) -> Evaluation:
        if self.optimizer.wants_rows:
            return super().step(request, batch, factor, changed)
        update = self.optimizer.graph_update()
        program = None if request.evaluation is not None else self._program(request, batch, update)
        if program is None or update is None:
            evaluation = request.evaluate(self.objective, batch) if program is None else program(request, batch)
            self.optimizer.step(evaluation, factor, lambda: self.gradient(batch, evaluation.weights), changed)
            return evaluation
        for tensor, number in zip(self._numbers, update.numbers(update.rate(factor)), strict=True):
            tensor.fill_(number)  # which waits for no device, as a copy would
        evaluation = program(request, batch)
        self.optimizer.took_step(evaluation)
        return evaluation

    def gradient(self, batch: Batch, weights: Tensor) -> Evaluation:
        program = self._program(Request(weights), batch, None)
        return super().gradient(batch, weights) if program is None else program(Request(weights), batch)

    def check_next(self) -> None:
        for program in self.programs.values():
            program.graph.check_next = True

    def _program(self, request: Request, batch: Batch, update: GraphUpdate | None) -> Program | None:
        """The compiled graph for a step, made if there is none yet; ``None`` where it cannot be compiled."""
        if self._compiler.failed or not self._choice.pays(request.every):
            return None
        if request.signal in ("traces", "samples") and self.objective.route != "structured":
            return None
        signature = Signature.of(request, batch, update is not None)
        program = self.programs.get(signature)
        if program is None:
            if update is not None and not self._numbers:
                self._numbers = tuple(self.objective.like.new_zeros(()) for _ in update.numbers(update.rate(1.0)))
            numbers = () if update is None else self._numbers
            program = self._compiler.make(lambda: Program(self.objective, request, batch, update, numbers))
            if program is not None:
                self.programs[signature] = program
        return program


class Program:
    """A compiled step.

    Args:
        objective: the problem and the network.
        request: a request of the kind to be compiled.
        batch: points of the number to be compiled for.
        update: the optimiser's update; ``None`` gives the gradient instead of making it.
        numbers: those of the update, filled before every step.

    Raises:
        CompileError: the compiled step differs from what it was made from.
    """

    def __init__(
        self,
        objective: Objective,
        request: Request,
        batch: Batch,
        update: GraphUpdate | None,
        numbers: Sequence[Tensor] = (),
    ) -> None:
        self._objective = objective
        self._update = update
        self._numbers = tuple(numbers)
        self._names = list(objective.trainable)
        self._parameters = [p.detach() for p in objective.trainable.values()]
        self._buffers = dict(objective.network.named_buffers())
        self._further: tuple[str, ...] = ()  # names of what the weights' rule gives
        tensors = update.tensors() if update else ()
        first = (*self._parameters, *self._buffers.values(), *tensors, *numbers)
        kept = {**dict(enumerate(first)), -1: objective.progress}
        function, trial = self._function(request, batch), lambda k: self._trial(request, batch, k)
        self.graph = Graph(function, trial, objective.network, objective.like, kept)

    def __call__(self, request: Request, batch: Batch) -> Evaluation:
        """Make the step: the evaluation, without a gradient where the parameters have been moved."""
        return self._evaluation(request, iter(self.graph(self._inputs(request, batch))))

    def _inputs(self, request: Request, batch: Batch) -> list[Tensor]:
        """The tensors of a step in the order in which ``_function`` reads them."""
        inputs = [*self._parameters, *self._buffers.values()]
        if self._update is not None:
            inputs += [*self._update.tensors(), *self._numbers]
        for group in batch:
            inputs += [group.x, *(group.scales or ())]
        chosen = [part for own in request.chosen for part in own]
        return [*inputs, request.weights, *chosen, *request.state.values(), self._objective.progress]

    def _function(self, request: Request, batch: Batch) -> Callable[..., list[Tensor]]:
        """The step as a function of its tensors, which it changes in place where the optimiser does."""
        names, buffers, update = self._names, list(self._buffers), self._update
        count = 0 if update is None else len(update.tensors())

        def step(*inputs: Tensor) -> list[Tensor]:
            rest = iter(inputs)
            parameters = [next(rest) for _ in names]
            leaves = {name: p.detach().requires_grad_() for name, p in zip(names, parameters, strict=True)}
            own = {name: next(rest) for name in buffers}
            tensors = [next(rest) for _ in range(count)]
            numbers = [next(rest) for _ in self._numbers]
            points = tuple(
                replace(group, x=next(rest), scales=group.scales and tuple(next(rest) for _ in group.scales))
                for group in batch
            )
            weights, chosen = next(rest), tuple(Chosen(next(rest), next(rest)) for _ in request.chosen)
            asked = replace(request, weights=weights, chosen=chosen, state={name: next(rest) for name in request.state})
            progress, objective = next(rest), self._objective
            with torch.enable_grad():
                evaluation = objective.under(leaves, own, progress, lambda: asked.evaluate(objective, points))
            outputs = [evaluation.losses, evaluation.weights]
            if evaluation.traces is not None:
                outputs.append(evaluation.traces)
            self._further = tuple(evaluation.state)
            outputs += evaluation.state.values()
            gradient = [evaluation.gradient[name] for name in names]
            if update is None:
                return outputs + [each.contiguous() for each in gradient]  # optimisers may see them as vectors
            update.update(parameters, gradient, tensors, numbers)
            return outputs

        return step

    def _evaluation(self, request: Request, outputs: Iterator[Tensor]) -> Evaluation:
        losses, weights = next(outputs), next(outputs)
        traces = next(outputs) if request.signal == "traces" else None
        state = {name: next(outputs) for name in self._further}
        gradient = dict(zip(self._names, outputs, strict=True)) if self._update is None else {}
        return Evaluation(losses, weights, gradient, traces, None, state)

    def _trial(self, request: Request, batch: Batch, k: int) -> list[Tensor]:
        """Inputs of a step; those of different ``k`` differ in everything that steps may differ in."""
        objective = self._objective
        counts = dict(zip(objective.names, objective.point_counts(batch), strict=True))
        points = {
            term.name: Sampler(term.region, counts[term.name], "uniform", TRIAL + 100 * k + i).draw().to(objective.like)
            for i, term in enumerate(objective.terms)
        }
        other = tuple(
            replace(group, scales=known.scales and tuple(0.5 * s + 0.5 for s in known.scales))
            for group, known in zip(objective.batch(points), batch, strict=True)
        )
        weights = torch.linspace(0.5, 2 + k, len(objective.names)).to(objective.like)
        state = {
            name: (1.25 + k) * value if value.is_floating_point() else value for name, value in request.state.items()
        }
        inputs = self._inputs(replace(request, weights=weights, state=state), other)
        moved = len(self._parameters)
        kept = moved + len(self._buffers)
        tensors = 0 if self._update is None else len(self._update.tensors())
        numbers = kept + tensors
        rest = numbers + len(self._numbers)
        known = () if self._update is None else self._update.numbers(self._update.rate(1.0))
        return [
            *((1.01 + 0.01 * k) * p for p in inputs[:moved]),
            *inputs[moved:kept],
            *(torch.full_like(t, 0.05 + 0.01 * k) for t in inputs[kept:numbers]),
            *(torch.full_like(t, number) for t, number in zip(inputs[numbers:rest], known, strict=True)),
            *inputs[rest:-1],
            torch.full_like(inputs[-1], 0.25 + 0.5 * k),
        ]
