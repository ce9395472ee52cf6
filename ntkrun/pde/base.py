"""The interface of problems: a domain, loss terms, and a solution to compare with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ntkrun.geometry import Domain, Region, Table
from ntkrun.jets import Index, parse_derivative, parse_operator
from ntkrun.pde.columns import Columns as Columns
from ntkrun.pde.columns import ProblemError as ProblemError
from ntkrun.pde.integral import Integral, Place

Residual = Callable[[Columns, Columns], Tensor]
"""``residual(x, d)``: coordinates and declared derivatives, columns of length N; returns ``[N]`` or ``[N, m]``.

It is a function of these alone, row by row. What changes along a run, it reads from ``x.progress``: a number that goes
from 0 at the first step to 1 at the last, of every time window. Whatever else it may have kept or counted, compiled
steps and resumed runs would not know."""


@dataclass(frozen=True)
class Term:
    """One loss term: an operator applied to the network minus its target, on a region.

    Attributes:
        name: the name used in configuration, CSV columns and plots.
        region: the boxes, or other regions, from which the term's points are drawn; their ``columns`` are alike.
        derivatives: what the residual reads, such as ``("u_tt", "u_xx")``; ``"u"`` is the value.
        residual: computes the residual rows.
        operators: linear operators with constant coefficients that it reads too, by a name of their own, such as
            ``{"wave": {"u_tt": 1.0, "u_xx": -4.0}}`` for ``d.wave``. Each is carried through the network as a whole,
            which costs less than its derivatives one by one.
        partner: other points at which the residual reads the derivatives too, as ``d.partner.u``: by coordinate a
            distance, such as ``{"x": 2.0}`` for periodic conditions and ``{"t": -1.0}`` for a delay, or a function of
            the point's coordinates that gives the partner's own, such as ``{"t": lambda x: x.t / 2}``.
        shares: of the boxes in the term's points, in any unit; without, by measure (length, area, volume), or equal
            where the boxes differ in their dimensions.
        integrals: integrals through each point that it reads too, by a name of their own, such as
            ``{"mass": integral("u", x=(0.0, 1.0))}`` for ``d.mass``.
    """

    name: str
    region: tuple[Region, ...]
    derivatives: tuple[str, ...]
    residual: Residual
    partner: Mapping[str, float | Place] | None = None
    operators: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    shares: Sequence[float] | None = None
    integrals: Mapping[str, Integral] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what the term's points carry beyond their coordinates."""
        return self.region[0].columns

    def reads(self, fields: Sequence[str], coordinates: Sequence[str]) -> dict[str, tuple[str, Index]]:
        """Field and index of everything that the residual reads, by name.

        Raises:
            UnknownDerivativeError: a name does not fit the fields and coordinates.
        """
        known = {name: parse_derivative(name, fields, coordinates) for name in self.derivatives}
        return {**known, **{name: parse_operator(f, fields, coordinates) for name, f in self.operators.items()}}


@dataclass(frozen=True, kw_only=True)
class Coefficient:
    """An unknown number that is trained with the network; residuals that declare its name read it as ``d.<name>``.

    Attributes:
        name: without underscores, of no field and no coordinate.
        start: the value that training starts from.
        positive: keep it above zero, by an exponential function.
        bounds: keep it between two numbers, by a logistic function.
        scale: how far it is expected to lie from ``start``, its derivative by the trained number there; steps of
            first-order optimisers are in proportion to it, its part in kernels to the square. Without, the size of
            ``start``, or 1 where that is 0; with bounds the product of the distances to both over their sum.
        true: the value, where it is known, to be compared with.
    """

    name: str
    start: float
    positive: bool = False
    bounds: tuple[float, float] | None = None
    scale: float | None = None
    true: float | None = None

    @property
    def unit(self) -> float:
        """The scale in use."""
        return self.scale if self.scale is not None else self.natural

    @property
    def natural(self) -> float:
        """The scale where none is given."""
        if self.bounds is not None:
            low, high = self.bounds
            return (self.start - low) * (high - self.start) / (high - low)
        return abs(self.start) or 1.0


@dataclass(frozen=True)
class Reference:
    """A numerical solution on a product grid, for problems without a closed form.

    Attributes:
        axes: the grid's coordinates by letter, in the order of the network's inputs.
        values: ``[*grid, fields]``; NaN where nothing is known (a pressure, say).
    """

    axes: Mapping[str, NDArray[np.float64]]
    values: NDArray[np.float64]


