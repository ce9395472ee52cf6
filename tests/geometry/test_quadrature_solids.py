"""Quadrature over solids and their surfaces against closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from ntkrun.geometry import Mesh, Rule, Solid, ball, block, mesh
from ntkrun.geometry.rule import Array, rule_over

WITH_HOLE = block("walls", x=(0, 1), y=(0, 2), z=(-1, 1)) - ball((0.5, 0.8, 0.1), 0.4, "hole")
LENS = ball((0, 0, 0), 1, "left") | ball((1, 0, 0), 1, "right")
HALF = ball((0, 0, 0), 1, "skin") & block("cut", x=(-1, 1), y=(-1, 1), z=(0, 1))
TWO = ball((0, 0, 0), 1, "one") | ball((3, 0, 0), 0.5, "other")


def over(rule: Rule, f: Callable[[Array], Array]) -> float:
    return float(f(rule.points) @ rule.weights)


def flux(region: Solid | Mesh, nodes: int, field: Callable[[Array], Array]) -> float:
    """Of a vector field ``[N, 3]`` through the surface."""
    rule = rule_over(region.boundary(), nodes)
    return over(rule, lambda x: (field(x[:, :3]) * x[:, 3:]).sum(1))


def test_balls_and_blocks_up_to_the_degree() -> None:
    """The mean of x^2 y^2 z^2 over the unit sphere is 1 / 105; over the ball of radius 2 about a centre of 0."""
    two = ball((0, 0, 0), 2)

    def sixth(x: Array) -> Array:
        return x[:, 0] ** 2 * x[:, 1] ** 2 * x[:, 2] ** 2

    assert over(two.quadrature(5), sixth) == pytest.approx(4 * math.pi * 2**9 / 9 / 105, rel=1e-13)
    assert over(rule_over(two.boundary(), 4), sixth) == pytest.approx(4 * math.pi * 2**8 / 105, rel=1e-13)
    box = block(x=(0, 1), y=(0, 2), z=(-1, 1))
    assert over(box.quadrature(4), lambda x: x[:, 0] ** 7 * x[:, 1] ** 3 * x[:, 2] ** 2) == pytest.approx(
        1 / 3, rel=1e-13
    )
    assert over(rule_over(box.boundary("y_high"), 3), lambda x: x[:, 0] * x[:, 1] * x[:, 4]) == pytest.approx(
        2.0, rel=1e-13
    )
    assert two.quadrature(5).error == 0.0


def test_a_block_with_a_round_hole_is_exact() -> None:
    """Of polynomials of degree 6 with eight nodes: by hand, moments of the block less those of the ball."""
    rule = WITH_HOLE.quadrature(8)
    r, centre = 0.4, (0.5, 0.8, 0.1)
    volume = 4 / 3 * math.pi * r**3
    assert over(rule, lambda x: np.ones(len(x))) == pytest.approx(4 - volume, rel=1e-12)
    second = [(c**2 + r**2 / 5) * volume for c in centre]
    for i, whole in enumerate((4 / 3, 16 / 3, 4 / 3)):
        assert over(rule, lambda x, i=i: x[:, i] ** 2) == pytest.approx(whole - second[i], rel=1e-12)  # type: ignore[misc]
    fourth = (centre[0] ** 2 * centre[1] ** 2 + (centre[0] ** 2 + centre[1] ** 2) * r**2 / 5 + r**4 / 35) * volume
    assert over(rule, lambda x: (x[:, 0] * x[:, 1]) ** 2) == pytest.approx(16 / 9 - fourth, rel=1e-12)
    assert WITH_HOLE.contains(torch.from_numpy(rule.points)).all()
    assert (rule.weights > 0).all()
    assert rule.error == 0.0
    # Beyond that degree, of exp(x) sin(y), which the hole's mean value sinh(k r) of harmonic functions gives.
    found = over(rule, lambda x: np.exp(x[:, 0]) * np.sin(x[:, 1]))
    expected = 2 * (math.e - 1) * (1 - math.cos(2)) - volume * math.exp(0.5) * math.sin(0.8)
    assert found == pytest.approx(expected, abs=1e-6)
    assert flux(WITH_HOLE, 8, lambda x: x**3) == pytest.approx(3 * (8 - sum(second)), rel=1e-12)
    (hole,) = WITH_HOLE.boundary("hole")
    assert over(hole.quadrature(8), lambda x: x[:, 0] * x[:, 3]) == pytest.approx(-volume, rel=1e-12)


@pytest.mark.parametrize(
    ("solid", "volume", "area"),
    [
        (LENS, 8 / 3 * math.pi - 5 / 12 * math.pi, 6 * math.pi),
        (HALF, 2 / 3 * math.pi, 3 * math.pi),
        (TWO, 4 / 3 * math.pi * 1.125, 4 * math.pi * 1.25),
    ],
)
def test_combinations_to_the_error_that_they_state(solid: Solid, volume: float, area: float) -> None:
    rule, surface = solid.quadrature(8), rule_over(solid.boundary(), 8)
    for each in (rule, surface):
        assert abs(each.weights).sum() < 1.01 * each.weights.sum()
    assert rule.error < 1e-4
    assert surface.error < 1e-4
    assert rule.weights.sum() == pytest.approx(volume, rel=5 * rule.error + 1e-12)
    assert surface.weights.sum() == pytest.approx(area, rel=5 * surface.error + 1e-12)
    inside = over(rule, lambda x: 3 * (x**2).sum(1))
    assert flux(solid, 8, lambda x: x**3) == pytest.approx(inside, rel=1e-3)


def test_a_half_ball_of_a_smooth_function() -> None:
    """Of exp(z) over the upper half: 2 pi times the integral of (1 - z^2) / 2 exp(z), which is pi."""
    found = over(HALF.quadrature(8), lambda x: np.exp(x[:, 2]))
    assert found == pytest.approx(math.pi, rel=5e-5)
    (cut,) = HALF.boundary("cut")
    assert over(cut.quadrature(8), lambda x: x[:, 0] ** 2 * x[:, 5]) == pytest.approx(-math.pi / 4, rel=1e-3)


@pytest.mark.long  # telling inside from outside takes seconds
def test_meshes_are_exact(tmp_path: Path) -> None:
    """An L of twelve triangles or so, and a torus of many: polynomials, and the divergence theorem."""
    corners = np.array([[0, 0], [2, 0], [2, 1], [1, 1], [1, 2], [0, 2]], dtype=float)
    faces = [[0, 1, 3], [1, 2, 3], [0, 3, 5], [3, 4, 5]]
    trimesh.creation.extrude_triangulation(corners, faces, 1.0).export(tmp_path / "l.obj")
    solid = mesh(str(tmp_path / "l.obj"))
    rule = solid.quadrature(6)
    expected = 8 / 3 * 1 / 2 + 1 / 3 * 3 / 2  # of x^2 y over [0, 2] x [0, 1] and [0, 1] x [1, 2]
    assert over(rule, lambda x: x[:, 0] ** 2 * x[:, 1]) == pytest.approx(expected, rel=1e-12)
    assert rule_over(solid.boundary(), 6).weights.sum() == pytest.approx(2 * 3 + 8, rel=1e-13)
    trimesh.creation.torus(1.0, 0.4, major_sections=8, minor_sections=5).export(tmp_path / "torus.stl")
    ring = mesh(str(tmp_path / "torus.stl"))
    surface, rule = rule_over(ring.boundary(), 8), ring.quadrature(8)
    (facets,) = ring.boundary()
    assert len(surface.weights) == 16 * 64
    assert rule.weights.sum() == pytest.approx(ring.measure, rel=1e-12)
    assert surface.weights.sum() == pytest.approx(facets.measure, rel=1e-12)
    inside = over(rule, lambda x: 3 * (x**2).sum(1))
    assert flux(ring, 8, lambda x: x**3) == pytest.approx(inside, rel=1e-11)
    assert (rule.weights > 0).all()
