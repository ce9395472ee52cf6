"""Evaluating points a few at a time by compiled graphs.

A graph evaluates one piece of a term: its loss, its trace and its gradient, to be added up by ``ChunkedObjective``. The
weights' rule and the optimiser's update, which take little time beside many points, are made operation by operation.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

import torch
from torch import Tensor

from ntkrun.geometry import Sampler
from ntkrun.objective import Evaluation
from ntkrun.objective.batch import Batch, widened
from ntkrun.objective.chunked import ChunkedObjective, Piece, Traced
from ntkrun.optimizer import Optimizer
from ntkrun.steps.cost_model import CompileChoice
from ntkrun.steps.eager import Stepper
from ntkrun.steps.graph import Compiler, Graph
from ntkrun.weights import Request

TRIAL = 11  # seed of the points on which a graph is tried


class ChunkedStepper(Stepper):
    """Makes steps whose pieces are evaluated by compiled graphs, one for every term and kind of pass.

    Args:
        objective: the problem and the network.
        optimizer: moves the network's parameters.
        compiler: makes the graphs.
        choice: which steps are compiled.
    """

    def __init__(
        self, objective: ChunkedObjective, optimizer: Optimizer, compiler: Compiler, choice: CompileChoice
    ) -> None:
        super().__init__(objective, optimizer)
        self._choice = choice
        self.pieces = CompiledPieces(objective, compiler)
        self._compiled = Stepper(objective.evaluated_by(self.pieces), optimizer)

    def step(self, request: Request, batch: Batch, factor: float, changed: bool) -> Evaluation:
        if self._choice.pays(request.every, len(self.objective.terms)):
            return self._compiled.step(request, batch, factor, changed)
        return super().step(request, batch, factor, changed)

    def check_next(self) -> None:
        for graph in self.pieces.graphs.values():
            graph.check_next = True


class CompiledPieces:
    """The sums of a piece, as ``ChunkedObjective.piece_sums``, by compiled graphs.

    Pieces of a term differ in length by a point. The shorter ones are filled up with a point of theirs whose rows are
    multiplied by zero, so that one graph serves all.

    Args:
        objective: evaluates what is compiled.
        compiler: makes the graphs.

    Attributes:
        graphs: those made so far.
    """

    def __init__(self, objective: ChunkedObjective, compiler: Compiler) -> None:
        self.graphs: dict[Hashable, Graph] = {}
        self._objective = objective
        self._compiler = compiler
        self._names = list(objective.trainable)
        self._parameters = [p.detach() for p in objective.trainable.values()]
        self._buffers = dict(objective.network.named_buffers())

    def __call__(self, piece: Piece, traced: Traced) -> Tensor | None:
        """The sums of a piece, as long as of the longest; ``None`` where there is no graph for it.

        Args:
            piece: some points of one term.
            traced: what the trace is of.
        """
        group = piece.group
        key = (traced, group.plan, piece.term, piece.longest)
        graph = self.graphs.get(key)
        if graph is None:
            graph = self._compiler.make(lambda: self._make(piece, traced))
            if graph is None:
                return None
            self.graphs[key] = graph
        x, scale = group.x, self._ones(piece) if group.scales is None else group.scales[0]
        missing = piece.longest - len(x)
        if missing:
            x = torch.cat([x, x[-1:].expand(missing, -1)])
            scale = torch.cat([scale, scale.new_zeros(missing, scale.shape[1])])
        (sums,) = graph([*self._parameters, *self._buffers.values(), x, scale, self._objective.progress])
        return sums

    def _ones(self, piece: Piece) -> Tensor:
        return piece.group.x.new_ones(len(piece.group.x), self._objective.components[piece.term])

    def _make(self, piece: Piece, traced: Traced) -> Graph:
        objective, names, buffers = self._objective, self._names, list(self._buffers)

        def sums(*inputs: Tensor) -> list[Tensor]:
            rest = iter(inputs)
            leaves = {name: next(rest).detach().requires_grad_() for name in names}
            own = {name: next(rest) for name in buffers}
            x, scale, progress = rest
            group = replace(piece.group, x=x, slices=(slice(0, len(x)),), scales=(scale,))
            with torch.enable_grad():
                return [objective.under(leaves, own, progress, lambda: objective.piece_sums(group, traced))]

        def trial(k: int) -> list[Tensor]:
            region, n = objective.terms[piece.term].region, piece.longest
            x = Sampler(region, n, "uniform", TRIAL + k).draw().to(objective.like)
            x = widened(x, piece.group.x.shape[1])
            scale = torch.linspace(0.5, 1 + k, n)[:, None].expand(-1, objective.components[piece.term])
            moved = [(1.01 + 0.01 * k) * p for p in self._parameters]
            progress = torch.full_like(objective.progress, 0.25 + 0.5 * k)
            return [*moved, *self._buffers.values(), x, scale.to(objective.like), progress]

        kept = {**dict(enumerate((*self._parameters, *self._buffers.values()))), -1: objective.progress}
        return Graph(sums, trial, objective.network, objective.like, kept)
