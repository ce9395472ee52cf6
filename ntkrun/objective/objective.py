"""The weighted loss of a problem and a network: residuals, gradients and kernel rows.

One object answers all that a trainer or a weighting asks: the residuals, the gradient under given
weights, and the fused pass, which returns the gradient together with the exact kernel traces that its
weights are made from.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import torch
from torch import Tensor, nn

from ntkrun.common.user_frames import cause
from ntkrun.jacobian import Jacobian, RowBlock, ScaledJacobian, StackedJacobian, StructuredJacobian
from ntkrun.jacobian.per_point import PerPointJacobian, dense_jacobian
from ntkrun.jacobian.structured import row_blocks
from ntkrun.jets import LinearUse
from ntkrun.network.base import JetNetwork
from ntkrun.network.coupling import suspects
from ntkrun.objective.batch import Batch, Group
from ntkrun.objective.chosen import Chosen, samples
from ntkrun.objective.residuals import PROBE_POINTS, Residuals
from ntkrun.objective.sharding import ALONE, Sharding
from ntkrun.objective.validation import GROWTH, size_of_terms
from ntkrun.pde import PDE

Route = Literal["structured", "per_point", "dense"]


log = logging.getLogger(__name__)


class RouteError(ValueError):
    """A kernel route that does not fit the network."""


Weigh = Callable[[Tensor], Tensor]
"""Maps traces tr(K_ii) or losses, ``[n]``, or samples of diag(K_ii) to the weights of the loss terms, ``[n]``."""


Clock = Callable[[], float]
"""Tells the time in seconds, from any start."""


def no_clock() -> float:
    """A clock that stands still."""
    return 0.0


@dataclass(frozen=True)
class Evaluation:
    """A weighted gradient and what came with it.

    Attributes:
        losses: L_i, the mean squared residual of each term with its point weights, ``[n]``.
        weights: the weights of the terms in this gradient, ``[n]``.
        gradient: of the weighted loss, by parameter name.
        traces: tr(K_ii), ``[n]``, when the pass was fused.
        weigh_seconds: time spent on traces and weights within the pass; ``None`` where they are part of a compiled one.
        state: what else the weights' rule gave, by name.
    """

    losses: Tensor
    weights: Tensor
    gradient: dict[str, Tensor]
    traces: Tensor | None = None
    weigh_seconds: float | None = 0.0
    state: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def loss(self) -> Tensor:
        """The weighted sum of the losses."""
        return self.weights @ self.losses


class Objective(Residuals):
    """Residuals, losses, gradients and kernels of one problem under one network.

    Args:
        pde: the problem.
        network: a ``JetNetwork``, or any module mapping ``[N, d]`` to ``[N, fields]`` row by row.
        route: how Jacobian rows are computed. ``structured``: from layer inputs and gradients;
            ``per_point``: one reverse pass per row, in chunks; ``dense``: the whole matrix. ``auto`` takes
            the first of these that fits: the first two need residuals that depend on their own point alone,
            and their J^T 1 must agree with back-propagation.
        memory: bytes that intermediate products of kernel computations may take.
        clock: tells the seconds by which traces and weights are timed; they are not where it stands still.

    Attributes:
        clock: as given.
        route: the route in use.
        pointwise: whether residuals at a point depend on that point alone.
        ranks: the processes that share the points out.
        size: the most points that are evaluated at a time, ``None`` for all.

    Raises:
        ProblemError: the problem's definition does not fit itself or the network.
        RouteError: the route asked for does not fit the network.
    """

    ranks: Sharding = ALONE
    size: int | None = None

    @property
    def samples_in_pass(self) -> bool:
        """Whether ``fused`` takes diagonals at chosen points."""
        return self.route == "structured"

    def __init__(
        self,
        pde: PDE,
        network: nn.Module,
        route: Route | Literal["auto"] = "auto",
        memory: int = 2**28,
        clock: Clock = no_clock,
    ) -> None:
        super().__init__(pde, network)
        self.clock = clock
        self.memory = memory
        self.route: Route
        self._choose_route(route, self.probe_batch())

    def alone(self) -> Self:
        """The same objective with all points to this process, for what one of several does by itself."""
        if self.ranks.count == 1:
            return self
        other = copy.copy(self)
        other.ranks = ALONE
        return other

    def losses(self, batch: Batch) -> Tensor:
        """Mean squared residual of each term, ``[n]``, without a graph."""
        with torch.no_grad():
            return torch.stack([r.square().mean() for r in self.residuals(batch)])

    def gradient(self, batch: Batch, weights: Tensor | Weigh) -> Evaluation:
        """Gradient of sum_i weights_i L_i by back-propagation.

        Args:
            batch: the points.
            weights: ``[n]``, or what makes them from the losses of this very pass.
        """
        losses = torch.stack([r.square().mean() for r in self.residuals(batch)])
        seconds = 0.0
        if not isinstance(weights, Tensor):
            start = self.clock()
            weights = weights(losses.detach())
            seconds = self.clock() - start
        return Evaluation(losses.detach(), weights, self._back_propagate(weights @ losses), None, seconds)

    def term_gradients(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The losses, ``[n]``, and the gradient of each of them, ``[n, P]``, by one reverse pass per term."""
        losses = torch.stack([r.square().mean() for r in self.residuals(batch)])
        gradients = []
        for i, loss in enumerate(losses):
            parts = self._back_propagate(loss, retain_graph=i < len(losses) - 1)
            gradients.append(self.layout.flatten(parts))
        return losses.detach(), torch.stack(gradients)

    def fused(self, batch: Batch, weigh: Weigh, chosen: Sequence[Chosen] = ()) -> Evaluation:
        """Gradient and exact traces from one forward and one backward pass.

        Row k depends on point k alone, so the loss gradient at a layer's output is the gradient of the
        summed residual there times one number per point, c_k = 2 weight_i r_k / N_i. The backward pass
        therefore runs before the weights are known; its products give the traces, the traces the
        weights, and the same products scaled by c the weighted gradient.

        Args:
            batch: the points.
            weigh: makes the weights from the traces tr(K_ii), or from samples of diag(K_ii).
            chosen: if any, points of every term, where there are ``samples_in_pass``; then ``weigh`` gets their
                ``samples``, or the trace of a term of which these are all points, of one term after the other.
        """
        if self.route != "structured":
            start = self.clock()
            traces = self.traces(batch)
            weights = weigh(traces)
            seconds = self.clock() - start
            plain = self.gradient(batch, weights)
            return Evaluation(plain.losses, weights, plain.gradient, traces, seconds)
        passes = [(group, *self._rows(group)) for group in batch]
        start = self.clock()
        known = [(group, blocks) for group, _, blocks in passes]
        if chosen:
            signal = self._samples(known, chosen)
        else:
            signal = torch.stack([d.sum() for d in self._block_diagonals(known)])
        weights = weigh(signal)
        seconds = self.clock() - start
        losses = [weights] * len(self.terms)
        gradient: dict[str, Tensor] = {}
        for group, residuals, blocks in passes:
            scaled = []
            for k, (i, residual) in enumerate(zip(group.members, residuals, strict=True)):
                scale = None if group.scales is None else group.scales[k]
                own = residual if scale is None else residual * scale
                losses[i] = own.square().mean()
                cotangent = own * (weights[i] * (2 / residual.numel()))
                scaled.append(cotangent if scale is None else cotangent * scale)
            for block, cotangent in zip(blocks, _stack_rows(scaled).unbind(1), strict=True):
                for name, part in block.pullback(cotangent).items():
                    gradient[name] = gradient[name] + part if name in gradient else part
        for name, shape in self.layout.shapes.items():
            if name not in gradient:
                gradient[name] = weights.new_zeros(shape)
        return Evaluation(torch.stack(losses), weights, gradient, None if chosen else signal, seconds)

    def diagonals(self, batch: Batch) -> tuple[Tensor, ...]:
        """Exact diag(K_ii) of every term, one number per point: with several residuals, their sum."""
        if self.route == "structured":
            return self._block_diagonals([(group, self._rows(group)[1]) for group in batch])
        counts = self.point_counts(batch)
        return tuple(j.diagonal().view(-1, n).sum(0) for j, n in zip(self.jacobians(batch), counts, strict=True))

    def traces(self, batch: Batch) -> Tensor:
        """Exact tr(K_ii) of every term, ``[n]``."""
        return torch.stack([d.sum() for d in self.diagonals(batch)])

    def jacobians(self, batch: Batch) -> tuple[Jacobian, ...]:
        """J_i of every term, as linear operators."""
        if self.route == "dense":
            return tuple(dense_jacobian(f, self.detached(), self.layout) for f in self.term_functions(batch))
        out: dict[int, Jacobian] = {}
        for group in batch:
            for k, jacobian in enumerate(self._group_jacobians(group)):
                i, scaled = group.members[k], jacobian
                if group.scales is not None:
                    columns = group.scales[k].expand(-1, self.components[i])
                    scaled = ScaledJacobian(jacobian, columns.T.flatten())
                out[i] = scaled
        return tuple(out[i] for i in range(len(self.terms)))

    def _group_jacobians(self, group: Group) -> Iterator[Jacobian]:
        """J_i of every member, before any point weights."""
        if self.route == "structured":
            residuals, blocks = self._rows(group)
            for rows, residual in zip(group.slices, residuals, strict=True):
                own = [block[rows] for block in blocks[: residual.shape[1]]]
                yield StructuredJacobian(own, self.layout, group.x, self.memory)
            return
        for i, rows in zip(group.members, group.slices, strict=True):
            function = self.term_function(group, i)
            yield PerPointJacobian(function, self.detached(), self.layout, group.x[rows], self.memory)

    def term_jacobian(self, group: Group) -> Jacobian:
        """J of a group of one term."""
        (i,) = group.members
        if self.route == "dense":
            function = self.term_function(group, i)
            return dense_jacobian(
                lambda p: scaled(group, function(p, group.x)).T.flatten(), self.detached(), self.layout
            )
        (jacobian,) = self._group_jacobians(group)
        if group.scales is None:
            return jacobian
        return ScaledJacobian(jacobian, group.scales[0].expand(-1, self.components[i]).T.flatten())

    def jacobian(self, batch: Batch) -> Jacobian:
        """J of all terms, the rows of the first on top."""
        return StackedJacobian(self.jacobians(batch))

    def _choose_route(self, wanted: Route | Literal["auto"], probe: Batch) -> None:
        self.pointwise = self._rows_stand_alone(probe)
        candidates: tuple[Route, ...] = ("structured", "per_point", "dense") if wanted == "auto" else (wanted,)
        name = type(self.network).__name__
        reason = "its rows cannot be formed, or J^T 1 is not the gradient"
        for route in candidates:
            if route == "structured" and not isinstance(self.network, JetNetwork):
                continue
            self.route = route
            if self.pointwise and (trouble := self._unvectorized(probe)):
                log.info("route %s does not fit %s: %s", route, name, trouble)
                reason = f"rows of many points cannot be formed at once: {trouble}"
            elif route == "dense" or (self.pointwise and self._rows_agree(probe)):
                return
        if not self.pointwise:
            hint = suspects(self.network)
            text = f"route {wanted} does not fit {name}: its residuals at one point depend on other points"
            raise RouteError(f"{text}; {hint}; kernel.route=dense is left" if hint else text)
        raise RouteError(f"route {wanted} does not fit {name}: {reason}")

    def _rows_stand_alone(self, probe: Batch) -> bool:
        """Whether residuals at a point stay what they are when the point is evaluated alone."""
        together = self.residuals(probe)
        with torch.no_grad():
            grown = self.residuals(probe, {name: (1 + GROWTH) * p for name, p in self.detached().items()})
        sizes = [size_of_terms(*rows).view(-1, PROBE_POINTS) for rows in zip(together, grown, strict=True)]
        for k in range(PROBE_POINTS):
            try:
                alone = self.residuals(self.subset(probe, [torch.tensor([k])] * len(self.terms)))
            except Exception as error:
                name, hint = type(self.network).__name__, suspects(self.network) or "every point must stand alone"
                raise RouteError(
                    f"route: {name} fails at a single point with {cause(error)}; {hint}; derivatives and kernels at a "
                    "point would be mixed with those of others, so no route is left"
                ) from error
            for rows, own, size in zip(together, alone, sizes, strict=True):
                if not _close(rows.view(-1, PROBE_POINTS)[:, k], own, rows.norm() + 1e3 * size[:, k].norm()):
                    return False
        return True

    def _unvectorized(self, probe: Batch) -> str:
        """Why rows cannot be formed; empty where they can: one pass for many points has no branches on values."""
        if self.route != "per_point":
            return ""
        try:
            self.diagonals(probe)
        except RuntimeError as error:
            return str(error).splitlines()[0]
        return ""

    def _rows_agree(self, probe: Batch) -> bool:
        """Whether J^T 1 equals back-propagation of the summed residuals, parameter by parameter.

        This catches parameters that are used outside of linear maps.
        """
        ours = sum(j.rmatvec(self.like.new_ones(1, j.rows)) for j in self.jacobians(probe))
        assert isinstance(ours, Tensor)
        with torch.enable_grad():
            expected = self._back_propagate(torch.stack([r.sum() for r in self.residuals(probe)]).sum())
        scale = torch.stack([gradient.norm() for gradient in expected.values()]).max()
        return all(_close(self.layout.part(ours[0], name), gradient, scale) for name, gradient in expected.items())

    def _back_propagate(self, total: Tensor, retain_graph: bool = False) -> dict[str, Tensor]:
        """Gradient of a number by parameter name, zero for parameters that are not involved."""
        if not total.requires_grad:
            return {name: torch.zeros_like(p) for name, p in self.trainable.items()}
        parameters = list(self.trainable.values())
        gradients = torch.autograd.grad(total, parameters, allow_unused=True, retain_graph=retain_graph)
        return {
            name: torch.zeros_like(p) if g is None else g
            for (name, p), g in zip(self.trainable.items(), gradients, strict=True)
        }

    def _rows(self, group: Group) -> tuple[list[Tensor], list[RowBlock]]:
        """Residuals of a group and its factored Jacobian rows, one block per residual component."""
        with torch.enable_grad():
            uses: list[LinearUse] = []
            residuals = self.group_residuals(group, uses=uses)
            blocks = row_blocks(uses, _stack_rows(residuals), self._names())
        return [r.detach() for r in residuals], blocks

    def _names(self) -> dict[int, str]:
        return {id(p): name for name, p in self.trainable.items()}

    def _samples(self, passes: Sequence[tuple[Group, Sequence[RowBlock]]], chosen: Sequence[Chosen]) -> Tensor:
        """Traces of terms that are taken whole, ``samples`` of the others, one after the other.

        Of these, rows that are formed and those of the middle factored weight are looked at in all points, the rows of
        the other weights in the drawn points alone.
        """
        pieces: dict[int, Tensor] = {}
        for group, blocks in passes:
            counts = {i: rows.stop - rows.start for i, rows in zip(group.members, group.slices, strict=True)}
            if all(chosen[i].whole(n) for i, n in counts.items()):
                whole = _group_diagonals(group, blocks, self.components)
                pieces |= {i: diagonal.sum()[None] for i, diagonal in whole.items()}
                continue
            parts = [block.parts() for block in blocks]
            seconds = [second for _, second in parts]
            for i, known in _group_diagonals(group, [first for first, _ in parts], self.components).items():
                if chosen[i].whole(counts[i]):
                    rest = _group_diagonals(*_at(group, i, seconds), self.components)[i]
                    pieces[i] = (known.sum() + rest.sum())[None]
                    continue
                points, chances = chosen[i].drawn(known)
                rest = _group_diagonals(*_at(group, i, seconds, points), self.components)[i]
                pieces[i] = samples(known, chosen[i], chances, rest)
        return torch.cat([pieces[i] for i in range(len(self.terms))])

    def _block_diagonals(self, passes: Sequence[tuple[Group, Sequence[RowBlock]]]) -> tuple[Tensor, ...]:
        diagonals: dict[int, Tensor] = {}
        for group, blocks in passes:
            diagonals |= _group_diagonals(group, blocks, self.components)
        return tuple(diagonals[i] for i in range(len(self.terms)))


