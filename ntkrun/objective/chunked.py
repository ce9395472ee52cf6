"""The objective over micro-batches of points (chunks), so that memory does not grow with their number."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from ntkrun.jacobian import Jacobian, RowBlock
from ntkrun.jacobian.chunked import PiecewiseJacobian
from ntkrun.jets import LinearUse, StreamPlan
from ntkrun.network import JetNetwork
from ntkrun.objective.batch import Batch, Group
from ntkrun.objective.chosen import Chosen, samples
from ntkrun.objective.objective import Clock, Evaluation, Objective, Route, Weigh, no_clock, scaled
from ntkrun.objective.residuals import PROBE_POINTS
from ntkrun.objective.sharding import ALONE, Sharding
from ntkrun.pde import PDE

Traced = Literal["no", "known", "whole"]
"""What of diag(K_ii) is added up beside the gradient: nothing, the part that a sketch takes at all points, or all."""

TermFunction = Callable[[Mapping[str, Tensor]], Tensor]

MEMORY = 2**30  # bytes that the evaluation of one chunk may take
# A pass that makes traces holds what back-propagation keeps, gradients of the same size, and products of both.
PASSES = 3


@dataclass(frozen=True)
class Piece:
    """Some points of one term.

    Attributes:
        term: its index.
        rows: where the points lie among those of the term.
        group: the points, a group of this term alone.
        longest: points of the longest piece of the term.
    """

    term: int
    rows: slice
    group: Group
    longest: int


def cut(batch: Batch, size: int, ranks: Sharding = ALONE) -> Iterator[Piece]:
    """This process's share of the points of every term, in pieces of nearly equal length of at most ``size`` points."""
    for group in batch:
        for k, (i, own) in enumerate(zip(group.members, group.slices, strict=True)):
            spans = _spans(own.stop - own.start, size, ranks)
            longest = max((rows.stop - rows.start for rows in spans), default=0)
            for rows in spans:
                x = group.x[own][rows]
                scales = None if group.scales is None else (group.scales[k][rows],)
                part = replace(group, members=(i,), slices=(slice(0, len(x)),), x=x, scales=scales)
                yield Piece(i, rows, part, longest)


