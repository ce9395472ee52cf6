"""Time marching: a problem trained on one part of time after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ntkrun.geometry import TIME, Box, Domain, Face, Product, Table
from ntkrun.jets import plan_streams
from ntkrun.network import output_streams
from ntkrun.pde import PDE, Columns, ProblemError, Reference, Term
from ntkrun.pde.continuation import continuation
from ntkrun.pde.normal import normal_derivatives


class TimeWindow(PDE):
    """A problem on one of several parts of its time interval.

    In every window but the first, the terms at the initial time ask for continuity instead: what they
    read of the solution (u, u_t, ...) must equal what the network of the window before gives there.

    The time of a window may grow along its training (``growing``): the network's own time s goes from the start a to
    the end of the window all along, and stands for t = a + c (s - a), where c goes from ``growing`` to 1. Rates are
    u_t = u_s / c, so that early on the same network has a shorter time to learn, and then follows the solution as this
    becomes longer.

    Args:
        whole: the problem on all of time.
        index: the window, from 0.
        count: number of windows.
        before: the network of the window before, ``None`` in the first.
        growing: the part of the window that training begins with; all of it by default.
        ends: of the windows so far, where these are not equal parts of time.

    Raises:
        ProblemError: the problem cannot be split in time, or its time cannot grow.
    """

    def __init__(
        self,
        whole: PDE,
        index: int,
        count: int,
        before: nn.Module | None,
        growing: float | None = None,
        ends: Sequence[float] = (),
    ) -> None:
        if TIME not in whole.coordinates:
            raise ProblemError(f"time_windows={count}: the problem has no coordinate {TIME}")
        self.growing = growing
        if growing is not None and (reason := at_fixed_times(whole)):
            raise ProblemError(f"growing_time={growing:g}: {reason}")
        if whole.coefficients:
            raise ProblemError(f"time_windows={count}: the unknown coefficients belong to all of time")
        if forever := [field for field, letters in whole.depends.items() if TIME not in letters]:
            raise ProblemError(f"time_windows={count}: the field {forever[0]} belongs to all of time")
        self.whole = whole
        self.depends = whole.depends
        self.supports = whole.supports
        self._before = before
        self._start, self._end = time_edges(whole.domain, count, ends)[index : index + 2]
        self.domain = _with_time(whole.domain, self._start, self._end)
        self.fields = whole.fields  # type: ignore[misc]
        self.periods = whole.periods
        self.built_in = whole.built_in
        self.measurements = {field: self._measured(field, table) for field, table in whole.measurements.items()}

    def terms(self) -> tuple[Term, ...]:
        clipped = tuple(self._clipped(term) for term in self.whole.terms())
        return clipped if self.growing is None else tuple(self._grown(term, self.growing) for term in clipped)

    @property
    def constrains(self) -> bool:
        return self.whole.constrains

    def constrain(self, x: Columns, u: Columns) -> tuple[Any, ...]:
        return self.whole.constrain(x, u)

    def features(self, x: Columns) -> tuple[Any, ...]:
        return self.whole.features(x)

    def exact(self, x: Columns) -> Tensor | None:
        return self.whole.exact(x)

    def reference(self) -> Reference | None:
        reference = self.whole.reference()
        if reference is None:
            return None
        slack = 1e-9 * (self._end - self._start)
        inside = (reference.axes[TIME] >= self._start - slack) & (reference.axes[TIME] <= self._end + slack)
        if not inside.any():
            return None
        axis = self.coordinates.index(TIME)
        values = np.compress(inside, reference.values, axis=axis)
        return Reference({**reference.axes, TIME: reference.axes[TIME][inside]}, values)

    def _measured(self, field: str, table: Table) -> Table:
        """The rows of this window; one at an end between two belongs to the earlier."""
        time = table.rows[:, self.coordinates.index(TIME)]
        first = self._start == self.whole.domain.low[TIME]
        inside = ((time >= self._start) if first else (time > self._start)) & (time <= self._end)
        if not bool(inside.any()):
            raise ProblemError(
                f"time_windows: no value of {field} was measured between t={self._start:g} and t={self._end:g}"
            )
        return replace(table, rows=table.rows[inside])

    def _clipped(self, term: Term) -> Term:
        start, end = self.whole.domain.low[TIME], self.whole.domain.high[TIME]
        boxes = tuple(box for box in term.region if isinstance(box, (Box, Face, Product)))
        if len(boxes) < len(term.region):
            raise ProblemError(f"time_windows: loss term {term.name!r} does not live on boxes or products with time")
        if any(TIME in each.coordinates for each in term.integrals.values()):
            raise ProblemError(f"time_windows: an integral of loss term {term.name!r} reaches beyond a window")
        if TIME in (term.partner or ()):
            raise ProblemError(f"time_windows: loss term {term.name!r} reads the solution at other times")
        times = {(box.low[TIME], box.high[TIME]) for box in boxes}
        if times == {(start, end)}:
            region = tuple(_part_with_time(box, self._start, self._end) for box in boxes)
            return replace(term, region=region)
        if times != {(start, start)}:
            raise ProblemError(
                f"time_windows: loss term {term.name!r} lives neither on all of time nor at the initial time"
            )
        if term.name in (self.built_in or ()):
            raise ProblemError(f"time_windows: the condition {term.name!r} is built in for the initial time only")
        if self._before is None:
            return term
        if term.integrals:
            raise ProblemError(f"time_windows: the initial condition {term.name!r} has integrals")
        if along := normal_derivatives(term, self.whole):
            raise ProblemError(f"time_windows: the initial condition {term.name!r} reads {along[0].name}, not u_{TIME}")
        region = tuple(_part_with_time(box, self._start, self._start) for box in boxes)
        return replace(term, region=region, residual=self._continuity(term, self._before), partner=None)

    def _grown(self, term: Term, first: float) -> Term:
        """The term in the network's own time."""
        read = tuple(dict.fromkeys([*term.derivatives, *(n for each in term.operators.values() for n in each)]))
        orders = {name: name.partition("_")[2].count(TIME) for name in read}

        def residual(x: Columns, d: Columns) -> Tensor:
            part = continuation(x, first, 1.0)
            time = self._start + part * (getattr(x, TIME) - self._start)
            rates = {name: getattr(d, name) / part**order for name, order in orders.items()}
            whole = {n: sum(a * rates[each] for each, a in f.items()) for n, f in term.operators.items()}
            return term.residual(x.changed({TIME: time}), d.changed(rates | whole))

        return replace(term, derivatives=read, operators={}, residual=residual)

    def _continuity(self, term: Term, before: nn.Module) -> Any:
        parsed = term.reads(self.fields, self.coordinates)
        plan = plan_streams(dict.fromkeys(index for _, index in parsed.values()), self.coordinates)

        def residual(x: Columns, d: Columns) -> Tensor:
            points = torch.stack([getattr(x, c) for c in self.coordinates], dim=1)
            known = plan.read(output_streams(before, points, plan))
            jumps = [
                getattr(d, name) - known[index][:, self.fields.index(field)] for name, (field, index) in parsed.items()
            ]
            return torch.stack(jumps, dim=1)

        return residual


