"""Integrals that residuals read, by Gauss-Legendre quadrature through every point of a term, or over a shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ntkrun.backend.transfer import constant
from ntkrun.geometry import Planar

if TYPE_CHECKING:
    from ntkrun.pde.base import Columns

End = float | str
"""A number, or the letter of a coordinate: that of the point itself."""

Integrand = Callable[["Columns", "Columns"], Tensor]


@dataclass(frozen=True)
class Integral:
    """An integral over some coordinates, at the point's own values of the others.

    Attributes:
        over: both ends by coordinate; none over a shape.
        integrand: ``integrand(x, d)`` like a residual, at N nodes, ``[N]``; ``x.row`` holds the coordinates of the
            points whose integrals the nodes belong to.
        derivatives: what it reads.
        nodes: per coordinate; exact for polynomials of degree 2 nodes - 1, over polygons of 2 nodes - 2.
        mean: divided by the measure.
        shape: in the plane, to be integrated over.
    """

    over: Mapping[str, tuple[End, End]]
    integrand: Integrand
    derivatives: tuple[str, ...]
    nodes: int = 32
    mean: bool = False
    shape: Planar | None = None

    @property
    def coordinates(self) -> tuple[str, ...]:
        """What it runs over."""
        return tuple(self.over) if self.shape is None else self.shape.coordinates

    @property
    def count(self) -> int:
        """Nodes of every point."""
        return int(self.nodes ** len(self.over)) if self.shape is None else len(_shape_rule(self.shape, self.nodes)[1])

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
            places, parts = (constant(each, x) for each in _shape_rule(self.shape, self.nodes))
            columns |= {c: place.expand(len(x), -1) for c, place in zip(self.coordinates, places, strict=True)}
            weights = (parts / parts.sum() if self.mean else parts).expand(len(x), -1)
            return torch.stack(list(columns.values()), dim=-1).flatten(0, 1), weights
        places, parts = (constant(each, x) for each in _product_rule(self.nodes, len(self.over)))
        weights = parts.expand(len(x), -1)
        for (c, ends), place in zip(self.over.items(), places, strict=True):
            low, high = (known[end] if isinstance(end, str) else x.new_full((len(x),), end) for end in ends)
            length = (high - low)[:, None]
            columns[c] = low[:, None] + length * place
            weights = weights if self.mean else weights * length
        return torch.stack(list(columns.values()), dim=-1).flatten(0, 1), weights


def integral(
    integrand: str | Integrand,
    *derivatives: str,
    nodes: int | None = None,
    mean: bool = False,
    shape: Planar | None = None,
    **over: tuple[End, End],
) -> Integral:
    """An integral for the ``integrals`` of a ``Term``.

    ``integral("u", x=(0, 1))`` is that of u along x, ``integral(lambda x, d: x.y * d.u**2, "u", x=(0, 1), y=(0, "t"))``
    that of y u^2 over x and over y up to the time of the point, and ``integral("u", shape=disc((0, 0), 1))`` that of u
    over a disc.

    Args:
        integrand: the name of a derivative, or a function of coordinates and derivatives at the nodes.
        derivatives: what such a function reads.
        nodes: per coordinate, 32 without; 2 nodes - 1 is the degree of polynomials that are integrated exactly. Over a
            shape per direction and piece, 8 without: such a piece lies between two corners that follow one another
            from left to right; over polygons 2 nodes - 2 is that degree, and next to arcs the error falls
            exponentially, see ``ntkrun.geometry.quadrature``.
        mean: divide by the measure.
        shape: integrate over a shape in the plane.
        over: both ends by coordinate: numbers, or the letter of a coordinate for that of the point itself.

    Raises:
        ValueError: both a shape and ends are given.
    """
    if shape is not None and over:
        raise ValueError(f"an integral runs over a shape or between ends of {', '.join(over)}, not both")
    if nodes is None:
        nodes = 32 if shape is None else 8
    if isinstance(integrand, str):
        name = integrand
        return Integral(over, lambda x, d: getattr(d, name), (name, *derivatives), nodes, mean, shape)
    return Integral(over, integrand, derivatives, nodes, mean, shape)


@cache
def _product_rule(nodes: int, dimensions: int) -> tuple[list[list[float]], list[float]]:
    """Places in the unit cube by dimension, and weights that sum to 1, of all nodes."""
    z, w = np.polynomial.legendre.leggauss(nodes)
    places = np.stack(np.meshgrid(*[(z + 1) / 2] * dimensions, indexing="ij")).reshape(dimensions, -1)
    weights = np.stack(np.meshgrid(*[w / 2] * dimensions, indexing="ij")).reshape(dimensions, -1).prod(0)
    return places.tolist(), weights.tolist()


@cache
def _shape_rule(shape: Planar, nodes: int) -> tuple[list[list[float]], list[float]]:
    """Places by coordinate and weights of all nodes."""
    points, weights = shape.quadrature(nodes)
    return points.T.tolist(), weights.tolist()
