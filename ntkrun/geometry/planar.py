"""Shapes in the plane: polygons and discs, their unions, differences and intersections."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ntkrun.common.errors import ConfigError
from ntkrun.geometry.curve import Curve
from ntkrun.geometry.quadrature import planar_rule
from ntkrun.geometry.rule import Rule
from ntkrun.geometry.shape import Shape
from ntkrun.geometry.trapezoids import Trapezoids

if TYPE_CHECKING:
    import shapely

Array = NDArray[np.float64]

CORNERS = 1024  # of the polygon that stands for a disc; its area is too small by 6e-6 of it
ROUNDING = 1e-9  # distance, as a part of the shape's size, at which an edge lies on the side that it comes from
AT_A_TIME = 2**22  # pairs of edges and sides that are compared


@dataclass(frozen=True)
class Side:
    """A straight side of a polygon, with the name of the part of the boundary that it belongs to."""

    name: str
    start: tuple[float, float]
    end: tuple[float, float]


@dataclass(frozen=True)
class Circle:
    """The edge of a disc, with the name of the part of the boundary that it belongs to."""

    name: str
    centre: tuple[float, float]
    radius: float

    @property
    def sagitta(self) -> float:
        """How far the edge is from the polygon that stands for the disc."""
        return self.radius * (1 - math.cos(math.pi / CORNERS))


@dataclass(frozen=True)
class Mark:
    """A name for those edges of a shape whose middles satisfy a condition on x and y."""

    name: str
    where: Callable[[Array, Array], Any]


@dataclass(frozen=True, repr=False)
class Planar(Shape):
    """A shape in the plane; made by ``rectangle``, ``polygon``, ``disc`` and ``shape``, and by ``|``, ``-`` and ``&``.

    Discs are polygons of ``CORNERS`` corners when they are cut, but points on their edges lie on circles.

    Attributes:
        letters: of both coordinates.
        polygon: the shape, a polygon or several.
        sides, circles: what its edges come from.
        marks: names given to edges by conditions, the last of which holds.
    """

    letters: tuple[str, str]
    polygon: shapely.Polygon | shapely.MultiPolygon
    sides: tuple[Side, ...] = ()
    circles: tuple[Circle, ...] = ()
    marks: tuple[Mark, ...] = ()

    def __post_init__(self) -> None:
        if not self.polygon.is_valid:
            raise ValueError(
                f"a shape in the plane whose boundary meets itself: {_shapely().is_valid_reason(self.polygon)}"
            )
        if self.polygon.geom_type not in ("Polygon", "MultiPolygon") or not self.polygon.area > 0:
            raise ValueError("a shape in the plane without an area")

    @property
    def low(self) -> Mapping[str, float]:
        return dict(zip(self.letters, self.polygon.bounds[:2], strict=True))

    @property
    def high(self) -> Mapping[str, float]:
        return dict(zip(self.letters, self.polygon.bounds[2:], strict=True))

    @property
    def dimension(self) -> int:
        return 2

    @property
    def measure(self) -> float:
        return float(self.polygon.area)

    def scale(self, unit: Tensor) -> Tensor:
        return self._strips.scale(unit)

    def contains(self, points: Tensor, slack: float = 0.0) -> Tensor:
        shapely = _shapely()
        shapely.prepare(self.polygon)
        places = shapely.points(points.numpy(force=True).astype(np.float64))
        slack += max((circle.sagitta for circle in self.circles), default=0.0)
        return torch.from_numpy(shapely.dwithin(self.polygon, places, slack + ROUNDING * self._size))

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self._curves)

    def part(self, name: str) -> tuple[Curve, ...]:
        return (self._curves[name],)

    def marked(self, name: str, where: Callable[[Array, Array], Any]) -> Planar:
        """The shape with a name for the part of its boundary where a condition holds, as ``lambda x, y: x < 0``."""
        return Planar(self.letters, self.polygon, self.sides, self.circles, (*self.marks, Mark(name, where)))

    def __or__(self, other: Planar) -> Planar:
        """The union."""
        return self._joined(other, self.polygon.union(self._polygon_of(other)))

    def __sub__(self, other: Planar) -> Planar:
        """The difference."""
        return self._joined(other, self.polygon.difference(self._polygon_of(other)))

    def __and__(self, other: Planar) -> Planar:
        """The intersection."""
        return self._joined(other, self.polygon.intersection(self._polygon_of(other)))

    def _polygon_of(self, other: object) -> Any:
        """The polygon of another shape that is to be combined with this one."""
        if not isinstance(other, Planar):
            raise ValueError(f"a plane shape goes with others, as rectangle(x=(0, 1), y=(0, 1)), not with {other}")
        return other.polygon

    def _joined(self, other: Planar, polygon: Any) -> Planar:
        if self.letters != other.letters:
            raise ValueError(f"shapes in {', '.join(self.letters)} and in {', '.join(other.letters)}")
        kept = [p for p in _polygons(polygon) if p.area > 0]  # shapes that touch have points or lines in common too
        return Planar(
            self.letters,
            kept[0] if len(kept) == 1 else _shapely().MultiPolygon(kept),
            self.sides + other.sides,
            self.circles + other.circles,
            self.marks + other.marks,
        )

    def quadrature(self, nodes: int) -> Rule:
        """A rule for integrals over the shape; see ``planar_rule``."""
        start, end, _, centre, radius = self._edges
        return planar_rule(start, end, centre, radius, nodes)

    @property
    def _size(self) -> float:
        x0, y0, x1, y1 = self.polygon.bounds
        return math.hypot(x1 - x0, y1 - y0)

    @cached_property
    def _rings(self) -> list[Array]:
        """Outlines, against the clock, and holes, with it, ``[n, 2]`` each."""
        rings = []
        for polygon in _polygons(self.polygon):
            oriented = _shapely().geometry.polygon.orient(polygon)
            rings += [np.array(ring.coords)[:, :2] for ring in (oriented.exterior, *oriented.interiors)]
        return rings

    @cached_property
    def _strips(self) -> Trapezoids:
        return Trapezoids(self._rings)

    @cached_property
    def _edges(self) -> tuple[Array, Array, NDArray[np.object_], Array, Array]:
        """Start and end of the edges, ``[n, 2]``, names, and centre and radius of their circles, NaN where straight."""
        start, end = (np.concatenate(ends) for ends in zip(*((r[:-1], r[1:]) for r in self._rings), strict=True))
        names = np.full(len(start), "boundary", dtype=object)
        centre, radius = np.full((len(start), 2), np.nan), np.full(len(start), np.nan)
        for circle in self.circles:
            distances = [np.hypot(*(p - circle.centre).T) for p in (start, end, (start + end) / 2)]
            on = np.logical_and.reduce([abs(d - circle.radius) <= 2 * circle.sagitta for d in distances])
            on &= np.hypot(*(end - start).T) <= 2.1 * circle.radius * math.sin(math.pi / CORNERS)
            names[on], centre[on], radius[on] = circle.name, circle.centre, circle.radius
        rest = np.flatnonzero(np.isnan(radius))
        if self.sides and len(rest):
            for rows in np.array_split(rest, math.ceil(len(rest) * len(self.sides) / AT_A_TIME)):
                names[rows] = _sides_of(start[rows], end[rows], self.sides, ROUNDING * self._size)
        for mark in self.marks:
            chosen = np.asarray(mark.where(*((start + end) / 2).T), dtype=bool)
            names[np.broadcast_to(chosen, names.shape)] = mark.name
        return start, end, names, centre, radius

    @cached_property
    def _curves(self) -> dict[str, Curve]:
        """The parts of the boundary by name, in the order in which they come along it."""
        start, end, names, centre, radius = self._edges
        return {
            name: Curve(self.letters, *(torch.from_numpy(each[names == name]) for each in (start, end, centre, radius)))
            for name in dict.fromkeys(names)
        }


def rectangle(**intervals: tuple[float, float]) -> Planar:
    """``rectangle(x=(0, 2), y=(0, 1))``, whose sides are called ``left``, ``right``, ``bottom`` and ``top``."""
    (x0, x1), (y0, y1) = intervals.values()
    return polygon(
        [(x0, y0), (x1, y0), (x1, y1), (x0, y1)], ["bottom", "right", "top", "left"], letters=tuple(intervals)
    )


def polygon(
    corners: Sequence[tuple[float, float]],
    names: str | Sequence[str] = "boundary",
    letters: Sequence[str] = ("x", "y"),
) -> Planar:
    """A polygon.

    Args:
        corners: one after the other, ``[(x, y), ...]``.
        names: of the sides, from the first corner to the second and so on, or one for all.
        letters: of the coordinates.

    Raises:
        ValueError: names or corners are missing, or sides meet.
    """
    corners = [(float(x), float(y)) for x, y in corners]
    each = [names] * len(corners) if isinstance(names, str) else list(names)
    if len(corners) < 3 or len(each) != len(corners):
        raise ValueError(f"a polygon of {len(corners)} corners with {len(each)} names of sides")
    if not np.isfinite(corners).all():
        raise ValueError(f"a polygon with the corners {corners}, expected finite numbers")
    ends = zip(each, corners, [*corners[1:], corners[0]], strict=True)
    return Planar(_pair(letters), _shapely().Polygon(corners), tuple(Side(*end) for end in ends))


def disc(
    centre: tuple[float, float], radius: float, name: str = "circle", letters: Sequence[str] = ("x", "y")
) -> Planar:
    """A disc, whose edge has a name.

    Raises:
        ValueError: the radius is not positive.
    """
    if not 0 < radius < math.inf or not np.isfinite(centre).all():
        raise ValueError(f"a disc about {tuple(centre)} of radius {radius}, expected finite numbers, a positive radius")
    angles = 2 * np.pi * np.arange(CORNERS) / CORNERS
    corners = np.asarray(centre, dtype=np.float64) + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    circle = Circle(name, (float(centre[0]), float(centre[1])), float(radius))
    return Planar(_pair(letters), _shapely().Polygon(corners), circles=(circle,))


def shape(geometry: Any, name: str = "boundary", letters: Sequence[str] = ("x", "y")) -> Planar:
    """A polygon of shapely, or several, such as ``shapely.from_wkt`` or ``shapely.buffer`` give them.

    Args:
        geometry: the polygon.
        name: of its whole boundary; ``marked`` gives names to parts of it.
        letters: of the coordinates.
    """
    sides = [
        Side(name, tuple(a), tuple(b))
        for polygon in _polygons(geometry)
        for ring in (polygon.exterior, *polygon.interiors)
        for a, b in zip(ring.coords[:-1], ring.coords[1:], strict=True)
    ]
    return Planar(_pair(letters), geometry, tuple(sides))


def _sides_of(start: Array, end: Array, sides: Sequence[Side], slack: float) -> list[str]:
    """The names of the sides that edges lie on, ``[n]``; ``boundary`` where there is none."""
    a, b = np.array([side.start for side in sides]), np.array([side.end for side in sides])
    along = b - a
    near = np.ones((len(start), len(sides)), dtype=bool)
    for points in (start, end):
        across = points[:, None] - a
        s = np.clip((across * along).sum(-1) / (along**2).sum(-1), 0, 1)
        near &= np.hypot(*np.moveaxis(across - s[..., None] * along, -1, 0)) <= slack
    return [sides[int(row.argmax())].name if row.any() else "boundary" for row in near]


def _polygons(geometry: Any) -> list[Any]:
    parts = list(getattr(geometry, "geoms", [geometry]))
    return [p for p in parts if p.geom_type == "Polygon"] + [
        p for part in parts if part.geom_type == "MultiPolygon" for p in part.geoms
    ]


def _pair(letters: Sequence[str]) -> tuple[str, str]:
    first, second = letters
    return first, second


def _shapely() -> Any:
    try:
        import shapely
    except ImportError:
        raise ConfigError("shapes in the plane need the package shapely: pip install 'ntkrun[shapes]'") from None
    return shapely
