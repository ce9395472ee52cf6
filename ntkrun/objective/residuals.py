"""The loss terms of a problem under one network: points in groups, and residual rows at them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import accumulate
from typing import TypeVar

import torch
from torch import Tensor, nn

from ntkrun.backend.transfer import constant, moved
from ntkrun.common.user_frames import written
from ntkrun.geometry import Sampler
from ntkrun.jacobian.operators import ParameterLayout
from ntkrun.jacobian.per_point import RowFunction
from ntkrun.jets import Index, LinearUse, StreamPlan, UnknownDerivativeError
from ntkrun.network.base import output_streams
from ntkrun.objective.batch import Batch, Derivatives, Group, Plans, join_small, plan_groups, rows_of, widened
from ntkrun.objective.quadrature import quadratures
from ntkrun.objective.validation import probe, values
from ntkrun.pde import PDE, Columns, ProblemError, Term
from ntkrun.pde.check import place
from ntkrun.pde.integral import place_of
from ntkrun.pde.measured import loss_terms
from ntkrun.pde.normal import NormalDerivative, normal_derivatives, oriented

PROBE_POINTS = 3
AT_A_TIME = 4096  # points that are looked at for one that is bad
ALIGNED_ROWS = 16  # rows that fill cache lines of 64 bytes, whatever the coordinates

Result = TypeVar("Result")


class _Scope(nn.Module):
    """Lets ``functional_call`` act on the network while anything is done with it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, act: Callable[[], Result]) -> Result:
        return act()


