"""Integrals that residuals read, by Gauss-Legendre quadrature through every point of a term, or over a region."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import torch
from torch import Tensor

from ntkrun.backend.transfer import constant
from ntkrun.common.user_frames import cause, written
from ntkrun.geometry import Measured, Rule
from ntkrun.geometry.rule import gauss_cube, rule_over
from ntkrun.pde.columns import Columns, ProblemError

Place = Callable[[Columns], Tensor]
"""A coordinate of another point as a function of a point's coordinates, columns of length N."""

End = float | str | Place
"""A number, the letter of a coordinate for that of the point itself, or a function of its coordinates."""

Integrand = Callable[[Columns, Columns], Tensor]


def place_of(function: Place, at: Columns, like: Tensor, what: str) -> Tensor:
    """What a function of points' coordinates gives, ``[N]``.

    Args:
        function: of the coordinates.
        at: the coordinates.
        like: a column of length N.
        what: it is for, in messages.

    Raises:
        ProblemError: it gives no such column.
    """
    try:
        place: object = function(at)
    except ProblemError:
        raise
    except Exception as error:
        raise ProblemError(f"{what} fails with {cause(error)}") from error
    if not isinstance(place, Tensor) or place.shape != like.shape:
        kind = f"shape {list(place.shape)}" if isinstance(place, Tensor) else f"type {type(place).__name__}"
        raise ProblemError(f"{what} is of {kind}, expected a tensor of shape {list(like.shape)}{written(function)}")
    return place