class Piecewise(nn.Module):
    """The networks of successive time windows as one function of the points, ``[N, d]`` to ``[N, fields]``.

    Args:
        networks: of the windows so far; the last one also serves all later times.
        starts: of these windows.
        axis: the column of time.
    """

    def __init__(self, networks: Sequence[nn.Module], starts: Sequence[float], axis: int) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self._starts = tuple(starts)
        self._axis = axis

    def forward(self, x: Tensor) -> Tensor:
        plan = plan_streams([""], [str(i) for i in range(x.shape[1])])
        values: list[Tensor] = [output_streams(network, x, plan)[0] for network in self.networks]
        return joined(values, x[:, self._axis], self._starts[1:])


def joined(values: Sequence[Tensor], time: Tensor, starts: Sequence[float]) -> Tensor:
    """The values of each point's own window, ``[N, k]``; what lies on an edge belongs to the earlier one.

    Args:
        values: of every window at all points, ``[N, k]`` each.
        time: of the points, ``[N]``.
        starts: of the windows but the first.
    """
    result = values[0]
    for start, value in zip(starts, values[1:], strict=True):
        result = torch.where(time[:, None] > start, value, result)
    return result


def chosen(domain: Domain, ends: Sequence[float]) -> bool:
    """Whether a run has chosen other time windows, with these ends, than one of all of time."""
    return tuple(ends) not in ((), (domain.high.get(TIME),))


def window_edges(domain: Domain, count: int, ends: Sequence[float] = ()) -> list[float]:
    """As ``time_edges``, but empty where there is one window of all of time."""
    return time_edges(domain, count, ends) if count > 1 or chosen(domain, ends) else []


def time_edges(domain: Domain, count: int, ends: Sequence[float] = ()) -> list[float]:
    """The ends of windows of a domain's time interval, the first of them its start.

    Args:
        domain: of the problem on all of time.
        count: number of windows, where they are equal.
        ends: those of unequal windows so far.
    """
    start, end = domain.low[TIME], domain.high[TIME]
    if ends:
        return [start, *ends]
    return [*(start + (end - start) * k / count for k in range(count)), end]


def frozen(network: nn.Module) -> nn.Module:
    """The network in evaluation mode with no trainable parameters."""
    return network.eval().requires_grad_(False)


def growing(pde: PDE) -> float | None:
    """The part of its time that the training of a problem begins with, if it is not all."""
    return pde.growing if isinstance(pde, TimeWindow) else None


def may_grow(pde: PDE) -> bool:
    """Whether the time of a problem could grow, and does not yet."""
    return TIME in pde.coordinates and growing(pde) is None and not at_fixed_times(pde)


def may_march(pde: PDE) -> bool:
    """Whether a problem can be split in time."""
    try:
        TimeWindow(pde, 1, 2, nn.Identity()).terms()
    except ProblemError:
        return False
    return True


def at_fixed_times(pde: PDE) -> str:
    """What of a problem belongs to times that a growing one would move; empty where there is nothing."""
    if pde.coefficients:
        return "the unknown coefficients belong to all of time"
    if forever := [field for field, letters in pde.depends.items() if TIME not in letters]:
        return f"the field {forever[0]} belongs to all of time"
    if pde.measurements:
        return "values were measured at times of their own"
    if pde.constrains:
        return "constrain is a function of all of time"
    for term in pde.terms():
        if term.integrals or term.partner:
            return f"loss term {term.name!r} has integrals or a partner"
    return ""


def _with_time(domain: Domain, start: float, end: float) -> Box | Product:
    if isinstance(domain, Product):
        return domain.with_interval(TIME, start, end)
    return Box({**domain.low, TIME: start}, {**domain.high, TIME: end})


def _part_with_time(region: Box | Face | Product, start: float, end: float) -> Box | Face | Product:
    if isinstance(region, Face):
        return replace(region, box=Box({**region.low, TIME: start}, {**region.high, TIME: end}))
    return _with_time(region, start, end)