class PDE(ABC):
    """A problem on a box, or on a shape.

    Subclasses set ``domain`` and, where the network has several outputs, ``fields``. Every constructor
    argument is a configuration key of the problem. Coordinates are the single letters of the domain; time,
    where there is one, is ``t``.

    Attributes:
        domain: the box, or the shape, that the solution lives on.
        fields: names of the network's outputs.
        periods: the period along every coordinate in which the solution is periodic.
        coefficients: unknown numbers that are trained with the network.
        depends: the coordinates of fields that depend on some of them alone, such as ``{"k": ("x",)}``; each has a
            network of its own, of the kind of the others.
        supports: the parts of the domain on which fields live that do not live on all of it, such as ``{"u": disc}``;
            elsewhere predictions and errors have no value.
        measurements: tables of measured values by field; each makes a loss term, see ``ntkrun.pde.measured``.
        built_in: names of the terms that ``constrain`` satisfies exactly; they are not trained. Empty, ``constrain`` is
            not used; ``None``, it is an output transform where it is defined, and all terms are trained.
    """

    domain: Domain
    fields: ClassVar[tuple[str, ...]] = ("u",)
    periods: Mapping[str, float] = MappingProxyType({})
    coefficients: tuple[Coefficient, ...] = ()
    depends: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    supports: Mapping[str, Domain] = MappingProxyType({})
    measurements: Mapping[str, Table] = MappingProxyType({})
    built_in: frozenset[str] | None = None

    @abstractmethod
    def terms(self) -> tuple[Term, ...]:
        """The loss terms, each with a name of its own, those built in included."""

    def constrain(self, x: Columns, u: Columns) -> tuple[Any, ...]:
        """The fields made from coordinates and the network's outputs: a hard constraint, or any output transform.

        Derivatives, kernels, errors and predictions are those of the result. Coordinates and outputs are columns
        ``[N, 1]`` or jets of them: use ``+``, ``-``, ``*``, ``/``, powers with numbers, and ``sin``, ``cos``, ``exp``,
        ``log``, ``tanh``, ``sinh``, ``cosh``, ``sigmoid``, ``atan``, ``erf``, ``sqrt`` and ``reciprocal`` as methods or
        from torch.

        Args:
            x: coordinates by letter.
            u: the network's outputs by field, and unknown coefficients by name.

        Returns:
            One value per field.
        """
        raise NotImplementedError

    def features(self, x: Columns) -> tuple[Any, ...]:
        """Functions of the coordinates that the network reads beside these, none by default: a feature transform.

        What the solution is a smooth function of, such as the distance to a source, is easier to learn than its
        dependence on the coordinates alone. They should be of order 1.

        Args:
            x: coordinates by letter, columns or jets; see ``constrain`` for what these can do.

        Returns:
            One value per feature.
        """
        return ()

    def exact(self, x: Columns) -> Tensor | None:
        """The solution at the points ``x``, ``[N]`` or ``[N, fields]``; ``None`` when none is known."""
        return None

    def reference(self) -> Reference | None:
        """A numerical solution to compare with where ``exact`` gives none."""
        return None

    @property
    def constrains(self) -> bool:
        """Whether ``constrain`` is used: where it is defined, unless ``built_in`` is empty."""
        return type(self).constrain is not PDE.constrain and (self.built_in is None or bool(self.built_in))

    @property
    def outputs(self) -> tuple[str, ...]:
        """The fields and the unknown coefficients: what residuals may read."""
        return (*self.fields, *(c.name for c in self.coefficients))

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Coordinate letters, in the order of the network's inputs."""
        return self.domain.coordinates

    def beyond_supports(self, points: Tensor, slack: float = 0.0) -> Tensor:
        """Which of the points, ``[N, d]``, lie outside of what the fields live on, ``[N, fields]``.

        Args:
            points: of the domain, in float64.
            slack: the distance that points may lie outside.
        """
        outside = torch.zeros(len(points), len(self.fields), dtype=torch.bool)
        for name, part in self.supports.items():
            outside[:, self.fields.index(name)] = ~part.contains(points, slack)
        return outside

    def columns(self, points: Tensor, progress: Tensor | None = None, further: Sequence[str] = ()) -> Columns:
        """Name the columns of ``points``, ``[N, d + k]``.

        Args:
            points: coordinates and further columns.
            progress: of the training, for residuals.
            further: names of the columns beyond the coordinates.
        """
        named = dict(zip((*self.coordinates, *further), points.unbind(1), strict=True))
        return Columns(named if progress is None else {**named, "progress": progress}, "the point set")
