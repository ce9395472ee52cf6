"""Quadrature over shapes in the plane bounded by straight lines and arcs of circles, and along these."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ntkrun.geometry.rule import Array, Rule, gauss, turned

COINCIDING = 1e-12  # distance of abscissae, as a part of all of them, that are taken for one


@dataclass(frozen=True)
class Chain:
    """A part of a boundary that every vertical line meets once at the most: a segment, or an arc of a circle.

    Attributes:
        left, right: its ends, ``[2]``.
        centre: of the circle, NaN of a segment, ``[2]``.
        radius: of the circle, positive of its upper half and negative of its lower.
    """

    left: Array
    right: Array
    centre: Array
    radius: float

    @property
    def bent(self) -> bool:
        """Whether it is an arc."""
        return not np.isnan(self.radius)

    def height(self, x: Array) -> Array:
        """Its ordinate at abscissae between its ends."""
        if self.bent:
            half = np.sqrt(np.maximum(self.radius**2 - (x - self.centre[0]) ** 2, 0))
            y: Array = self.centre[1] + math.copysign(1, self.radius) * half
        else:
            y = self.left[1] + (self.right[1] - self.left[1]) * (x - self.left[0]) / (self.right[0] - self.left[0])
        return y


def planar_rule(start: Array, end: Array, centre: Array, radius: Array, nodes: int) -> Rule:
    """A rule for integrals over what a closed boundary encloses.

    Vertical lines through its corners, and through the ends of circles, cut the shape into strips, in each of which
    what lies between two parts of the boundary is mapped onto a square with Gauss-Legendre nodes. Of a polygon the rule
    is exact for polynomials of degree 2 nodes - 2. Next to arcs the abscissa is (a + b) / 2 - (b - a) cos(phi) / 2
    with nodes in phi, which makes the integrand of a smooth function smooth at the ends of circles, where heights are
    square roots: the error falls exponentially with the number of nodes.

    Args:
        start: of the edges, ring by ring in their order, ``[n, 2]``.
        end: of the edges, ``[n, 2]``.
        centre: of the circle whose chord an edge is, ``[n, 2]``; NaN where there is none.
        radius: of these circles, ``[n]``.
        nodes: per direction and piece.

    Returns:
        Points ``[Q, 2]``; the weights sum to the area.
    """
    chains = _chains(start, end, centre, radius)
    slack = COINCIDING * np.ptp(start[:, 0])
    abscissae = np.unique(np.concatenate([[chain.left[0], chain.right[0]] for chain in chains]))
    abscissae = abscissae[np.append(True, np.diff(abscissae) > slack)]
    z, w = gauss(nodes)
    points, weights = [], []
    for a, b in pairwise(abscissae):
        through = [chain for chain in chains if chain.left[0] <= a + slack and chain.right[0] >= b - slack]
        through.sort(key=lambda chain: float(chain.height(np.array((a + b) / 2))))
        for below, above in zip(through[::2], through[1::2], strict=True):
            if below.bent or above.bent:
                x, across = a + (b - a) * (1 - np.cos(np.pi * z)) / 2, w * (b - a) * np.pi * np.sin(np.pi * z) / 2
            else:
                x, across = a + (b - a) * z, w * (b - a)
            low = below.height(x)
            height = above.height(x) - low
            y = low[:, None] + height[:, None] * z
            points.append(np.stack([np.broadcast_to(x[:, None], y.shape), y], axis=-1).reshape(-1, 2))
            weights.append((across * height)[:, None] * w)
    return Rule(np.concatenate(points), np.concatenate([each.ravel() for each in weights]))


def _chains(start: Array, end: Array, centre: Array, radius: Array) -> list[Chain]:
    """Edges as they are, but those of a circle that follow one another, in the same direction of x, as one arc."""
    chains = []
    opens = np.flatnonzero(np.append(True, (start[1:] != end[:-1]).any(1)))
    forward = end[:, 0] > start[:, 0]
    for ring in np.split(np.arange(len(start)), opens[1:]):
        before = np.roll(ring, 1)
        goes_on = (centre[ring] == centre[before]).all(1) & (radius[ring] == radius[before])
        begins = np.flatnonzero(~(goes_on & (forward[ring] == forward[before])))
        for edges in np.split(np.roll(ring, -begins[0]), (begins - begins[0])[1:]):
            i, j = edges[0], edges[-1]
            left, right = (start[i], end[j]) if forward[i] else (end[j], start[i])
            if left[0] < right[0]:
                middle = start[edges[len(edges) // 2], 1] + end[edges[(len(edges) - 1) // 2], 1]
                chains.append(Chain(left, right, centre[i], radius[i] if middle > 2 * centre[i, 1] else -radius[i]))
    return chains


def curve_rule(start: Array, end: Array, centre: Array, radius: Array, nodes: int) -> Rule:
    """A rule for integrals along segments and arcs of circles, which have what they bound to their left.

    Gauss-Legendre nodes lie on every segment, whose rule is exact for polynomials of degree 2 nodes - 1, and on every
    quarter of an arc, with an error of smooth functions that falls exponentially.

    Args:
        start: of the edges, in their order along the boundary, ``[n, 2]``.
        end: of the edges, ``[n, 2]``.
        centre: of the circle whose chord an edge is, ``[n, 2]``; NaN where there is none.
        radius: of these circles, ``[n]``.
        nodes: per piece.

    Returns:
        Points with outward normals, ``[Q, 4]``; the weights sum to the length.
    """
    z, w = gauss(nodes)
    points, weights = [], []
    goes_on = (start[1:] == end[:-1]).all(1) & (centre[1:] == centre[:-1]).all(1) & (radius[1:] == radius[:-1])
    for edges in np.split(np.arange(len(start)), np.flatnonzero(~goes_on) + 1):
        first = edges[0]
        if np.isnan(radius[first]):  # alone: the centres of segments are NaN, which equals nothing
            along = end[first] - start[first]
            length = np.hypot(*along)
            normal = np.array([along[1], -along[0]]) / length
            places = start[first] + z[:, None] * along
            points.append(np.concatenate([places, np.broadcast_to(normal, places.shape)], axis=1))
            weights.append(w * length)
            continue
        c, r = centre[first], radius[first]
        half = np.hypot(*(end[edges] - start[edges]).T) / (2 * r)
        ray, along = start[first] - c, end[first] - start[first]
        sign = np.sign(ray[0] * along[1] - ray[1] * along[0])  # 1 against the clock: the disc is what is bounded
        angle = 2 * np.arcsin(np.minimum(half, 1)).sum()
        pieces = max(1, math.ceil(angle / (math.pi / 2) - COINCIDING))
        places = ((np.arange(pieces)[:, None] + z) / pieces).ravel()
        normals = turned(math.atan2(ray[1], ray[0]) + sign * angle * places)
        points.append(np.concatenate([c + r * normals, sign * normals], axis=1))
        weights.append(np.tile(w, pieces) * r * angle / pieces)
    return Rule(np.concatenate(points), np.concatenate(weights))
