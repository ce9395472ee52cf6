"""The loss terms of a problem under one network: points in groups, and residual rows at them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ntkrun.geometry import Sampler
from ntkrun.jets import LinearUse, StreamPlan, UnknownDerivativeError, parse_derivative, plan_streams
from ntkrun.network.base import output_streams
from ntkrun.ntk.jacobian import ParameterLayout
from ntkrun.ntk.per_point import RowFunction
from ntkrun.pde import PDE, Columns, ProblemError, Term

PROBE_POINTS = 3
SMALL = 0.1  # the most that a joined group may add to the work of another


@dataclass(frozen=True)
class Group:
    """Terms that need the same derivatives and share one forward pass.

    Attributes:
        plan: their streams.
        members: indices of the terms.
        slices: the rows of ``x`` that belong to each member.
        x: the points of all members, ``[N, d]``.
        shift: translation to the partner points of its terms, ``[d]``, or ``None``.
        scales: factors of every member's rows, ``[N_i, 1]`` or ``[N_i, m_i]``, or ``None``: square roots of
            its point weights.
    """

    plan: StreamPlan
    members: tuple[int, ...]
    slices: tuple[slice, ...]
    x: Tensor
    shift: Tensor | None = None
    scales: tuple[Tensor, ...] | None = None


Batch = tuple[Group, ...]

Derivatives = Mapping[str, Tensor]
"""Derivatives by multi-index, ``[N, fields]`` each."""


class Residuals:
    """Residual rows of one problem under one network.

    Args:
        pde: the problem.
        network: a ``JetNetwork``, or any module mapping ``[N, d]`` to ``[N, fields]`` row by row.

    Attributes:
        terms, names: the loss terms and their names, without those that hold by construction.
        built_in: names of the terms that hold by construction.
        components: residuals per point of every term.
        trainable: the trainable parameters by name.
        layout: their order in one vector.

    Raises:
        ProblemError: the problem's definition does not fit itself or the network.
    """

    def __init__(self, pde: PDE, network: nn.Module) -> None:
        self.pde = pde
        self.network = network
        terms = pde.terms()
        names = [term.name for term in terms]
        if len(set(names)) < len(names):
            raise ProblemError(f"two loss terms share a name: {', '.join(names)}")
        self.terms = tuple(term for term in terms if not self._holds_by_construction(term))
        if not self.terms:
            raise ProblemError("there are no loss terms")
        self.names = tuple(term.name for term in self.terms)
        self.built_in = tuple(name for name in names if name not in self.names)
        self.trainable = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.layout = ParameterLayout(network)
        self._parsed = [self._parse(term) for term in self.terms]
        self._plans = self._plan_groups()
        self.components = self._probe(self.probe_batch())

    def batch(self, points: Mapping[str, Tensor]) -> Batch:
        """Gather the points of terms with equal needs, and those of few points with others that need more.

        Args:
            points: the points of each term by name, ``[N_i, d]``, of the network's dtype and device.
        """
        batch = []
        for plan, members in self._join_small([len(points[name]) for name in self.names]):
            partner = self.terms[members[0]].partner
            parts = [points[self.names[i]] for i in members]
            slices, start = [], 0
            for part in parts:
                slices.append(slice(start, start + len(part)))
                start += len(part)
            shift = (
                None if partner is None else self.like.new_tensor([partner.get(c, 0.0) for c in self.pde.coordinates])
            )
            batch.append(Group(plan, members, tuple(slices), torch.cat(parts), shift))
        return tuple(batch)

    def weigh_points(self, batch: Batch, point_weights: Mapping[str, Tensor]) -> Batch:
        """The batch with the squared residuals of its points weighted.

        Rows are multiplied by the square roots of the weights w, so that L_i = mean(w r_i^2), and every
        kernel is that of these rows: tr K_ii = sum_k w_k K_kk.

        Args:
            batch: the points.
            point_weights: by term, ``[N_i, 1]`` or one column per residual, ``[N_i, m_i]``; at least 0.
        """
        roots = {name: w.detach().sqrt() for name, w in point_weights.items()}
        return tuple(replace(g, scales=tuple(roots[self.names[i]] for i in g.members)) for g in batch)

    def subset(self, batch: Batch, chosen: Sequence[Tensor]) -> Batch:
        """The batch of the ``chosen`` point indices of each term."""
        points, device = self.points(batch), self.like.device
        rows = {name: k.to(device) for name, k in zip(self.names, chosen, strict=True)}
        subset = self.batch({name: points[name][rows[name]] for name in self.names})
        scales = {self.names[i]: s for g in batch if g.scales for i, s in zip(g.members, g.scales, strict=True)}
        if not scales:
            return subset
        return tuple(
            replace(g, scales=tuple(scales[self.names[i]][rows[self.names[i]]] for i in g.members)) for g in subset
        )

    def points(self, batch: Batch) -> dict[str, Tensor]:
        """The points of each term by name, ``[N_i, d]``: what the batch was made from."""
        return {self.names[i]: g.x[rows] for g in batch for i, rows in zip(g.members, g.slices, strict=True)}

    def point_counts(self, batch: Batch) -> tuple[int, ...]:
        """The number of points of every term."""
        points = self.points(batch)
        return tuple(len(points[name]) for name in self.names)

    def row_counts(self, batch: Batch) -> tuple[int, ...]:
        """N_i of every term: points times residuals per point."""
        return tuple(n * m for n, m in zip(self.point_counts(batch), self.components, strict=True))

    def probe_batch(self) -> Batch:
        """A few points of every term, for first checks of a definition."""
        points = {
            t.name: Sampler(t.region, PROBE_POINTS, "uniform", i).draw().to(self.like) for i, t in enumerate(self.terms)
        }
        return self.batch(points)

    def residuals(self, batch: Batch, parameters: Mapping[str, Tensor] | None = None) -> tuple[Tensor, ...]:
        """The rows r_i of every term, ``[N_i]`` each; with m residuals per point, one component after the other.

        Args:
            batch: the points.
            parameters: values used in place of the network's own.
        """
        rows: list[Tensor] = [torch.empty(0)] * len(self.terms)
        for group in batch:
            for k, (i, residual) in enumerate(zip(group.members, self.group_residuals(group, parameters), strict=True)):
                rows[i] = (residual if group.scales is None else residual * group.scales[k]).T.flatten()
        return tuple(rows)

    def term_functions(self, batch: Batch) -> tuple[Callable[[Mapping[str, Tensor]], Tensor], ...]:
        """For every term, its rows r_i, ``[N_i]``, as a function of the trainable parameters alone."""

        def at(function: RowFunction, x: Tensor, scale: Tensor | None) -> Callable[[Mapping[str, Tensor]], Tensor]:
            if scale is None:
                return lambda parameters: function(parameters, x).T.flatten()
            return lambda parameters: (function(parameters, x) * scale).T.flatten()

        functions = {
            i: at(self.term_function(group, i), group.x[rows], None if group.scales is None else group.scales[k])
            for group in batch
            for k, (i, rows) in enumerate(zip(group.members, group.slices, strict=True))
        }
        return tuple(functions[i] for i in range(len(self.terms)))

    def group_residuals(
        self,
        group: Group,
        parameters: Mapping[str, Tensor] | None = None,
        uses: list[LinearUse] | None = None,
    ) -> list[Tensor]:
        """Residuals of every member before any point weights, ``[N_i, m_i]`` each."""
        derivatives = self._derivatives(group, group.x, parameters, uses)
        partners = None
        if group.shift is not None:
            partners = self._derivatives(group, group.x + group.shift, parameters, uses)
        return [
            self._residual(i, group.x[rows], _rows_of(derivatives, rows), partners and _rows_of(partners, rows))
            for i, rows in zip(group.members, group.slices, strict=True)
        ]

    def _derivatives(
        self,
        group: Group,
        x: Tensor,
        parameters: Mapping[str, Tensor] | None = None,
        uses: list[LinearUse] | None = None,
    ) -> Derivatives:
        """What the group's plan reads, at ``x``, ``[N, fields]`` for each multi-index."""
        streams = output_streams(self.network, x, group.plan, parameters, uses)
        if streams.shape[-1] != len(self.pde.fields):
            raise ProblemError(
                f"the network has {streams.shape[-1]} outputs; the fields are {', '.join(self.pde.fields)}"
            )
        return group.plan.read(streams)

    def _residual(self, i: int, x: Tensor, derivatives: Derivatives, partners: Derivatives | None = None) -> Tensor:
        term = self.terms[i]
        what = f"loss term {term.name!r}"

        def columns(read: Derivatives, partner: Columns | None = None) -> Columns:
            named = {
                name: read[index][:, self.pde.fields.index(field)] for name, (field, index) in self._parsed[i].items()
            }
            return Columns(named, what, partner)

        partner = None if partners is None else columns(partners)
        residual = term.residual(self.pde.columns(x), columns(derivatives, partner))
        if not isinstance(residual, Tensor):
            raise ProblemError(f"{what}: the residual is of type {type(residual).__name__}, expected a tensor")
        if residual.dim() not in (1, 2) or len(residual) != len(x):
            raise ProblemError(
                f"{what}: the residual has shape {list(residual.shape)}, expected [{len(x)}] or [{len(x)}, m]"
            )
        return residual[:, None] if residual.dim() == 1 else residual

    def _probe(self, probe: Batch) -> tuple[int, ...]:
        """Try every term on a few points; returns the residuals per point.

        Raises:
            ProblemError: what is wrong, in one line, and in which term.
        """
        components = [0] * len(self.terms)
        for group in probe:
            at = [group.x] if group.shift is None else [group.x, group.x + group.shift]
            try:
                derivatives = [self._derivatives(group, x) for x in at]
            except ProblemError:
                raise
            except Exception as error:
                raise ProblemError(
                    f"the network fails on points {list(group.x.shape)}: {_first_line(error)}"
                ) from error
            # Leaves of a graph of their own, to see whether a residual reads them.
            leaves = [{k: d.detach().requires_grad_() for k, d in each.items()} for each in derivatives]
            for i, rows in zip(group.members, group.slices, strict=True):
                components[i] = self._probe_term(i, group.x[rows], [_rows_of(each, rows) for each in leaves])
        return tuple(components)

    def _probe_term(self, i: int, x: Tensor, derivatives: list[Derivatives]) -> int:
        what = f"loss term {self.names[i]!r}"
        try:
            with torch.enable_grad():
                residual = self._residual(i, x, *derivatives)
        except ProblemError:
            raise
        except Exception as error:
            raise ProblemError(f"{what}: its residual fails with {_first_line(error)}") from error
        if not residual.requires_grad:
            raise ProblemError(f"{what}: the residual does not depend on the network")
        for point, row in zip(x.tolist(), residual, strict=True):
            if not torch.isfinite(row).all():
                place = ", ".join(f"{c}={value:.6g}" for c, value in zip(self.pde.coordinates, point, strict=True))
                raise ProblemError(f"{what}: the residual is not finite at {place}")
        return residual.shape[1]

    def _holds_by_construction(self, term: Term) -> bool:
        """Whether the problem's constraint or the network's periodicity satisfies a term."""
        if term.name in self.pde.built_in:
            return True
        periodic = term.partner is not None and term.partner.items() <= self.pde.periods.items()
        return periodic and getattr(self.network, "periodic", False)

    @property
    def like(self) -> Tensor:
        """A parameter, for its dtype and device."""
        return next(self.network.parameters())

    def parameter_vector(self) -> Tensor:
        """The trainable parameters as one vector, ``[P]``, detached."""
        return self.layout.flatten(self.detached())

    def detached(self) -> dict[str, Tensor]:
        """The trainable parameters by name, outside of any graph."""
        return {name: p.detach() for name, p in self.trainable.items()}

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

    def _set_parameters(self, vector: Tensor) -> None:
        values = self.layout.unflatten(vector)
        with torch.no_grad():
            for name, parameter in self.trainable.items():
                parameter.copy_(values[name])

    def _parse(self, term: Term) -> dict[str, tuple[str, str]]:
        try:
            return {name: parse_derivative(name, self.pde.fields, self.pde.coordinates) for name in term.derivatives}
        except UnknownDerivativeError as error:
            raise ProblemError(f"loss term {term.name!r}, derivative {error}") from None

    def _plan_groups(self) -> list[tuple[StreamPlan, tuple[int, ...]]]:
        """The stream plans needed, each with the terms that share it."""
        groups: dict[tuple[frozenset[str], Any], list[int]] = {}
        for i, parsed in enumerate(self._parsed):
            partner = self.terms[i].partner
            key = frozenset(index for _, index in parsed.values()), partner and frozenset(partner.items())
            groups.setdefault(key, []).append(i)
        return [
            (plan_streams(sorted(indices), self.pde.coordinates), tuple(members))
            for (indices, _), members in groups.items()
        ]

    def _join_small(self, counts: Sequence[int]) -> list[tuple[StreamPlan, tuple[int, ...]]]:
        """The groups, those joined to a larger one whose streams serve them and whose work they hardly add to.

        A pass costs as much for two points as for fifty; a few rows that carry unused streams cost nothing.
        Terms with partner points stay by themselves, for they take two passes.
        """
        groups = sorted(self._plans, key=lambda group: -group[0].streams * sum(counts[i] for i in group[1]))
        joined: list[tuple[StreamPlan, tuple[int, ...]]] = []
        for plan, members in groups:
            rows = sum(counts[i] for i in members)
            for k, (larger, others) in enumerate(joined):
                work = larger.streams * sum(counts[i] for i in others)
                serves = {index for index, _ in plan.recipes} <= {index for index, _ in larger.recipes}
                alone = any(self.terms[i].partner for i in (members[0], others[0]))
                if serves and not alone and larger.streams * rows <= SMALL * work:
                    joined[k] = (larger, (*others, *members))
                    break
            else:
                joined.append((plan, members))
        return joined

    def term_function(self, group: Group, i: int) -> RowFunction:
        """The residual of term i as a function of trainable parameters and points, ``[N, m]``."""

        def function(parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
            derivatives = self._derivatives(group, x, parameters)
            if group.shift is None:
                return self._residual(i, x, derivatives)
            return self._residual(i, x, derivatives, self._derivatives(group, x + group.shift, parameters))

        return function


def _rows_of(derivatives: Derivatives, rows: slice) -> Derivatives:
    return {index: d[rows] for index, d in derivatives.items()}


def _first_line(error: Exception) -> str:
    text = str(error).splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