class Residuals:
    """Residual rows of one problem under one network.

    Args:
        pde: the problem.
        network: a ``JetNetwork``, or any module mapping ``[N, d]`` to ``[N, fields]`` row by row.

    Attributes:
        terms, names: the loss terms and their names, without hard constraints.
        built_in: names of the terms that are hard constraints.
        widths: columns of every term's points: the coordinates and what they carry beyond them.
        components: residuals per point of every term.
        trainable: the trainable parameters by name.
        layout: their order in one vector.
        integrals: those of every term.
        progress: how much of the training is done, from 0 to 1; residuals may read it.
        changing: by term, what its residual changes when it is evaluated, though it should be a function.
        mixing: the terms whose residual at a point reads what is known at others.

    Raises:
        ProblemError: the problem's definition does not fit itself or the network.
    """

    def __init__(self, pde: PDE, network: nn.Module) -> None:
        self.pde = pde
        self.network = network
        terms = tuple(oriented(term, pde) for term in loss_terms(pde))
        names = [term.name for term in terms]
        if len(set(names)) < len(names):
            raise ProblemError(f"two loss terms share a name: {', '.join(names)}")
        self.terms = tuple(term for term in terms if not self._holds_by_construction(term))
        if not self.terms:
            raise ProblemError("there are no loss terms")
        self.names = tuple(term.name for term in self.terms)
        self.built_in = tuple(name for name in names if name not in self.names)
        self.widths = tuple(len(pde.coordinates) + len(term.columns) for term in self.terms)
        self.trainable: dict[str, Tensor] = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.layout = ParameterLayout(network)
        self._normals = [normal_derivatives(term, pde) for term in self.terms]
        self._parsed = [self._parse(term, normals) for term, normals in zip(self.terms, self._normals, strict=True)]
        self.integrals = [quadratures(term, pde.outputs, pde.coordinates) for term in self.terms]
        needs = [frozenset(index for _, index in parsed.values()) for parsed in self._parsed]
        self._plans = plan_groups(self.terms, needs, pde.coordinates)
        self._joined: dict[tuple[int, ...], Plans] = {}
        self.progress = self.like.new_zeros(())
        self.components, self.changing, self.mixing = probe(self, self.probe_batch())

    def batch(self, points: Mapping[str, Tensor]) -> Batch:
        """Gather the points of terms with equal needs, and those of few points with others that need more.

        Args:
            points: the points of each term by name, ``[N_i, d + k_i]``, of the network's dtype and device.
        """
        (batch,) = self.batches({name: x[None] for name, x in points.items()})
        return batch

    def batches(self, points: Mapping[str, Tensor]) -> list[Batch]:
        """The batches of several draws, gathered at a time.

        Args:
            points: the points of each term by name, ``[K, N_i, d + k_i]``, of the network's dtype and device.
        """
        groups = []
        for plan, members in self._groups(tuple(points[name].shape[1] for name in self.names)):
            partner = self.terms[members[0]].partner
            width = max(self.widths[i] for i in members)
            parts = [widened(points[self.names[i]], width) for i in members]
            ends = list(accumulate(part.shape[1] for part in parts))
            slices = tuple(slice(end - part.shape[1], end) for end, part in zip(ends, parts, strict=True))
            shift = None
            if partner is not None:
                distances = [0.0 if callable(at := partner.get(c, 0.0)) else at for c in self.pde.coordinates]
                shift = widened(constant(distances, self.like), width)
            # Products may round otherwise where a matrix lies elsewhere in a cache line, and resumed runs start there.
            draws, gap = len(parts[0]), -ends[-1] % ALIGNED_ROWS
            if draws > 1 and gap:
                parts.append(parts[0].new_zeros(draws, gap, width))
            x = torch.cat(parts, dim=1)[:, : ends[-1]]
            groups.append([Group(plan, members, slices, each, shift) for each in x.unbind()])
        return list(zip(*groups, strict=True))

    def residual_rows(self, counts: Mapping[str, int]) -> int:
        """Rows of the residuals of all terms, for so many points by term."""
        return sum(counts.get(name, 0) * m for name, m in zip(self.names, self.components, strict=True))

    def stream_rows(self, counts: Mapping[str, int]) -> int:
        """Rows that every layer sees in one evaluation: streams times points, partner points included.

        Args:
            counts: number of points by term.
        """
        numbers = tuple(counts[name] for name in self.names)
        return sum(
            sum(numbers[i] for i in members) * self._rows_per_point(plan, members[0])
            for plan, members in self._groups(numbers)
        )

    def _rows_per_point(self, plan: StreamPlan, i: int) -> int:
        nodes = sum(each.plan.streams * each.integral.count for each in self.integrals[i])
        return (plan.streams + nodes) * (1 if self.terms[i].partner is None else 2)

    def _groups(self, counts: tuple[int, ...]) -> Plans:
        """The terms that share passes where they have so many points; kept, for points may be drawn at every step."""
        if counts not in self._joined:
            self._joined[counts] = join_small(self._plans, self.terms, counts)
        return self._joined[counts]

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
        points = self.points(batch)
        rows = {name: moved(k, self.like, torch.int64) for name, k in zip(self.names, chosen, strict=True)}
        subset = self.batch({name: points[name][rows[name]] for name in self.names})
        scales = {self.names[i]: s for g in batch if g.scales for i, s in zip(g.members, g.scales, strict=True)}
        if not scales:
            return subset
        return tuple(
            replace(g, scales=tuple(scales[self.names[i]][rows[self.names[i]]] for i in g.members)) for g in subset
        )

    def points(self, batch: Batch) -> dict[str, Tensor]:
        """The points of each term by name, ``[N_i, d + k_i]``: what the batch was made from."""
        return {
            self.names[i]: g.x[rows, : self.widths[i]]
            for g in batch
            for i, rows in zip(g.members, g.slices, strict=True)
        }

    def point_counts(self, batch: Batch) -> tuple[int, ...]:
        """The number of points of every term."""
        counts = {i: rows.stop - rows.start for g in batch for i, rows in zip(g.members, g.slices, strict=True)}
        return tuple(counts[i] for i in range(len(self.terms)))

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
        derivatives = self.derivatives(group, group.x, parameters, uses)
        partners = None
        if group.shift is not None:
            partners = self.derivatives(group, self.partners(group, group.x), parameters, uses)
        return [
            self.residual(i, group.x[rows], rows_of(derivatives, rows), partners and rows_of(partners, rows))
            for i, rows in zip(group.members, group.slices, strict=True)
        ]

    def partners(self, group: Group, x: Tensor) -> Tensor:
        """The partner points of a group that has them, ``[N, d + k]``, for its points ``x`` or some of them.

        Raises:
            ProblemError: a function that says where they are gives no column.
        """
        moved_by = x if group.shift is None else x + group.shift
        term = self.terms[group.members[0]]
        places = {c: at for c, at in (term.partner or {}).items() if callable(at)}
        if not places:
            return moved_by
        columns, own = list(moved_by.unbind(1)), self.pde.columns(x[:, : len(self.pde.coordinates)])
        for c, at in places.items():
            what = f"loss term {term.name!r}: {c} of the partner"
            columns[self.pde.coordinates.index(c)] = place_of(at, own, x[:, 0], what)
        return torch.stack(columns, dim=1)

    def derivatives(
        self,
        group: Group,
        x: Tensor,
        parameters: Mapping[str, Tensor] | None = None,
        uses: list[LinearUse] | None = None,
    ) -> Derivatives:
        """What the group reads at ``x``, ``[N, d + k]``: ``[N, fields]`` for each index, ``[N, 1]`` for an integral."""
        at = x[:, : len(self.pde.coordinates)]
        streams = output_streams(self.network, at, group.plan, parameters, uses)
        if streams.shape[-1] != len(self.pde.outputs):
            raise ProblemError(
                f"the network has {streams.shape[-1]} outputs; expected are {', '.join(self.pde.outputs)}"
            )
        known: dict[Index, Tensor] = group.plan.read(streams)
        for each in self.integrals[group.members[0]]:  # a term with integrals is alone in its group
            known[each.key] = each.values(self.pde, self.network, at, self.progress, parameters, uses)
        return known

    @property
    def rules(self) -> tuple[str, ...]:
        """Integrals whose rule of quadrature is not exact for any polynomials, and by how much."""
        return tuple(
            f"{each.what}: {each.integral.count} nodes, relative error of the rule {each.integral.rule.error:.1g}"
            for of_term in self.integrals
            for each in of_term
            if each.integral.rule.error > 0
        )

    def residual(self, i: int, x: Tensor, derivatives: Derivatives, partners: Derivatives | None = None) -> Tensor:
        """The residual of term i at points ``[N, d + k]`` with these derivatives there, ``[N, m]``.

        Raises:
            ProblemError: it is no tensor of that shape.
        """
        term = self.terms[i]
        what = f"loss term {term.name!r}"
        columns = self.pde.columns(x[:, : self.widths[i]], self.progress, term.columns)

        def read_all(known: Derivatives) -> dict[str, Tensor]:
            read = self.read(i, known)
            return {**read, **{each.name: each.value(columns, read) for each in self._normals[i]}}

        partner = None if partners is None else Columns(read_all(partners), what)
        read = Columns(read_all(derivatives), what, partner)
        try:
            residual = term.residual(columns, read)
        except Exception as error:
            error.add_note(f"in the residual of term {term.name}, whose columns are of length {len(x)} there")
            raise
        if not isinstance(residual, Tensor):
            hint = "; is its return missing?" if residual is None else ""
            raise ProblemError(f"{what}: the residual is of type {type(residual).__name__}, expected a tensor{hint}")
        if residual.dim() not in (1, 2) or len(residual) != len(x):
            hint = "; stack residuals with dim=1" if residual.dim() == 2 and residual.shape[1] == len(x) else ""
            raise ProblemError(
                f"{what}: the residual has shape {list(residual.shape)}, expected [{len(x)}] or [{len(x)}, m]{hint}"
            )
        return residual[:, None] if residual.dim() == 1 else residual

    def read(self, i: int, derivatives: Derivatives) -> dict[str, Tensor]:
        """What the residual of term i reads, ``[N]`` by name."""
        parsed = self._parsed[i].items()
        known = {name: derivatives[index][:, self.pde.outputs.index(field)] for name, (field, index) in parsed}
        return {**known, **{each.name: derivatives[each.key][:, 0] for each in self.integrals[i]}}

    def bad_row(self, batch: Batch, i: int) -> str | None:
        """The first point at which the residual of term i is not finite, in words, with what it reads there."""
        (group,) = (group for group in batch if i in group.members)
        for x in group.x[group.slices[group.members.index(i)]].split(AT_A_TIME):
            with torch.no_grad():
                at = [x] if group.shift is None else [x, self.partners(group, x)]
                known = [self.derivatives(group, each) for each in at]
                bad = ~torch.isfinite(self.residual(i, x, *known)).all(1)
            if bad.any():
                k = int(bad.nonzero()[0])
                read = [self.read(i, rows_of(each, slice(k, k + 1))) for each in known]
                return f"{place(self.pde, x[k])}, where {values(*read)}"
        return None

    def _holds_by_construction(self, term: Term) -> bool:
        """Whether the problem's constraint or the network's periodicity satisfies a term."""
        if term.name in (self.pde.built_in or ()):
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

    def under(
        self,
        parameters: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        progress: Tensor,
        act: Callable[[], Result],
    ) -> Result:
        """Do something with other tensors in place of the network's trainable parameters and buffers and the progress.

        Args:
            parameters: all trainable parameters by name, leaves of a graph.
            buffers: buffers by name.
            progress: of the training, ``[]``.
            act: what to do.
        """
        own = self.trainable, self.progress
        self.trainable, self.progress = dict(parameters), progress
        tensors = {f"network.{name}": tensor for name, tensor in (*parameters.items(), *buffers.items())}
        try:
            result: Result = torch.func.functional_call(_Scope(self.network), tensors, (act,))
        finally:
            self.trainable, self.progress = own
        return result

    @contextmanager
    def at(self, vector: Tensor) -> Iterator[None]:
        """Put the trainable parameters at ``vector``, ``[P]``, while inside."""
        here = self.parameter_vector()
        self.move_to(vector)
        try:
            yield
        finally:
            self.move_to(here)

    def move_to(self, vector: Tensor) -> None:
        """Put the trainable parameters at ``vector``, ``[P]`` of any dtype."""
        values = self.layout.unflatten(vector)
        with torch.no_grad():
            for name, parameter in self.trainable.items():
                parameter.copy_(values[name])

    def _parse(self, term: Term, normals: Sequence[NormalDerivative]) -> dict[str, tuple[str, Index]]:
        """Field and index of what a term reads; of derivatives along normals, those that they are made from."""
        made = {each.name for each in normals}
        partial = [name for each in normals for name, *_ in each.parts]
        names = dict.fromkeys([*(name for name in term.derivatives if name not in made), *partial])
        try:
            return replace(term, derivatives=tuple(names)).reads(self.pde.outputs, self.pde.coordinates)
        except UnknownDerivativeError as error:
            raise ProblemError(f"loss term {term.name!r}, derivative {error}{written(term.residual)}") from None

    def term_function(self, group: Group, i: int) -> RowFunction:
        """The residual of term i as a function of trainable parameters and points, ``[N, m]``."""

        def function(parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
            derivatives = self.derivatives(group, x, parameters)
            if group.shift is None:
                return self.residual(i, x, derivatives)
            return self.residual(i, x, derivatives, self.derivatives(group, self.partners(group, x), parameters))

        return function
