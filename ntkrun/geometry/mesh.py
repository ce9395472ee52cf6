"""Solids from files: closed surfaces of triangles, read by trimesh."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ntkrun.common.errors import ConfigError
from ntkrun.geometry.cells import Cells, accepted
from ntkrun.geometry.moments import PER_SQUARE, Polynomials, fitted, inside_of, moments_of, sobol, with_normals
from ntkrun.geometry.region import chosen_by
from ntkrun.geometry.rule import Rule, gauss_cube, joined
from ntkrun.geometry.shape import Shape

Array = NDArray[np.float64]

CELLS = 48  # along every coordinate of a solid
MARGIN = 1e-6  # of the grid around a solid, as a part of its size
FEW = 16  # triangles that each have a rule of their own
TOGETHER = 4096  # triangles whose moments are summed at a time
OUTSIDE, INSIDE, CUT = 0, 1, 2  # what is known of cells
PAIRS = 2**22  # points and triangles that are compared at a time
TOUCH = 1e-7  # distance, as a part of a solid's size, at which a point lies on its surface
TILT = (0.0123, 0.0277)  # of the rays that count crossings, off all edges of surfaces made of simple numbers


@dataclass(frozen=True)
class Mark:
    """A name for those triangles whose middles satisfy a condition on x, y and z."""

    name: str
    where: Callable[[Array, Array, Array], Any]


@dataclass(frozen=True, eq=False, repr=False)
class Triangles(Shape):
    """What triangles in space make up.

    Attributes:
        letters: of the coordinates.
        triangles: their corners, against the clock seen from outside, ``[n, 3, 3]``.
    """

    letters: tuple[str, str, str]
    triangles: Array

    @property
    def low(self) -> Mapping[str, float]:
        return dict(zip(self.letters, self.triangles.min((0, 1)).tolist(), strict=True))

    @property
    def high(self) -> Mapping[str, float]:
        return dict(zip(self.letters, self.triangles.max((0, 1)).tolist(), strict=True))


@dataclass(frozen=True, eq=False, repr=False)
class Mesh(Triangles):
    """A solid inside of a closed surface of triangles; made by ``mesh``.

    Attributes:
        letters, triangles: of the surface.
        volume: of the solid.
        marks: names given to parts of the surface, the last of which holds.
    """

    volume: float
    marks: tuple[Mark, ...] = field(default=())

    @property
    def dimension(self) -> int:
        return 3

    @property
    def measure(self) -> float:
        return self.volume

    def scale(self, unit: Tensor) -> Tensor:
        return accepted(unit, self._cells.scale, self._inside)

    def contains(self, points: Tensor, slack: float = 0.0) -> Tensor:
        x = points.double().cpu()
        inside = self._inside(x)
        reach = max(slack, TOUCH * float(np.ptp(self.triangles, axis=(0, 1)).max()))
        for step in (*torch.eye(3, dtype=torch.float64), *-torch.eye(3, dtype=torch.float64)):
            rest = (~inside).nonzero()[:, 0]
            inside[rest] = self._inside(x[rest] + reach * step)
        return inside

    def quadrature(self, nodes: int) -> Rule:
        """A rule of nodes^3 Sobol points inside, exact for polynomials of degree nodes - 2.

        Their integrals follow from those over the surface by the divergence theorem.
        """
        basis = Polynomials(self.triangles.min((0, 1)), self.triangles.max((0, 1)), max(nodes - 2, 0))
        points = self.scale(sobol(nodes**3, 3)).numpy()
        moments = inside_of(basis, Facets(self.letters, self.triangles).rules((nodes + 3) // 2))
        return fitted(points, basis.at(points), moments)

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self._names))

    def part(self, name: str) -> tuple[Facets, ...]:
        return (Facets(self.letters, self.triangles[self._names == name]),)

    def marked(self, name: str, where: Callable[[Array, Array, Array], Any]) -> Mesh:
        """The solid with a name for the part of its surface where a condition holds, as ``lambda x, y, z: z < 0``."""
        return Mesh(self.letters, self.triangles, self.volume, (*self.marks, Mark(name, where)))

    @cached_property
    def _names(self) -> NDArray[np.object_]:
        """The name of every triangle."""
        names = np.full(len(self.triangles), "surface", dtype=object)
        for mark in self.marks:
            names[np.asarray(mark.where(*self.triangles.mean(1).T), dtype=bool)] = mark.name
        return names

    def _inside(self, points: Tensor) -> Tensor:
        """Which points lie inside, ``[N]``: all in whole cells, else by the crossings of a ray."""
        x = points.numpy()
        place = np.floor((x - self._corner) / self._width).astype(int)
        within = ((place >= 0) & (place < CELLS)).all(1)
        kind = np.zeros(len(x), dtype=np.int8)
        kind[within] = self._kinds[tuple(place[within].T)]
        inside = kind == INSIDE
        inside[kind == CUT] = self._odd(x[kind == CUT])
        return torch.from_numpy(inside)

    def _odd(self, points: Array) -> NDArray[np.bool_]:
        """Whether the ray from every point crosses an odd number of triangles, ``[N]``."""
        size = max(1, PAIRS // len(self.triangles))
        parts = [_crossings(points[k : k + size], self.triangles) % 2 == 1 for k in range(0, len(points), size)]
        return np.concatenate([np.zeros(0, dtype=bool), *parts])

    @cached_property
    def _corner(self) -> Array:
        corner: Array = self.triangles.min((0, 1)) - MARGIN * np.ptp(self.triangles, axis=(0, 1))
        return corner

    @cached_property
    def _width(self) -> Array:
        extent: Array = np.ptp(self.triangles, axis=(0, 1))
        return extent * (1 + 2 * MARGIN) / CELLS

    @cached_property
    def _kinds(self) -> NDArray[np.int8]:
        """Of every cell: outside, inside, or perhaps cut by the surface."""
        kinds = np.full((CELLS,) * 3, OUTSIDE, dtype=np.int8)
        for low, high in _pieces(self.triangles, float(self._width.min())):
            first, last = (np.floor((end - self._corner) / self._width).astype(int) for end in (low, high))
            kinds[tuple(slice(max(a, 0), b + 1) for a, b in zip(first, last, strict=True))] = CUT
        rest = np.argwhere(kinds != CUT)
        # No surface lies between neighbours along z, so that the first of a run tells for all.
        first = np.ones(len(rest), dtype=bool)
        first[1:] = (np.diff(rest, axis=0) != (0, 0, 1)).any(1)
        odd = self._odd(self._corner + self._width * (rest[first] + 0.5))
        kinds[tuple(rest.T)] = np.where(odd[first.cumsum() - 1], INSIDE, OUTSIDE)
        return kinds

    @cached_property
    def _cells(self) -> Cells:
        low = torch.from_numpy(self._corner)
        return Cells(low, low + CELLS * torch.from_numpy(self._width), torch.from_numpy(self._kinds != OUTSIDE))


@dataclass(frozen=True, eq=False, repr=False)
class Facets(Triangles):
    """Triangles of a surface, with their normals."""

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(f"n{c}" for c in self.letters)

    @property
    def dimension(self) -> int:
        return 2

    @property
    def measure(self) -> float:
        return float(self._areas.sum())

    def scale(self, unit: Tensor) -> Tensor:
        """One coordinate of the square chooses the triangle; what is left of it and the other are spread over that."""
        u, v = unit.reshape(-1, 2).T.contiguous()
        ends = torch.from_numpy(np.concatenate([[0.0], self._areas.cumsum()]))
        k, part = chosen_by(ends / ends[-1], u)
        root = part.sqrt()
        a, b, c = torch.from_numpy(self.triangles)[k].unbind(1)
        points = a + root[:, None] * ((b - a) + v[:, None] * (c - b))
        columns = torch.cat([points, torch.from_numpy(self._normals)[k]], dim=1)
        return columns.view(*unit.shape[:-1], 6)

    def quadrature(self, nodes: int) -> Rule:
        """A rule for integrals over the triangles.

        Of few of them it is that of every triangle, exact for polynomials of degree 2 nodes - 2. Of more than 16 it has
        16 nodes^2 Sobol points, and is exact for polynomials of degree nodes / 2, also times a component of the normal.
        """
        if len(self.triangles) <= FEW:
            return joined(list(self.rules(nodes)))
        basis = Polynomials(self.triangles.min((0, 1)), self.triangles.max((0, 1)), nodes // 2)
        points = self.scale(sobol(PER_SQUARE * nodes**2, 2)).numpy()
        moments = moments_of(lambda x: with_normals(basis, x), self.rules((nodes // 2 + 3) // 2))
        return fitted(points, with_normals(basis, points), moments)

    def rules(self, nodes: int) -> Iterator[Rule]:
        """Gauss-Legendre rules of some triangles at a time, exact for polynomials of degree 2 nodes - 2."""
        places, weights = gauss_cube(nodes, 2)
        u, v = places.T[:, :, None]
        for rows in np.array_split(np.arange(len(self.triangles)), math.ceil(len(self.triangles) / TOGETHER)):
            a, b, c = self.triangles[rows].swapaxes(0, 1)[:, :, None]
            points = a + u * (b - a) + u * v * (c - b)
            normals = np.broadcast_to(self._normals[rows][:, None], points.shape)
            shares = 2 * self._areas[rows][:, None] * (weights * u[:, 0])
            yield Rule(np.concatenate([points, normals], axis=-1).reshape(-1, 6), shares.ravel())

    def contains(self, points: Tensor, slack: float = 0.0) -> Tensor:
        raise ValueError("a surface of triangles cannot tell which points lie on it")

    @property
    def _crosses(self) -> Array:
        a, b, c = self.triangles.swapaxes(0, 1)
        crosses: Array = np.cross(b - a, c - a)
        return crosses

    @cached_property
    def _areas(self) -> Array:
        areas: Array = np.linalg.norm(self._crosses, axis=1) / 2
        return areas

    @cached_property
    def _normals(self) -> Array:
        normals: Array = self._crosses / np.linalg.norm(self._crosses, axis=1, keepdims=True)
        return normals


def mesh(file: str, letters: Sequence[str] = ("x", "y", "z")) -> Mesh:
    """The solid inside of a closed surface from a file: STL, OBJ, PLY and what else trimesh reads.

    Its surface is called ``surface``; ``marked`` gives names to parts of it.

    Args:
        file: the path.
        letters: of the coordinates.

    Raises:
        ConfigError: trimesh is missing, or cannot read the file.
        ValueError: the surface is not closed.
    """
    try:
        import trimesh
    except ImportError:
        raise ConfigError("solids from files need the package trimesh: pip install 'ntkrun[shapes]'") from None
    try:
        surface = trimesh.load_mesh(file)
    except Exception as error:
        raise ConfigError(f"{file}: no surface can be read from it: {error}") from error
    if not isinstance(surface, trimesh.Trimesh) or not surface.is_watertight:
        raise ValueError(f"{file}: the surface is not closed")
    if surface.volume < 0:
        surface.invert()
    first, second, third = letters
    triangles = np.asarray(surface.triangles, dtype=np.float64)
    return Mesh((first, second, third), triangles, float(surface.volume))


def _pieces(triangles: Array, width: float) -> list[tuple[Array, Array]]:
    """Boxes, as lowest and highest corners, that cover all triangles, each cut until it is no wider than ``width``."""
    boxes, rest = [], triangles
    while len(rest):
        low, high = rest.min(1), rest.max(1)
        small = (high - low).max(1) <= width
        boxes += list(zip(low[small], high[small], strict=True))
        a, b, c = rest[~small].swapaxes(0, 1)
        d, e, f = (a + b) / 2, (b + c) / 2, (c + a) / 2
        rest = np.concatenate([np.stack(each, axis=1) for each in ((a, d, f), (d, b, e), (f, e, c), (d, e, f))])
    return boxes


def _crossings(points: Array, triangles: Array) -> NDArray[np.int_]:
    """How many triangles the ray from every point meets, ``[N]``; it runs along z, a little tilted."""
    tilt = np.array([*TILT, 0.0])
    p, corners = (x - x[..., 2:] * tilt for x in (points, triangles))  # sheared, so that rays are upright
    a, b, c = corners.swapaxes(0, 1)
    q = p[:, None]
    # Twice the areas of the triangles that the foot of the ray makes with every side.
    areas = [
        (s[:, 0] - q[..., 0]) * (t[:, 1] - q[..., 1]) - (s[:, 1] - q[..., 1]) * (t[:, 0] - q[..., 0])
        for s, t in ((b, c), (c, a), (a, b))
    ]
    total = areas[0] + areas[1] + areas[2]
    met = np.logical_and.reduce([area * np.sign(total) >= 0 for area in areas]) & (total != 0)
    height = sum(area * corner[:, 2] for area, corner in zip(areas, (a, b, c), strict=True))
    above = height * np.sign(total) > q[..., 2] * abs(total)
    crossings: NDArray[np.int_] = (met & above).sum(1)
    return crossings