def _spans(length: int, size: int, ranks: Sharding) -> list[slice]:
    start, stop = (length * rank // ranks.count for rank in (ranks.rank, ranks.rank + 1))
    own = stop - start
    count = -(-own // size)
    return [slice(start + own * k // count, start + own * (k + 1) // count) for k in range(count)]


class ChunkedObjective(Objective):
    """An objective that evaluates at most ``size`` points at a time and adds up.

    Losses, gradients and traces are sums over points, so each chunk is a forward and a backward pass of its own whose
    graph is gone before the next one. Where the weights are made from losses or traces of the very pass, the gradient
    of every term is kept, ``[n, P]``, and combined once the weights are known: no point is evaluated twice.

    Of several processes, each evaluates its share of the points of every term, and they add up once per call. All know
    all points, and all get the same numbers.

    Args:
        pde, network, route, memory, clock: see ``Objective``; residuals must depend on their own point alone.
        size: the most points at a time.
        ranks: the processes.
    """

    _seconds: float | None = 0.0  # spent on traces in the present pass; None where they are part of a graph
    _compiled: Callable[[Piece, Traced], Tensor | None] | None = None  # gives the sums of a piece, where it can

    def __init__(
        self,
        pde: PDE,
        network: nn.Module,
        route: Route,
        memory: int,
        size: int,
        ranks: Sharding = ALONE,
        clock: Clock = no_clock,
    ) -> None:
        self.size: int = size
        super().__init__(pde, network, route, memory, clock)
        self.ranks = ranks

    def evaluated_by(self, compiled: Callable[[Piece, Traced], Tensor | None]) -> ChunkedObjective:
        """The same objective with the sums of pieces, as ``piece_sums``, from elsewhere where that has them."""
        other = copy.copy(self)
        other._compiled = compiled
        return other

    def losses(self, batch: Batch) -> Tensor:
        losses = self.like.new_zeros(len(self.terms))
        rows = self.row_counts(batch)
        with torch.no_grad():
            for piece in self._pieces(batch):
                losses[piece.term] += self._rows_of(piece.group).square().sum() / rows[piece.term]
        return self.ranks.sum(losses)

    def gradient(self, batch: Batch, weights: Tensor | Weigh) -> Evaluation:
        if not isinstance(weights, Tensor):
            losses, gradients = self.term_gradients(batch)
            start = self.clock()
            weights = weights(losses)
            seconds = self.clock() - start
            return Evaluation(losses, weights, self.layout.unflatten(weights @ gradients), None, seconds)
        n = len(self.terms)
        totals = self.like.new_zeros(n + self.layout.size)
        for piece, sums, _ in self._all_sums(batch, ["no"] * n):
            totals[piece.term] += sums[0]
            totals[n:] += weights[piece.term] * sums[2:]
        self.ranks.sum(totals)
        return Evaluation(totals[:n], weights, self.layout.unflatten(totals[n:]))

    def term_gradients(self, batch: Batch) -> tuple[Tensor, Tensor]:
        totals, _ = self._term_sums(batch, ["no"] * len(self.terms))
        return totals[:, 0], totals[:, 2:]

    def fused(self, batch: Batch, weigh: Weigh, chosen: Sequence[Chosen] = ()) -> Evaluation:
        """As ``Objective.fused``: the pullbacks c_k = 2 r_k / N_i of every term are kept apart until it has weights.

        Drawn points are evaluated once more by themselves, but for those of terms that are taken whole.
        """
        if self.route != "structured":
            return super().fused(batch, weigh)
        self._seconds = 0.0
        counts = self.point_counts(batch)
        traced: list[Traced] = ["whole"] * len(counts)
        if chosen:
            traced = ["whole" if own.whole(n) else "known" for own, n in zip(chosen, counts, strict=True)]
        totals, known = self._term_sums(batch, traced)
        start = self.clock()
        weights = weigh(self._samples_beside(totals[:, 1], known, batch, chosen) if chosen else totals[:, 1])
        seconds = None if self._seconds is None else self._seconds + self.clock() - start
        gradients = self.layout.unflatten(weights @ totals[:, 2:])
        return Evaluation(totals[:, 0], weights, gradients, None if chosen else totals[:, 1], seconds)

    def _samples_beside(
        self, traces: Tensor, known: Mapping[int, Tensor], batch: Batch, chosen: Sequence[Chosen]
    ) -> Tensor:
        """Traces of the terms that are taken whole and ``samples`` of the others, one after the other.

        Args:
            traces: ``[n]``.
            known: the part of diag(K_ii) that is known at all points, by term.
            batch: the points.
            chosen: of every term.
        """
        drawn = {i: chosen[i].drawn(diagonal) for i, diagonal in known.items()}
        none = traces.new_zeros(0, dtype=torch.int64)

        def rest(group: Group) -> Tensor:
            return self._diagonal(group, [block.parts()[1] for block in self._rows(group)[1]])[:, None]

        points = [drawn[i][0] if i in drawn else none for i in range(len(chosen))]
        tables = self._gather(self.subset(batch, points), rest, (1,) * len(chosen))
        pieces = [
            samples(known[i], chosen[i], drawn[i][1], tables[i][:, 0]) if i in known else traces[i : i + 1]
            for i in range(len(chosen))
        ]
        return torch.cat(pieces)

    def piece_sums(self, group: Group, traced: Traced) -> Tensor:
        """Value of sum r^2, tr K, and gradient of sum r^2, ``[2 + P]``, over the rows of a group of one term.

        Args:
            group: the points.
            traced: what the trace is of, which is 0 for nothing; by the structured route. Of what is ``known``, the
                part of diag(K) comes after the gradient, ``[n]``.
        """
        if traced == "no":
            loss = self._rows_of(group).square().sum()
            gradient = self.layout.flatten(self._back_propagate(loss))
            return torch.cat([loss.detach()[None], gradient.new_zeros(1), gradient])
        (rows,), blocks = self._rows(group)
        start = self.clock()
        known = [block.parts()[0] for block in blocks] if traced == "known" else blocks
        diagonal = self._diagonal(group, known)
        self._seconds = (self._seconds or 0.0) + self.clock() - start
        own = scaled(group, rows)
        parts = {name: own.new_zeros(shape) for name, shape in self.layout.shapes.items()}
        for block, column in zip(blocks, scaled(group, 2 * own).unbind(1), strict=True):
            for name, part in block.pullback(column).items():
                parts[name] = parts[name] + part
        sums = [own.square().sum()[None], diagonal.sum()[None], self.layout.flatten(parts)]
        return torch.cat([*sums, diagonal] if traced == "known" else sums)

    def diagonals(self, batch: Batch) -> tuple[Tensor, ...]:
        def diagonal(group: Group) -> Tensor:
            if self.route == "structured":
                return self._diagonal(group, self._rows(group)[1])[:, None]
            return self.term_jacobian(group).diagonal().view(-1, len(group.x)).sum(0)[:, None]

        tables = self._gather(batch, diagonal, (1,) * len(self.terms))
        return tuple(tables[i][:, 0] for i in range(len(self.terms)))

    def traces(self, batch: Batch) -> Tensor:
        return torch.stack([diagonal.sum() for diagonal in self.diagonals(batch)])

    def jacobians(self, batch: Batch) -> tuple[Jacobian, ...]:
        """J_i of every term; products evaluate the points again each time, a few at a time."""

        def parts(i: int) -> Callable[[], Iterator[tuple[slice, Jacobian]]]:
            return lambda: ((p.rows, self.term_jacobian(p.group)) for p in self._pieces(batch) if p.term == i)

        counts = self.point_counts(batch)
        return tuple(
            PiecewiseJacobian(parts(i), counts[i], self.components[i], self.layout, self.like, self.ranks.sum)
            for i in range(len(self.terms))
        )

    def term_functions(self, batch: Batch) -> tuple[TermFunction, ...]:
        """Of every term, its rows as a function of the parameters, without a graph."""

        def function(group: Group) -> TermFunction:
            def rows(parameters: Mapping[str, Tensor]) -> Tensor:
                with torch.no_grad():
                    return scaled(group, self.group_residuals(group, parameters)[0]).T.flatten()

            return rows

        whole = {piece.term: piece.group for piece in cut(batch, max(self.point_counts(batch)))}
        return tuple(function(whole[i]) for i in range(len(self.terms)))

    def group_residuals(
        self,
        group: Group,
        parameters: Mapping[str, Tensor] | None = None,
        uses: list[LinearUse] | None = None,
    ) -> list[Tensor]:
        """As ``Residuals.group_residuals``; without a graph, a few points at a time."""
        evaluate = super().group_residuals
        if torch.is_grad_enabled():
            return evaluate(group, parameters, uses)
        tables = self._gather((group,), lambda own: evaluate(own, parameters)[0], self.components)
        return [tables[i] for i in group.members]

    def _pieces(self, batch: Batch) -> Iterator[Piece]:
        return cut(batch, self.size, self.ranks)

    def _gather(self, batch: Batch, evaluate: Callable[[Group], Tensor], columns: Sequence[int]) -> dict[int, Tensor]:
        """What ``evaluate`` gives for the points of every piece, ``[n, columns]``, by term, ``[N_i, columns]``."""
        tables = {
            i: self.like.new_zeros(rows.stop - rows.start, columns[i])
            for group in batch
            for i, rows in zip(group.members, group.slices, strict=True)
        }
        for piece in self._pieces(batch):
            tables[piece.term][piece.rows] = evaluate(piece.group)
        if self.ranks.count == 1:
            return tables
        everything = self.ranks.sum(torch.cat([table.flatten() for table in tables.values()]))
        parts = everything.split([table.numel() for table in tables.values()])
        return {i: part.view_as(tables[i]) for i, part in zip(tables, parts, strict=True)}

    def _term_sums(self, batch: Batch, traced: Sequence[Traced]) -> tuple[Tensor, dict[int, Tensor]]:
        """Loss, trace and gradient of the loss of every term, ``[n, 2 + P]``, over all processes.

        And the part of diag(K_ii) that is known, ``[N_i]``, of the terms of which it is asked for.
        """
        totals = self.like.new_zeros(len(self.terms), 2 + self.layout.size)
        counts = self.point_counts(batch)
        known = {i: self.like.new_zeros(counts[i]) for i, own in enumerate(traced) if own == "known"}
        for piece, sums, diagonal in self._all_sums(batch, traced):
            totals[piece.term] += sums
            if piece.term in known:
                known[piece.term][piece.rows] = diagonal
        return self.ranks.sum(totals), {i: self.ranks.sum(diagonal) for i, diagonal in known.items()}

    def _all_sums(self, batch: Batch, traced: Sequence[Traced]) -> Iterator[tuple[Piece, Tensor, Tensor]]:
        """Every piece with its share of loss, trace and gradient of the loss of its term, ``[2 + P]``.

        What the trace is of is told by term; where it is what is known, its diagonal comes beside, else nothing.
        """
        counts = self.row_counts(batch)
        for piece in self._pieces(batch):
            own = traced[piece.term]
            sums = None if self._compiled is None else self._compiled(piece, own)
            if sums is None:
                sums = self.piece_sums(piece.group, own)
            else:
                self._seconds = None  # traces are part of a graph
            sums, diagonal = sums.split([2 + self.layout.size, len(sums) - 2 - self.layout.size])
            sums[:1] /= counts[piece.term]
            sums[2:] /= counts[piece.term]
            yield piece, sums, diagonal[: piece.rows.stop - piece.rows.start]

    def _rows_of(self, group: Group) -> Tensor:
        """The rows of a group of one term with its point weights, ``[n, m]``."""
        return scaled(group, super().group_residuals(group)[0])

    @staticmethod
    def _diagonal(group: Group, blocks: Sequence[RowBlock]) -> Tensor:
        """diag(K) of a group of one term, ``[n]``."""
        components = torch.stack([block.diagonal(group.x) for block in blocks], dim=1)
        return (components if group.scales is None else components * group.scales[0].square()).sum(1)


def points_at_a_time(objective: Objective, memory: int = MEMORY) -> int:
    """How many points may be evaluated at a time.

    What the graph of a forward pass keeps is measured on a few points, for it is in proportion to their number. The
    result depends on shapes alone, not on values or the machine.

    Args:
        objective: any.
        memory: bytes that the evaluation may take.
    """
    few = [piece.group for piece in cut(objective.probe_batch(), PROBE_POINTS)]
    per_point = max((_kept(objective, g, 16) - _kept(objective, g, 8)) / (8 * len(g.x)) for g in few)
    return max(1, int(memory / (PASSES * max(per_point, 1))))


def _kept(objective: Objective, group: Group, times: int) -> int:
    """Bytes that the graph of a group's residuals keeps, the points taken several times over."""
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor.detach()  # the tensor itself would keep the graph that keeps it

    x = group.x.repeat(times, 1)
    jets = isinstance(objective.network, JetNetwork)
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        if jets:
            objective.group_residuals(replace(group, x=x, slices=(slice(0, len(x)),)))
        else:
            objective.network(x[:, : len(objective.pde.coordinates)])
    return sum(storages.values()) * (1 if jets else _nested_passes(objective, group))


def _nested_passes(objective: Objective, group: Group) -> int:
    """Passes through a network that is not built of jets, roughly: every derivative of a graph triples it."""

    def of(plan: StreamPlan) -> int:
        return 1 + len(objective.pde.fields) * sum(int(3**order) for order in plan.reach().values())

    integrals = objective.integrals[group.members[0]]
    passes = of(group.plan) + sum(each.integral.count * of(each.plan) for each in integrals)
    return passes if group.shift is None else 2 * passes