@dataclass(frozen=True)
class Integral:
    """An integral over some coordinates, at the point's own values of the others.

    Attributes:
        over: both ends by coordinate; none over regions.
        integrand: ``integrand(x, d)`` like a residual, at N nodes, ``[N]``; ``x.row`` holds the coordinates of the
            points whose integrals the nodes belong to, and ``x.nx`` the outward normal on parts of a boundary.
        derivatives: what it reads.
        nodes: per coordinate; exact for polynomials of degree 2 nodes - 1, over regions see ``integral``.
        mean: divided by the measure.
        shape: regions to be integrated over, one after the other.
    """

    over: Mapping[str, tuple[End, End]]
    integrand: Integrand
    derivatives: tuple[str, ...]
    nodes: int = 32
    mean: bool = False
    shape: tuple[Measured, ...] | None = None

    @property
    def coordinates(self) -> tuple[str, ...]:
        """What it runs over."""
        return tuple(self.over) if self.shape is None else self.shape[0].coordinates

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what nodes carry beyond their coordinates: the components of the normal on parts of a boundary."""
        return () if self.shape is None else self.shape[0].columns

    @property
    def count(self) -> int:
        """Nodes of every point."""
        return int(self.nodes ** len(self.over)) if self.shape is None else len(self.rule.weights)

    @cached_property
    def rule(self) -> Rule:
        """Over its regions; over none where it has ends.

        Raises:
            ValueError: there is no rule for one of them.
        """
        return rule_over(self.shape or (), self.nodes)

    @cached_property
    def _numbers(self) -> tuple[list[list[float]], list[float]]:
        """Coordinates and other columns of the nodes of the rule, and their weights."""
        return self.rule.points.T.tolist(), self.rule.weights.tolist()

    def columns_at(self, x: Tensor) -> dict[str, Tensor]:
        """What the nodes of every point carry beyond their coordinates, ``[N * Q]`` each.

        Args:
            x: the points, ``[N, d]``.
        """
        if not self.columns:
            return {}
        values = constant(self._numbers[0][len(self.coordinates) :], x)
        return {name: value.repeat(len(x)) for name, value in zip(self.columns, values, strict=True)}

    def nodes_at(self, x: Tensor, coordinates: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        """The nodes of every point and their weights.

        Args:
            x: the points, ``[N, d]``.
            coordinates: letters of the columns.

        Returns:
            ``[N * Q, d]``, those of the first point first, and ``[N, Q]``.
        """
        known = dict(zip(coordinates, x.unbind(1), strict=True))
        columns = {c: column[:, None].expand(-1, self.count) for c, column in known.items()}
        if self.shape is not None:
            numbers, shares = self._numbers
            places, parts = constant(numbers[: len(self.coordinates)], x), constant(shares, x)
            columns |= {c: place.expand(len(x), -1) for c, place in zip(self.coordinates, places, strict=True)}
            weights = (parts / parts.sum() if self.mean else parts).expand(len(x), -1)
            return torch.stack(list(columns.values()), dim=-1).flatten(0, 1), weights
        places, parts = (constant(each, x) for each in _product_rule(self.nodes, len(self.over)))
        weights = parts.expand(len(x), -1)
        for (c, ends), place in zip(self.over.items(), places, strict=True):
            low, high = (self._end(end, c, known, x) for end in ends)
            length = (high - low)[:, None]
            columns[c] = low[:, None] + length * place
            weights = weights if self.mean else weights * length
        return torch.stack(list(columns.values()), dim=-1).flatten(0, 1), weights

    @staticmethod
    def _end(end: End, coordinate: str, known: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """An end at every point, ``[N]``."""
        if isinstance(end, str):
            return known[end]
        if callable(end):
            return place_of(end, Columns(known, "the point"), x[:, 0], f"the end of the integral over {coordinate}")
        return x.new_full((len(x),), end)


def integral(
    integrand: str | Integrand,
    *derivatives: str,
    nodes: int | None = None,
    mean: bool = False,
    shape: Measured | Sequence[Measured] | None = None,
    **over: tuple[End, End],
) -> Integral:
    """An integral for the ``integrals`` of a ``Term``.

    ``integral("u", x=(0, 1))`` is that of u along x, ``integral(lambda x, d: x.y * d.u**2, "u", x=(0, 1), y=(0, "t"))``
    that of y u^2 over x and over y up to the time of the point, ``integral("u", shape=disc((0, 0), 1))`` that of u over
    a disc, and ``integral("u_n", shape=plate.boundary("hole"))`` the flux through a part of a boundary.

    Args:
        integrand: the name of a derivative, or a function of coordinates and derivatives at the nodes.
        derivatives: what such a function reads; along a boundary ``u_n`` too.
        nodes: per coordinate, 32 without; 2 nodes - 1 is the degree of polynomials that are integrated exactly. Over a
            region per direction and piece, 8 without. ``Rule.error`` of ``ntkrun.geometry`` says how well such a rule
            knows the integrals that it is made from; polynomials are exact up to the degree

            - 2 nodes - 1 over boxes and their faces and along straight edges, 2 nodes - 2 over polygons, whose pieces
              lie between corners that follow one another from left to right; next to and along arcs of circles the
              error of smooth functions falls exponentially (``ntkrun.geometry.quadrature``);
            - 2 nodes - 3 over balls, 2 nodes - 1 over spheres and blocks;
            - nodes - 2 over meshes and combinations of balls and blocks, and nodes / 2 over their surfaces, also times
              a component of the normal, by moment fitting (``ntkrun.geometry.moments.fitted``); where surfaces cut one
              another, up to a relative error of some 1e-4.
        mean: divide by the measure.
        shape: integrate over a box, a shape, or parts of their boundary, ``[...]`` of several one after the other.
        over: both ends by coordinate: numbers, the letter of a coordinate for that of the point itself, or functions of
            the point's coordinates, as in ``integral("u", t=(lambda x: x.t - 1, "t"))``.

    Raises:
        ValueError: both a shape and ends are given.
    """
    if shape is not None and over:
        raise ValueError(f"an integral runs over a shape or between ends of {', '.join(over)}, not both")
    if nodes is None:
        nodes = 32 if shape is None else 8
    regions = tuple(shape) if isinstance(shape, list | tuple) else None if shape is None else (shape,)
    if isinstance(integrand, str):
        name = integrand
        return Integral(over, lambda x, d: getattr(d, name), (name, *derivatives), nodes, mean, regions)
    return Integral(over, integrand, derivatives, nodes, mean, regions)


@cache
def _product_rule(nodes: int, dimensions: int) -> tuple[list[list[float]], list[float]]:
    """Places in the unit cube by dimension, and weights that sum to 1, of all nodes."""
    places, weights = gauss_cube(nodes, dimensions)
    return places.T.tolist(), weights.tolist()
