"""The loss terms of a problem under one network: points in groups, and residual rows at them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

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
    """

    plan: StreamPlan
    members: tuple[int, ...]
    slices: tuple[slice, ...]
    x: Tensor


Batch = tuple[Group, ...]


class Residuals:
    """Residual rows of one problem under one network.

    Args:
        pde: the problem.
        network: a ``JetNetwork``, or any module mapping ``[N, d]`` to ``[N, fields]`` row by row.

    Attributes:
        terms, names: the loss terms and their names.
        components: residuals per point of every term.
        trainable: the trainable parameters by name.
        layout: their order in one vector.

    Raises:
        ProblemError: the problem's definition does not fit itself or the network.
    """

    def __init__(self, pde: PDE, network: nn.Module) -> None:
        self.pde = pde
        self.network = network
        self.terms = pde.terms()
        self.names = tuple(term.name for term in self.terms)
        if len(set(self.names)) < len(self.names):
            raise ProblemError(f"two loss terms share a name: {', '.join(self.names)}")
        self.trainable = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.layout = ParameterLayout(network)
        self._parsed = [self._parse(term) for term in self.terms]
        self._plans = self._plan_groups()
        probe = self.probe_batch()
        self.components = tuple(
            len(rows) // n for rows, n in zip(self.residuals(probe), self.point_counts(probe), strict=True)
        )

    def batch(self, points: Mapping[str, Tensor]) -> Batch:
        """Gather the points of terms with equal needs, and those of few points with others that need more.

        Args:
            points: the points of each term by name, ``[N_i, d]``, of the network's dtype and device.
        """
        batch = []
        for plan, members in self._join_small([len(points[name]) for name in self.names]):
            parts = [points[self.names[i]] for i in members]
            slices, start = [], 0
            for part in parts:
                slices.append(slice(start, start + len(part)))
                start += len(part)
            batch.append(Group(plan, members, tuple(slices), torch.cat(parts)))
        return tuple(batch)

    def subset(self, batch: Batch, chosen: Sequence[Tensor]) -> Batch:
        """The batch of the ``chosen`` point indices of each term."""
        points, device = self.points(batch), self.like.device
        return self.batch({name: points[name][k.to(device)] for name, k in zip(self.names, chosen, strict=True)})

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
            for i, residual in zip(group.members, self.group_residuals(group, parameters), strict=True):
                rows[i] = residual.T.flatten()
        return tuple(rows)

    def term_functions(self, batch: Batch) -> tuple[Callable[[Mapping[str, Tensor]], Tensor], ...]:
        """For every term, its rows r_i, ``[N_i]``, as a function of the trainable parameters alone."""

        def at(function: RowFunction, x: Tensor) -> Callable[[Mapping[str, Tensor]], Tensor]:
            return lambda parameters: function(parameters, x).T.flatten()

        functions = {
            i: at(self.term_function(group, i), group.x[rows])
            for group in batch
            for i, rows in zip(group.members, group.slices, strict=True)
        }
        return tuple(functions[i] for i in range(len(self.terms)))

    def group_residuals(
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
        groups: dict[frozenset[str], list[int]] = {}
        for i, parsed in enumerate(self._parsed):
            groups.setdefault(frozenset(index for _, index in parsed.values()), []).append(i)
        return [
            (plan_streams(sorted(indices), self.pde.coordinates), tuple(members)) for indices, members in groups.items()
        ]

    def _join_small(self, counts: Sequence[int]) -> list[tuple[StreamPlan, tuple[int, ...]]]:
        """The groups, those joined to a larger one whose streams serve them and whose work they hardly add to.

        A pass costs as much for two points as for fifty; a few rows that carry unused streams cost nothing.
        """
        groups = sorted(self._plans, key=lambda group: -group[0].streams * sum(counts[i] for i in group[1]))
        joined: list[tuple[StreamPlan, tuple[int, ...]]] = []
        for plan, members in groups:
            rows = sum(counts[i] for i in members)
            for k, (larger, others) in enumerate(joined):
                work = larger.streams * sum(counts[i] for i in others)
                serves = {index for index, _ in plan.recipes} <= {index for index, _ in larger.recipes}
                if serves and larger.streams * rows <= SMALL * work:
                    joined[k] = (larger, (*others, *members))
                    break
            else:
                joined.append((plan, members))
        return joined

    def term_function(self, group: Group, i: int) -> RowFunction:
        """The residual of term i as a function of trainable parameters and points, ``[N, m]``."""

        def function(parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
            derivatives = group.plan.read(output_streams(self.network, x, group.plan, parameters))
            return self._residual(i, x, derivatives)

        return function