def _group_diagonals(group: Group, blocks: Sequence[RowBlock], components: Sequence[int]) -> dict[int, Tensor]:
    """diag(K_ii) of every member of a group by its index, one number per point."""
    each = [block.diagonal(group.x) for block in blocks]
    if group.scales is None:
        diagonal = sum(each[1:], start=each[0])
        return {i: diagonal[rows] for i, rows in zip(group.members, group.slices, strict=True)}
    table = torch.stack(each, dim=1)
    return {
        i: (table[rows, : components[i]] * scale.square()).sum(1)
        for i, rows, scale in zip(group.members, group.slices, group.scales, strict=True)
    }


def scaled(group: Group, rows: Tensor) -> Tensor:
    """Rows of a group of one term, ``[n, m]``, with its point weights."""
    return rows if group.scales is None else rows * group.scales[0]


def _at(
    group: Group, term: int, blocks: Sequence[RowBlock], points: Tensor | None = None
) -> tuple[Group, list[RowBlock]]:
    """A term of a group alone and its rows, at some of its points if they are given."""
    k = group.members.index(term)
    rows: slice | Tensor = group.slices[k] if points is None else group.slices[k].start + points
    scales = group.scales and (group.scales[k] if points is None else group.scales[k][points],)
    x = group.x[rows]
    return replace(group, members=(term,), slices=(slice(0, len(x)),), x=x, scales=scales), [b[rows] for b in blocks]


def _close(ours: Tensor, expected: Tensor, scale: Tensor) -> bool:
    """Equal up to half the digits, of ``expected`` or of a thousandth of ``scale`` where that is more."""
    tolerance = torch.finfo(expected.dtype).eps ** 0.5
    return not bool((ours - expected).norm() > tolerance * (expected.norm() + 1e-3 * scale))


def _stack_rows(residuals: Sequence[Tensor]) -> Tensor:
    """Residuals ``[N_i, m_i]`` of several terms on top of each other, ``[N, max m_i]``, filled up with zeros."""
    width = max(r.shape[1] for r in residuals)
    padded = [r if r.shape[1] == width else torch.nn.functional.pad(r, (0, width - r.shape[1])) for r in residuals]
    return torch.cat(padded) if len(padded) > 1 else padded[0]
