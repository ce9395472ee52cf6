"""Combinations of solids whose surfaces coincide, against areas, volumes, fluxes and normals by hand."""

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch

from ntkrun.geometry import Sampler, Solid, ball, block

HALF_WAY = 0.1 + 0.2  # 0.30000000000000004


class Case(NamedTuple):
    """A solid, its volume, and the areas of its boundary by part."""

    solid: Solid
    volume: float
    areas: dict[str, float]


def cuboid(
    name: str, x: tuple[float, float], y: tuple[float, float] = (0, 1), z: tuple[float, float] = (0, 1)
) -> Solid:
    return block(name, x=x, y=y, z=z)


CASES = {
    # the face between them is inside
    "adjacent": Case(cuboid("a", (0, 1)) | cuboid("b", (1, 3)), 3, {"a": 5, "b": 2 + 4 * 2 - 1}),
    "adjacent but for rounding": Case(
        cuboid("a", (0, 0.3)) | cuboid("b", (HALF_WAY, 1)), 1, {"a": 1 + 4 * 0.3, "b": 1 + 4 * 0.7}
    ),
    # four faces of both overlap on half of each
    "overlapping": Case(cuboid("a", (0, 1)) | cuboid("b", (0.5, 1.5)), 1.5, {"a": 5, "b": 1 + 4 * 0.5}),
    "one on the other": Case(
        cuboid("a", (0, 1)) | cuboid("b", (0.25, 0.75), (0.25, 0.75), (1, 2)),
        1.25,
        {"a": 6 - 0.25, "b": 4 * 0.5 + 0.25},
    ),
    "one within the other, to three of its faces": Case(
        cuboid("a", (0, 1)) | cuboid("b", (0, 0.5), (0, 0.5), (0, 0.5)), 1, {"a": 6}
    ),
    "twice the same": Case(cuboid("a", (0, 1)) | cuboid("b", (0, 1)), 1, {"a": 6}),
    "twice the same ball": Case(ball((0, 0, 0), 1, "a") | ball((0, 0, 0), 1, "b"), 4 / 3 * math.pi, {"a": 4 * math.pi}),
    # what is taken away lies beside it
    "less one beside it": Case(cuboid("a", (0, 1)) - cuboid("b", (1, 2)), 1, {"a": 6}),
    "less one that shares five faces": Case(cuboid("a", (0, 1)) - cuboid("b", (0.5, 1)), 0.5, {"a": 3, "b": 1}),
    "less a corner": Case(
        cuboid("a", (0, 1)) - cuboid("b", (0.5, 1), (0.5, 1), (0.5, 1)), 7 / 8, {"a": 6 - 0.75, "b": 0.75}
    ),
    "common to two": Case(cuboid("a", (0, 1)) & cuboid("b", (0.25, 2)), 0.75, {"a": 1 + 4 * 0.75, "b": 1}),
    "three in a row": Case(cuboid("a", (0, 1)) | cuboid("b", (1, 2)) | cuboid("c", (0.5, 1.5)), 2, {"a": 5, "b": 5}),
    # the plug has what is left of its own faces, as it fills what had been taken from a
    "a hole that is filled": Case(
        (cuboid("a", (0, 1)) - cuboid("b", (0.5, 1), (0.5, 1))) | cuboid("c", (0.5, 1), (0.5, 1)),
        1,
        {"a": 4.5, "c": 1.5},
    ),
    "with a ball that is cut": Case(
        (ball((0, 0, 0), 1, "a") & cuboid("cut", (-1, 0), (-1, 1), (-1, 1)))
        | (ball((0, 0, 0), 1, "b") & cuboid("cut", (0, 1), (-1, 1), (-1, 1))),
        4 / 3 * math.pi,
        {"a": 2 * math.pi, "b": 2 * math.pi},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_areas_and_volumes(name: str) -> None:
    case = CASES[name]
    areas = {part: sum(piece.measure for piece in case.solid.boundary(part)) for part in case.solid.parts}
    assert areas == pytest.approx(case.areas, rel=1e-3)
    assert case.solid.measure == pytest.approx(case.volume, rel=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_points_are_on_the_boundary_with_outward_normals(name: str) -> None:
    """The flux of (x, y, z) is three times the volume, by points and by quadrature; that of a constant vanishes."""
    solid, volume, _ = CASES[name]
    flux, by_rule, total = 0.0, 0.0, np.zeros(3)
    for piece in solid.boundary():
        x = Sampler((piece,), 1024, "sobol", 0).draw()
        assert solid.contains(x[:, :3] - 1e-3 * x[:, 3:]).double().mean() > 0.99  # but at edges
        assert solid.contains(x[:, :3] + 1e-3 * x[:, 3:]).double().mean() < 0.01
        assert piece.contains(x[:, :3]).all()
        flux += piece.measure * float((x[:, :3] * x[:, 3:]).sum(1).mean())
        points, weights, _ = piece.quadrature(6)
        by_rule += float(weights @ (points[:, :3] * points[:, 3:]).sum(1))
        total += weights @ points[:, 3:]
    assert flux == pytest.approx(3 * volume, rel=5e-3)
    assert by_rule == pytest.approx(3 * volume, rel=2e-3)
    assert np.abs(total).max() < 2e-3 * sum(CASES[name].areas.values())


@pytest.mark.parametrize("name", CASES)
def test_every_point_lies_on_one_surface_alone(name: str) -> None:
    pieces = CASES[name].solid.boundary()
    for piece in pieces:
        x = Sampler((piece,), 512, "sobol", 1).draw()[:, :3]
        found = sum(other.contains(x).double() for other in pieces)
        assert float(found.mean()) < 1.01  # but at edges
        assert found.min() >= 1


def test_faces_between_are_no_boundary_and_sheets_are_no_solid() -> None:
    adjacent = CASES["adjacent"].solid
    between = torch.tensor([[1.0, 0.5, 0.5]], dtype=torch.float64)
    assert adjacent.contains(between).item()
    assert not any(piece.contains(between).item() for piece in adjacent.boundary())
    less = CASES["less one that shares five faces"].solid  # [0, 1/2] x [0, 1]^2
    grid = torch.cartesian_prod(*[torch.linspace(0, 1, 5, dtype=torch.float64)] * 3)
    assert torch.equal(less.contains(grid), grid[:, 0] <= 0.5)
    beyond = grid.clone()
    beyond[:, 0] += 0.01  # 0.01 beyond the face at 1/2, or 0.24 before the nodes of the sheets
    assert torch.equal(less.contains(beyond, 0.011), grid[:, 0] <= 0.5)
