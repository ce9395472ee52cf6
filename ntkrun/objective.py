"""The weighted loss of a problem and a network: residuals, gradients and kernel rows.

One object answers all that a trainer or a weighting asks: the residuals, the gradient under given
weights, and the fused pass, which returns the gradient together with the exact kernel traces that its
weights are made from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ntkrun.geometry import Sampler
from ntkrun.jets import LinearUse, StreamPlan, UnknownDerivativeError, parse_derivative, plan_streams
from ntkrun.network.base import JetNetwork, output_streams
from ntkrun.ntk import Jacobian, ParameterLayout, RowBlock, StackedJacobian, StructuredJacobian
from ntkrun.ntk.per_point import PerPointJacobian, RowFunction, dense_jacobian
from ntkrun.ntk.structured import row_blocks
from ntkrun.pde import PDE, Columns, ProblemError, Term

Route = Literal["structured", "per_point", "dense"]


class RouteError(ValueError):
    """A kernel route that does not fit the network."""


Weigh = Callable[[Tensor], Tensor]
"""Maps the traces tr(K_ii), ``[n]``, to the weights of the loss terms, ``[n]``."""


@dataclass(frozen=True)
class Evaluation:
    """A weighted gradient and what came with it.

    Attributes:
        losses: mean squared residual of each term, ``[n]``, unweighted.
        weights: the weights of the terms in this gradient, ``[n]``.
        gradient: of the weighted loss, by parameter name.
        traces: tr(K_ii), ``[n]``, when the pass was fused.
        kernel_seconds: time spent on the traces and weights within the pass.
    """

    losses: Tensor
    weights: Tensor
    gradient: dict[str, Tensor]
    traces: Tensor | None = None
    kernel_seconds: float = 0.0


@dataclass(frozen=True)
class Group:
    """Terms that need the same derivatives and share one forward pass.

    Attributes:
        plan: their streams.
        members: indices of the terms.
        slices: the rows of ``x`` that belong to each member.
        x: the points of all members, ``[N, d]``.
    """

    plan: StreamPlan
    members: tuple[int, ...]
    slices: tuple[slice, ...]
    x: Tensor


Batch = tuple[Group, ...]


class Objective:
    """Residuals, losses, gradients and kernels of one problem under one network.

    Args:
        pde: the problem.
        network: a ``JetNetwork``, or any module mapping ``[N, d]`` to ``[N, fields]`` row by row.
        route: how Jacobian rows are computed. ``structured``: from layer inputs and gradients;
            ``per_point``: one reverse pass per row, in chunks; ``dense``: the whole matrix. ``auto`` takes
            the first of these whose J^T 1 agrees with back-propagation.
        memory: bytes that intermediate products of kernel computations may take.

    Raises:
        ProblemError: a term names an unknown derivative, or two terms share a name.
        RouteError: the route asked for does not fit the network.
    """

    def __init__(
        self, pde: PDE, network: nn.Module, route: Route | Literal["auto"] = "auto", memory: int = 2**28
    ) -> None:
        self.pde = pde
        self.network = network
        self.terms = pde.terms()
        self.names = tuple(term.name for term in self.terms)
        if len(set(self.names)) < len(self.names):
            raise ProblemError(f"two loss terms share a name: {', '.join(self.names)}")
        self.layout = ParameterLayout(network)
        self.memory = memory
        self.route: Route
        self._parsed = [self._parse(term) for term in self.terms]
        self._plans = self._plan_groups()
        probe = self._probe_batch()
        self.components = tuple(
            len(rows) // n for rows, n in zip(self.residuals(probe), self.point_counts(probe), strict=True)
        )
        self._choose_route(route, probe)

    # Points

    def batch(self, points: Mapping[str, Tensor]) -> Batch:
        """Gather the points of terms with equal needs.

        Args:
            points: the points of each term by name, ``[N_i, d]``, of the network's dtype and device.
        """
        batch = []
        for plan, members in self._plans:
            parts = [points[self.names[i]] for i in members]
            slices, start = [], 0
            for part in parts:
                slices.append(slice(start, start + len(part)))
                start += len(part)
            batch.append(Group(plan, members, tuple(slices), torch.cat(parts)))
        return tuple(batch)

    def subset(self, batch: Batch, chosen: Sequence[Tensor]) -> Batch:
        """The batch of the ``chosen`` point indices of each term."""
        points = {}
        for group in batch:
            for i, rows in zip(group.members, group.slices, strict=True):
                points[self.names[i]] = group.x[rows][chosen[i].to(group.x.device)]
        return self.batch(points)

    def point_counts(self, batch: Batch) -> tuple[int, ...]:
        """The number of points of every term."""
        counts = {i: rows.stop - rows.start for g in batch for i, rows in zip(g.members, g.slices, strict=True)}
        return tuple(counts[i] for i in range(len(self.terms)))

    def row_counts(self, batch: Batch) -> tuple[int, ...]:
        """N_i of every term: points times residuals per point."""
        return tuple(n * m for n, m in zip(self.point_counts(batch), self.components, strict=True))

    # Parameters

    @property
    def like(self) -> Tensor:
        """A parameter, for its dtype and device."""
        return next(self.network.parameters())

    def parameter_vector(self) -> Tensor:
        """The trainable parameters as one vector, ``[P]``, detached."""
        return self.layout.flatten({n: p.detach() for n, p in self.network.named_parameters()})

    def shifted(self, shift: Tensor) -> dict[str, Tensor]:
        """The trainable parameters plus ``shift``, ``[P]``, by name."""
        return self.layout.unflatten(self.parameter_vector() + shift)

    @contextmanager
    def at(self, vector: Tensor) -> Iterator[None]:
        """Put the trainable parameters at ``vector``, ``[P]``, while inside."""
        here = self.parameter_vector()
        self._set_parameters(vector)
        try:
            yield
        finally:
            self._set_parameters(here)

    # Residuals and losses

    def residuals(self, batch: Batch, parameters: Mapping[str, Tensor] | None = None) -> tuple[Tensor, ...]:
        """The rows r_i of every term, ``[N_i]`` each; with m residuals per point, one component after the other.

        Args:
            batch: the points.
            parameters: values used in place of the network's own.
        """
        rows: list[Tensor] = [torch.empty(0)] * len(self.terms)
        for group in batch:
            for i, residual in zip(group.members, self._group_residuals(group, parameters), strict=True):
                rows[i] = residual.T.flatten()
        return tuple(rows)

    def term_functions(self, batch: Batch) -> tuple[Callable[[Mapping[str, Tensor]], Tensor], ...]:
        """For every term, its rows r_i, ``[N_i]``, as a function of the trainable parameters alone."""

        def at(function: RowFunction, x: Tensor) -> Callable[[Mapping[str, Tensor]], Tensor]:
            return lambda parameters: function(parameters, x).T.flatten()

        functions = {
            i: at(self._term_function(group, i), group.x[rows])
            for group in batch
            for i, rows in zip(group.members, group.slices, strict=True)
        }
        return tuple(functions[i] for i in range(len(self.terms)))

    def losses(self, batch: Batch) -> Tensor:
        """Mean squared residual of each term, ``[n]``, without a graph."""
        with torch.no_grad():
            return torch.stack([r.square().mean() for r in self.residuals(batch)])

    # Gradients

    def gradient(self, batch: Batch, weights: Tensor) -> Evaluation:
        """Gradient of sum_i weights_i L_i by back-propagation.

        Args:
            batch: the points.
            weights: ``[n]``.
        """
        losses = torch.stack([r.square().mean() for r in self.residuals(batch)])
        parameters = {name: p for name, p in self.network.named_parameters() if p.requires_grad}
        gradients = torch.autograd.grad(weights @ losses, list(parameters.values()), allow_unused=True)
        named = {
            name: torch.zeros_like(p) if g is None else g
            for (name, p), g in zip(parameters.items(), gradients, strict=True)
        }
        return Evaluation(losses.detach(), weights, named)

    def fused(self, batch: Batch, weigh: Weigh) -> Evaluation:
        """Gradient and exact traces from one forward and one backward pass.

        Row k depends on point k alone, so the loss gradient at a layer's output is the gradient of the
        summed residual there times one number per point, c_k = 2 weight_i r_k / N_i. The backward pass
        therefore runs before the weights are known; its products give the traces, the traces the
        weights, and the same products scaled by c the weighted gradient.

        Args:
            batch: the points.
            weigh: makes the weights from the traces tr(K_ii).
        """
        if self.route != "structured":
            weights, traces, seconds = self._weigh(lambda: self.diagonals(batch), weigh)
            plain = self.gradient(batch, weights)
            return Evaluation(plain.losses, weights, plain.gradient, traces, seconds)
        passes = [(group, *self._rows(group)) for group in batch]
        weights, traces, seconds = self._weigh(
            lambda: self._block_diagonals([(group, blocks) for group, _, blocks in passes]), weigh
        )
        losses = [weights] * len(self.terms)
        gradient: dict[str, Tensor] = {}
        for group, residuals, blocks in passes:
            scaled = []
            for i, residual in zip(group.members, residuals, strict=True):
                losses[i] = residual.square().mean()
                scaled.append(residual * (weights[i] * (2 / residual.numel())))
            for block, cotangent in zip(blocks, _stack_rows(scaled).unbind(1), strict=True):
                for name, part in block.pullback(cotangent).items():
                    gradient[name] = gradient[name] + part if name in gradient else part
        for name, shape in self.layout.shapes.items():
            if name not in gradient:
                gradient[name] = weights.new_zeros(shape)
        return Evaluation(torch.stack(losses), weights, gradient, traces, seconds)

    # Kernels

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
        out: dict[int, Jacobian] = {}
        if self.route == "dense":
            return tuple(dense_jacobian(f, self.network, self.layout) for f in self.term_functions(batch))
        for group in batch:
            if self.route == "structured":
                residuals, blocks = self._rows(group)
                for i, rows, residual in zip(group.members, group.slices, residuals, strict=True):
                    own = [block[rows] for block in blocks[: residual.shape[1]]]
                    out[i] = StructuredJacobian(own, self.layout, group.x, self.memory)
            else:
                for i, rows in zip(group.members, group.slices, strict=True):
                    function = self._term_function(group, i)
                    out[i] = PerPointJacobian(function, self.network, self.layout, group.x[rows], self.memory)
        return tuple(out[i] for i in range(len(self.terms)))

    def jacobian(self, batch: Batch) -> Jacobian:
        """J of all terms, the rows of the first on top."""
        return StackedJacobian(self.jacobians(batch))

    # Internals

    def _set_parameters(self, vector: Tensor) -> None:
        values = self.layout.unflatten(vector)
        with torch.no_grad():
            for name, parameter in self.network.named_parameters():
                if name in values:
                    parameter.copy_(values[name])

    def _parse(self, term: Term) -> dict[str, tuple[str, str]]:
        try:
            return {name: parse_derivative(name, self.pde.fields, self.pde.coordinates) for name in term.derivatives}
        except UnknownDerivativeError as error:
            raise ProblemError(f"loss term {term.name!r}, derivative {error}") from None

    def _plan_groups(self) -> list[tuple[StreamPlan, tuple[int, ...]]]:
        """The stream plans needed, each with the terms that share it."""
        groups: dict[frozenset[str], list[int]] = {}
        for i, parsed in enumerate(self._parsed):
            groups.setdefault(frozenset(index for _, index in parsed.values()), []).append(i)
        return [
            (plan_streams(sorted(indices), self.pde.coordinates), tuple(members)) for indices, members in groups.items()
        ]

    def _probe_batch(self) -> Batch:
        """Three points of every term, for first checks of a problem's definition and of the route."""
        points = {t.name: Sampler(t.region, 3, "uniform", i).draw().to(self.like) for i, t in enumerate(self.terms)}
        return self.batch(points)

    def _choose_route(self, wanted: Route | Literal["auto"], probe: Batch) -> None:
        candidates: tuple[Route, ...] = ("structured", "per_point", "dense") if wanted == "auto" else (wanted,)
        for route in candidates:
            if route == "structured" and not isinstance(self.network, JetNetwork):
                continue
            self.route = route
            if route == "dense" or self._rows_agree(probe):
                return
        raise RouteError(f"route {wanted} does not fit {type(self.network).__name__}: its J^T 1 is not the gradient")

    def _rows_agree(self, probe: Batch) -> bool:
        """Whether J^T 1 equals back-propagation of the summed residuals, parameter by parameter.

        This catches parameters that are used outside of linear maps, and rows that share points.
        """
        ours = sum(j.rmatvec(self.like.new_ones(1, j.rows)) for j in self.jacobians(probe))
        assert isinstance(ours, Tensor)
        parameters = {n: p for n, p in self.network.named_parameters() if p.requires_grad}
        with torch.enable_grad():
            total = torch.stack([r.sum() for r in self.residuals(probe)]).sum()
            gradients = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
        tolerance = torch.finfo(self.like.dtype).eps ** 0.5
        scale = max((g.norm().item() for g in gradients if g is not None), default=0.0)
        for (name, p), g in zip(parameters.items(), gradients, strict=True):
            expected = torch.zeros_like(p) if g is None else g
            if (self.layout.part(ours[0], name) - expected).norm() > tolerance * (expected.norm() + 1e-3 * scale):
                return False
        return True

    def _group_residuals(
        self,
        group: Group,
        parameters: Mapping[str, Tensor] | None = None,
        uses: list[LinearUse] | None = None,
    ) -> list[Tensor]:
        """Residuals of every member, ``[N_i, m_i]`` each."""
        streams = output_streams(self.network, group.x, group.plan, parameters, uses)
        if streams.shape[-1] != len(self.pde.fields):
            raise ProblemError(
                f"the network has {streams.shape[-1]} outputs; the fields are {', '.join(self.pde.fields)}"
            )
        derivatives = group.plan.read(streams)
        return [
            self._residual(i, group.x[rows], {index: d[rows] for index, d in derivatives.items()})
            for i, rows in zip(group.members, group.slices, strict=True)
        ]

    def _residual(self, i: int, x: Tensor, derivatives: Mapping[str, Tensor]) -> Tensor:
        term = self.terms[i]
        columns = {
            name: derivatives[index][:, self.pde.fields.index(field)]
            for name, (field, index) in self._parsed[i].items()
        }
        residual = term.residual(self.pde.columns(x), Columns(columns, f"loss term {term.name!r}"))
        if residual.dim() not in (1, 2) or len(residual) != len(x):
            raise ProblemError(
                f"loss term {term.name!r}: the residual has shape {list(residual.shape)}, "
                f"expected [{len(x)}] or [{len(x)}, m]"
            )
        return residual[:, None] if residual.dim() == 1 else residual

    def _rows(self, group: Group) -> tuple[list[Tensor], list[RowBlock]]:
        """Residuals of a group and its factored Jacobian rows, one block per residual component."""
        with torch.enable_grad():
            uses: list[LinearUse] = []
            residuals = self._group_residuals(group, uses=uses)
            blocks = row_blocks(uses, _stack_rows(residuals), self._names())
        return [r.detach() for r in residuals], blocks

    def _names(self) -> dict[int, str]:
        return {id(p): name for name, p in self.network.named_parameters() if p.requires_grad}

    def _block_diagonals(self, passes: Sequence[tuple[Group, Sequence[RowBlock]]]) -> tuple[Tensor, ...]:
        diagonals: dict[int, Tensor] = {}
        for group, blocks in passes:
            diagonal, *more = (block.diagonal(group.x) for block in blocks)
            for other in more:
                diagonal = diagonal + other
            for i, rows in zip(group.members, group.slices, strict=True):
                diagonals[i] = diagonal[rows]
        return tuple(diagonals[i] for i in range(len(self.terms)))

    @staticmethod
    def _weigh(diagonals: Callable[[], tuple[Tensor, ...]], weigh: Weigh) -> tuple[Tensor, Tensor, float]:
        start = time.perf_counter()
        traces = torch.stack([d.sum() for d in diagonals()])
        weights = weigh(traces)
        return weights, traces, time.perf_counter() - start

    def _term_function(self, group: Group, i: int) -> RowFunction:
        """The residual of term i as a function of trainable parameters and points, ``[N, m]``."""

        def function(parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
            derivatives = group.plan.read(output_streams(self.network, x, group.plan, parameters))
            return self._residual(i, x, derivatives)

        return function


def _stack_rows(residuals: Sequence[Tensor]) -> Tensor:
    """Residuals ``[N_i, m_i]`` of several terms on top of each other, ``[N, max m_i]``, filled up with zeros."""
    width = max(r.shape[1] for r in residuals)
    padded = [r if r.shape[1] == width else torch.nn.functional.pad(r, (0, width - r.shape[1])) for r in residuals]
    return torch.cat(padded) if len(padded) > 1 else padded[0]
