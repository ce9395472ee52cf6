"""Quadrature over shapes in the plane against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import shapely

from ntkrun.geometry import Planar, disc, polygon, rectangle, shape
from ntkrun.geometry.rule import Array

L_SHAPE = rectangle(x=(-1.0, 1.0), y=(-1.0, 1.0)) - rectangle(x=(0.0, 1.0), y=(0.0, 1.0))


def integrated(region: Planar, nodes: int, power_x: int, power_y: int) -> float:
    points, weights, _ = region.quadrature(nodes)
    return float((points[:, 0] ** power_x * points[:, 1] ** power_y) @ weights)


def by_green(vertices: Array, power_x: int, power_y: int) -> float:
    """The integral of x^i y^j over a polygon, as that of x^(i+1) / (i+1) y^j dy along its boundary."""
    z, w = np.polynomial.legendre.leggauss(20)
    start, end = vertices[:-1], vertices[1:]
    x, y = (start[:, k, None] + (end - start)[:, k, None] * (z + 1) / 2 for k in (0, 1))
    rise = (end - start)[:, 1]
    return float((x ** (power_x + 1) / (power_x + 1) * y**power_y @ w / 2) @ rise)


@pytest.mark.parametrize("power", [(0, 0), (1, 0), (0, 1), (4, 2), (0, 6), (6, 0), (3, 3)])
def test_polygons_up_to_the_degree(power: tuple[int, int]) -> None:
    """Of four nodes that is 6; a star that is not convex, and a triangle with a triangular hole."""
    angles = 0.3 + np.pi * np.arange(10) / 5
    radii = np.where(np.arange(10) % 2, 0.5, 1.5)
    star = np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)
    outline, hole = [(0.0, 0.0), (3.0, 0.5), (1.0, 2.0)], [(1.0, 0.5), (1.5, 0.6), (1.2, 1.0)]
    closed = [np.array([*each, each[0]]) for each in (star.tolist(), outline, hole)]
    cases = [
        (polygon([(x, y) for x, y in star]), by_green(closed[0], *power)),
        (shape(shapely.Polygon(outline, [hole])), by_green(closed[1], *power) - by_green(closed[2], *power)),
    ]
    for region, expected in cases:
        assert integrated(region, 4, *power) == pytest.approx(expected, rel=1e-12, abs=1e-13)


def test_the_degree_is_not_higher() -> None:
    slanted = polygon([(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)])
    assert integrated(slanted, 2, 2, 0) == pytest.approx(1 / 12, rel=1e-14)
    assert abs(integrated(slanted, 2, 3, 0) - 1 / 20) > 1e-4


def test_the_l_shape_has_few_nodes() -> None:
    """Two strips; x^2 y over the square without the quadrant."""
    assert len(L_SHAPE.quadrature(3).weights) == 2 * 9
    assert integrated(L_SHAPE, 3, 2, 1) == pytest.approx(-(1 / 3) * (1 / 2), rel=1e-13)


def test_discs_with_holes_converge_to_the_circles() -> None:
    """Not to the polygons that stand for them, whose areas are too small by 6e-6."""
    ring = disc((0.5, -0.25), 2.0) - disc((1.0, 0.0), 0.5)
    area = math.pi * (4 - 0.25)
    second = math.pi * (2.0**4 / 4 + 4 * 0.5**2 - 0.5**4 / 4 - 0.25 * 1.0**2)  # of x^2, by the parallel axes theorem
    assert integrated(ring, 8, 0, 0) == pytest.approx(area, rel=1e-7)
    assert integrated(ring, 14, 0, 0) == pytest.approx(area, rel=1e-12)
    assert integrated(ring, 14, 2, 0) == pytest.approx(second, rel=1e-11)
    assert integrated(ring, 14, 0, 1) == pytest.approx(area * -0.25 - math.pi * 0.25 * 0.25, rel=1e-11)


def test_a_cut_disc() -> None:
    """A half disc: its corners lie on the circle up to the distance of a chord."""
    half = disc((0.0, 0.0), 1.0) & rectangle(x=(-2.0, 2.0), y=(0.0, 2.0))
    assert integrated(half, 14, 0, 0) == pytest.approx(math.pi / 2, rel=1e-9)
    assert integrated(half, 14, 0, 1) == pytest.approx(2 / 3, rel=1e-9)
    lens = disc((0.0, 0.0), 1.0) & disc((1.0, 0.0), 1.0)
    assert integrated(lens, 14, 0, 0) == pytest.approx(2 * math.pi / 3 - math.sqrt(3) / 2, rel=1e-5)


def test_the_channel_of_a_cylinder() -> None:
    channel = rectangle(x=(0.0, 2.2), y=(0.0, 0.41)) - disc((0.2, 0.2), 0.05)
    points, weights, _ = channel.quadrature(12)
    assert weights.sum() == pytest.approx(2.2 * 0.41 - math.pi * 0.05**2, rel=1e-11)
    assert (weights > 0).all()
    assert (np.hypot(*(points - 0.2).T) > 0.05).all()
