"""Solids: balls and blocks, their unions, differences and intersections."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ntkrun.geometry.cells import Cells, accepted, share_kept
from ntkrun.geometry.moments import PER_SQUARE, Polynomials, estimated, fitted, inside_of, sobol, with_normals
from ntkrun.geometry.rule import Array, Rule, cube_rule, gauss, gauss_cube, rule_over, turned
from ntkrun.geometry.shape import Shape

CELLS = 48  # along every coordinate of a solid
TOUCH = 1e-7  # distance, as a part of a solid's size, at which it is looked at on both sides of a surface

Triple = tuple[float, float, float]


class Form(ABC):
    """A ball, a block, or a combination, as a function that is negative inside and changes no faster than distances."""

    @abstractmethod
    def __call__(self, points: Tensor) -> Tensor:
        """Its values at points ``[N, 3]``, ``[N]``."""

    @property
    @abstractmethod
    def bounds(self) -> tuple[Triple, Triple]:
        """Lowest and highest coordinates."""

    @property
    @abstractmethod
    def patches(self) -> tuple[Owned, ...]:
        """The surfaces that its own is made of."""


@dataclass(frozen=True)
class Owned:
    """A patch, and the combinations within a form that it belongs to.

    Attributes:
        patch: the patch.
        forms: these, the form itself not among them.
    """

    patch: Patch
    forms: tuple[Form, ...] = ()


@dataclass(frozen=True)
class Patch(ABC):
    """A surface that the unit square is mapped onto by equal areas, with the name of the part it belongs to."""

    name: str

    @property
    @abstractmethod
    def area(self) -> float:
        """Of the whole surface."""

    @abstractmethod
    def scale(self, unit: Tensor) -> Tensor:
        """Points and normals, ``[N, 6]``, from points of the unit square, ``[N, 2]``."""

    @abstractmethod
    def quadrature(self, nodes: int) -> Rule:
        """A rule for integrals over the whole surface, whose points carry normals, exact up to degree 2 nodes - 1."""

    @abstractmethod
    def nearest(self, points: Tensor) -> Tensor:
        """Its points nearest to others, ``[..., 3]``, and its normals there, ``[..., 6]``."""

    def near(self, points: Tensor, slack: float) -> Tensor:
        """Which of the points ``[..., 3]`` lie within ``slack`` of it, ``[...]``."""
        distance: Tensor = (points - self.nearest(points)[..., :3]).norm(dim=-1)
        return distance <= slack

    @abstractmethod
    def coincides(self, other: Patch, slack: float) -> bool:
        """Whether a part of both with an area is the same, but for ``slack``."""


@dataclass(frozen=True)
class Sphere(Patch):
    """The surface of a ball."""

    centre: Triple
    radius: float

    @property
    def area(self) -> float:
        return 4 * math.pi * self.radius**2

    def scale(self, unit: Tensor) -> Tensor:
        """Archimedes: heights are uniform."""
        height, angle = 1 - 2 * unit[:, 0], 2 * math.pi * unit[:, 1]
        ring = (1 - height**2).clamp_min(0).sqrt()
        normal = torch.stack([ring * angle.cos(), ring * angle.sin(), height], dim=1)
        return torch.cat([unit.new_tensor(self.centre) + self.radius * normal, normal], dim=1)

    def quadrature(self, nodes: int) -> Rule:
        """Gauss-Legendre heights and equispaced angles."""
        rays, weights = _rays(nodes)
        return Rule(np.concatenate([self.centre + self.radius * rays, rays], axis=1), weights * self.area)

    def nearest(self, points: Tensor) -> Tensor:
        centre = points.new_tensor(self.centre)
        normal = torch.nn.functional.normalize(points - centre, dim=-1)
        return torch.cat([centre + self.radius * normal, normal], dim=-1)

    def coincides(self, other: Patch, slack: float) -> bool:
        if not isinstance(other, Sphere):
            return False
        return math.dist(self.centre, other.centre) + abs(self.radius - other.radius) <= slack


@dataclass(frozen=True)
class Plate(Patch):
    """A side of a block: its corners, and the axis and the sign of its normal."""

    low: Triple
    high: Triple
    axis: int
    sign: int

    @property
    def area(self) -> float:
        ends = zip(self.low, self.high, strict=True)
        return math.prod(high - low for i, (low, high) in enumerate(ends) if i != self.axis)

    def scale(self, unit: Tensor) -> Tensor:
        low, high = unit.new_tensor(self.low), unit.new_tensor(self.high)
        columns = list(unit.unbind(1))
        columns.insert(self.axis, unit.new_full((len(unit),), 0.5 + self.sign / 2))
        normal = unit.new_zeros(len(unit), 3)
        normal[:, self.axis] = self.sign
        return torch.cat([low + (high - low) * torch.stack(columns, dim=1), normal], dim=1)

    def quadrature(self, nodes: int) -> Rule:
        """The product of Gauss-Legendre rules."""
        return cube_rule(self.scale, 2, self.area, nodes)

    @property
    def height(self) -> float:
        """Its coordinate along the axis."""
        return self.high[self.axis] if self.sign > 0 else self.low[self.axis]

    def nearest(self, points: Tensor) -> Tensor:
        nearest = points.clamp(points.new_tensor(self.low), points.new_tensor(self.high))
        nearest[..., self.axis] = self.height
        normal = torch.zeros_like(points)
        normal[..., self.axis] = self.sign
        return torch.cat([nearest, normal], dim=-1)

    def coincides(self, other: Patch, slack: float) -> bool:
        if not isinstance(other, Plate) or self.axis != other.axis or abs(self.height - other.height) > slack:
            return False
        return all(
            min(self.high[i], other.high[i]) - max(self.low[i], other.low[i]) > slack or i == self.axis
            for i in range(3)
        )


@dataclass(frozen=True)
class Ball(Form):
    """A ball, whose surface has a name."""

    centre: Triple
    radius: float
    name: str

    def __call__(self, points: Tensor) -> Tensor:
        distance: Tensor = (points - points.new_tensor(self.centre)).norm(dim=1)
        return distance - self.radius

    @property
    def bounds(self) -> tuple[Triple, Triple]:
        x, y, z = self.centre
        r = self.radius
        return (x - r, y - r, z - r), (x + r, y + r, z + r)

    @property
    def patches(self) -> tuple[Owned, ...]:
        return (Owned(Sphere(self.name, self.centre, self.radius)),)


@dataclass(frozen=True)
class Block(Form):
    """A box with its sides parallel to the axes, each with a name: low and high along every coordinate."""

    low: Triple
    high: Triple
    names: tuple[str, ...]

    def __call__(self, points: Tensor) -> Tensor:
        low, high = points.new_tensor(self.low), points.new_tensor(self.high)
        beyond = torch.maximum(low - points, points - high)
        outside: Tensor = beyond.clamp_min(0).norm(dim=1)
        return outside + beyond.amax(1).clamp_max(0)

    @property
    def bounds(self) -> tuple[Triple, Triple]:
        return self.low, self.high

    @property
    def patches(self) -> tuple[Owned, ...]:
        ends = itertools.product(range(3), (-1, 1))
        return tuple(
            Owned(Plate(name, self.low, self.high, axis, sign))
            for name, (axis, sign) in zip(self.names, ends, strict=True)
        )


@dataclass(frozen=True)
class Combination(Form):
    """All points of either form, of both, or of the first without those of the second."""

    kind: Literal["union", "intersection", "difference"]
    first: Form
    second: Form

    def __call__(self, points: Tensor) -> Tensor:
        a, b = self.first(points), self.second(points)
        if self.kind == "union":
            return torch.minimum(a, b)
        return torch.maximum(a, b if self.kind == "intersection" else -b)

    @property
    def bounds(self) -> tuple[Triple, Triple]:
        (a, b), (c, d) = self.first.bounds, self.second.bounds
        if self.kind == "difference":
            return a, b
        outer, inner = (min, max) if self.kind == "union" else (max, min)
        return tuple(map(outer, a, c)), tuple(map(inner, b, d))  # type: ignore[return-value]

    @property
    def patches(self) -> tuple[Owned, ...]:
        return tuple(Owned(own.patch, (form, *own.forms)) for form in (self.first, self.second) for own in form.patches)


@dataclass(frozen=True, repr=False)
class Solid(Shape):
    """A solid; made by ``ball`` and ``block``, and by ``|``, ``-`` and ``&``.

    Its volume and the areas of its surfaces, which share points out, are measured by Sobol points, to some 1e-4; points
    are exactly uniform. Where surfaces that it is made of coincide, the boundary is that of the first that is one in
    every step of the making; what has the solid on both sides, or on none, is no boundary.

    Attributes:
        letters: of the coordinates.
        form: what it is.
    """

    letters: tuple[str, str, str]
    form: Form

    @property
    def low(self) -> Mapping[str, float]:
        return dict(zip(self.letters, self.form.bounds[0], strict=True))

    @property
    def high(self) -> Mapping[str, float]:
        return dict(zip(self.letters, self.form.bounds[1], strict=True))

    @property
    def dimension(self) -> int:
        return 3

    @cached_property
    def measure(self) -> float:
        """Its volume, to some 1e-4 of it."""
        whole, cut = self._counted
        return whole + (cut.volume * share_kept(3, cut.scale, self._inside) if cut else 0.0)

    def scale(self, unit: Tensor) -> Tensor:
        return accepted(unit, self._cells.scale, self._inside)

    def quadrature(self, nodes: int) -> Rule:
        """A rule for integrals over the solid.

        Of a ball it is exact for polynomials of degree 2 nodes - 3, of a block of 2 nodes - 1. Of a combination it has
        nodes^3 Sobol points inside, with weights that are fitted to the integrals of polynomials of degree nodes - 2.
        These follow from surfaces that are spheres and sides of blocks as a whole by the divergence theorem; where
        surfaces cut one another, they are measured by Sobol points, to some 1e-4, which ``Rule.error`` says.
        """
        return _solid_rule(self, nodes)

    def contains(self, points: Tensor, slack: float = 0.0) -> Tensor:
        points, slack = points.double(), slack + TOUCH * self.size
        found = self.form(points) <= slack
        if not self._coinciding:
            return found
        # Where surfaces coincide, the function vanishes on sheets, too, that nothing of the solid is left beside.
        edge = (found & (self.form(points) >= -slack)).nonzero()[:, 0]
        around = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)] * 3)
        beside = (points[edge, None] + 3 * slack * around).reshape(-1, 3)
        found[edge] = (self.form(beside) < -slack / 2).view(len(edge), len(around)).any(1)
        return found

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self._surfaces)

    def part(self, name: str) -> tuple[Surface, ...]:
        return self._surfaces[name]

    @property
    def size(self) -> float:
        """The diagonal of the box around it."""
        return math.dist(*self.form.bounds)

    def __or__(self, other: Solid) -> Solid:
        """The union."""
        return self._combined("union", other)

    def __sub__(self, other: Solid) -> Solid:
        """The difference."""
        return self._combined("difference", other)

    def __and__(self, other: Solid) -> Solid:
        """The intersection."""
        return self._combined("intersection", other)

    def _combined(self, kind: Literal["union", "intersection", "difference"], other: Solid) -> Solid:
        if not isinstance(other, Solid):
            raise ValueError(f"a solid goes with others, as block(x=(0, 1), y=(0, 1), z=(0, 1)), not with {other}")
        if self.letters != other.letters:
            raise ValueError(f"solids in {', '.join(self.letters)} and in {', '.join(other.letters)}")
        return Solid(self.letters, Combination(kind, self.form, other.form))

    def _inside(self, points: Tensor) -> Tensor:
        return self.form(points) <= 0

    @cached_property
    def _cells(self) -> Cells:
        """Those that may hold points of the solid: where its function at the middle allows for it."""
        low, high, values, reach = self._middles
        taken = values <= reach
        if not taken.any():
            raise ValueError("a solid without a volume")
        return Cells(low, high, taken)

    @cached_property
    def _counted(self) -> tuple[float, Cells | None]:
        """The volume of the cells that lie inside as a whole, and the others of ``_cells``."""
        low, high, values, reach = self._middles
        whole, cut = values < -reach, values.abs() <= reach
        return float(((high - low) / CELLS).prod() * whole.sum()), Cells(low, high, cut) if cut.any() else None

    def moments(self, basis: Polynomials) -> tuple[Array, float]:
        """Integrals of polynomials over it, ``[m]``, and a standard error of them.

        Those over cells that lie inside as a whole are exact, the others are measured by Sobol points.
        """
        low, high, values, reach = self._middles
        along = [basis.between(i, np.linspace(float(low[i]), float(high[i]), CELLS + 1)) for i in range(3)]
        whole = np.einsum("xyz,ax,by,cz->abc", (values < -reach).double().numpy(), *along, optimize=True)
        exact: Array = whole[tuple(basis.powers.T)]
        _, cut = self._counted
        if cut is None:
            return exact, 0.0

        def moments(unit: Tensor) -> Array:
            points = cut.scale(unit)
            integrals: Array = (
                cut.volume / len(unit) * (basis.at(points.numpy()) @ self._inside(points).double().numpy())
            )
            return integrals

        rest, error = estimated(3, moments)
        return exact + rest, error

    @property
    def _middles(self) -> tuple[Tensor, Tensor, Tensor, float]:
        """Corners of the box around it, its function in the middles of cells, and the distance to their corners."""
        low, high = (torch.tensor(corner, dtype=torch.float64) for corner in self.form.bounds)
        if not (high > low).all():
            raise ValueError("a solid without a volume")
        width = (high - low) / CELLS
        middles = low + width * (torch.cartesian_prod(*[torch.arange(CELLS)] * 3) + 0.5)
        return low, high, self.form(middles).view(CELLS, CELLS, CELLS), float(width.norm() / 2)

    @cached_property
    def _coinciding(self) -> dict[int, tuple[Owned, ...]]:
        """By the place of a patch of the form, those that coincide with it in part and come before it.

        Empty where all come after it.
        """
        patches, slack = self.form.patches, TOUCH * self.size
        pairs = [
            (i, j)
            for (i, one), (j, other) in itertools.combinations(enumerate(patches), 2)
            if one.patch.coincides(other.patch, slack)
        ]
        return {k: tuple(patches[i] for i, j in pairs if j == k) for k in {k for pair in pairs for k in pair}}

    @cached_property
    def _surfaces(self) -> dict[str, tuple[Surface, ...]]:
        """The surfaces that are left of those of the forms, by name."""
        shared = self._coinciding
        every = [
            Surface(self, own.patch, own.forms, shared[i]) if i in shared else Surface(self, own.patch)
            for i, own in enumerate(self.form.patches)
        ]
        found = [surface for surface in every if surface.share > 0]
        return {s.patch.name: tuple(each for each in found if each.patch.name == s.patch.name) for s in found}


@dataclass(frozen=True, repr=False)
class Surface(Shape):
    """What is left of a patch on the boundary of a solid, with outward normals.

    Attributes:
        solid: the solid.
        patch: the patch.
        forms: where it coincides with others in part, the combinations whose boundary it is to be on as well.
        before: those others to whose surfaces belongs what they share with it.
    """

    solid: Solid
    patch: Patch
    forms: tuple[Form, ...] = ()
    before: tuple[Owned, ...] = ()

    @property
    def low(self) -> Mapping[str, float]:
        return self.solid.low

    @property
    def high(self) -> Mapping[str, float]:
        return self.solid.high

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(f"n{c}" for c in self.solid.letters)

    @property
    def dimension(self) -> int:
        return 2

    @property
    def measure(self) -> float:
        return self.patch.area * self.share

    @cached_property
    def share(self) -> float:
        """Of the patch, what is left of it."""
        return share_kept(2, self.patch.scale, self._kept)

    def scale(self, unit: Tensor) -> Tensor:
        return self.outward(accepted(unit, self.patch.scale, self._kept))

    def outward(self, points: Tensor) -> Tensor:
        """Points with normals of the patch, with those of the solid, ``[..., 6]``."""
        inward = self._is_inside(points, 1, self.solid.form)
        return torch.cat([points[..., :3], torch.where(inward[..., None], -points[..., 3:], points[..., 3:])], dim=-1)

    def kept(self, unit: Tensor) -> tuple[Array, Array]:
        """Images of points of the unit square, with outward normals, ``[N, 6]``, and 1 for those kept, ``[N]``."""
        points = self.patch.scale(unit)
        return self.outward(points).numpy(), self._kept(points).double().numpy()

    def quadrature(self, nodes: int) -> Rule:
        """A rule for integrals over the surface.

        Of a sphere, or side of a block, as a whole it is exact for polynomials of degree 2 nodes - 1. Else it has
        16 nodes^2 Sobol points, with weights that are fitted to the integrals of polynomials of degree nodes / 2, also
        times a component of the normal, measured by Sobol points, to some 1e-4, which ``Rule.error`` says.
        """
        return _surface_rule(self, nodes)

    def contains(self, points: Tensor, slack: float = 0.0) -> Tensor:
        points = points.double()
        return self.patch.near(points, slack + TOUCH * self.solid.size) & self._kept(self.patch.nearest(points))

    def _kept(self, points: Tensor) -> Tensor:
        """Which points, with their normals, have the solid on one side and not on the other, and are on none before."""
        kept = self._is_boundary(points, self.solid.form, *self.forms)
        for own in self.before:
            near = own.patch.near(points[..., :3], TOUCH * self.solid.size)
            kept &= ~(near & self._is_boundary(points, *own.forms))
        return kept

    def _is_boundary(self, points: Tensor, *forms: Form) -> Tensor:
        """Which points, with their normals, have each of the forms on one side and not on the other."""
        found = torch.ones(points.shape[:-1], dtype=torch.bool)
        for form in forms:
            found &= self._is_inside(points, 1, form) != self._is_inside(points, -1, form)
        return found

    def _is_inside(self, points: Tensor, sign: int, form: Form) -> Tensor:
        places, normals = points[..., :3], points[..., 3:]
        beside = (places + sign * TOUCH * self.solid.size * normals).reshape(-1, 3)
        return (form(beside) <= 0).view(points.shape[:-1])


def ball(
    centre: Sequence[float], radius: float, name: str = "sphere", letters: Sequence[str] = ("x", "y", "z")
) -> Solid:
    """A ball, whose surface has a name.

    Raises:
        ValueError: the radius is not positive, or there are not three coordinates, for which there is ``hyperball``.
    """
    if len(centre) != 3:
        raise ValueError(
            f"a ball about {tuple(centre)}, expected three coordinates; hyperball takes any number of them"
        )
    if not 0 < radius < math.inf or not np.isfinite(centre).all():
        raise ValueError(f"a ball about {tuple(centre)} of radius {radius}, expected finite numbers, a positive radius")
    x, y, z = map(float, centre)
    return Solid(_three(letters), Ball((x, y, z), float(radius), name))


def block(name: str | None = None, **intervals: tuple[float, float]) -> Solid:
    """``block(x=(0, 1), y=(0, 1), z=(0, 2))``, whose sides are called ``x_low``, ``x_high``, ...

    Args:
        name: one for all sides instead.
        intervals: by coordinate.

    Raises:
        ValueError: an interval is empty.
    """
    low, high = zip(*((float(a), float(b)) for a, b in intervals.values()), strict=True)
    letters = _three(tuple(intervals))
    if not all(-math.inf < a < b < math.inf for a, b in zip(low, high, strict=True)):
        raise ValueError(f"a block with the intervals {intervals}, expected the lower end first")
    names = tuple(name or f"{c}_{end}" for c in letters for end in ("low", "high"))
    return Solid(letters, Block(low, high, names))


def _three(letters: Sequence[str]) -> tuple[str, str, str]:
    first, second, third = letters
    return first, second, third


def _rays(nodes: int) -> tuple[Array, Array]:
    """Points of the unit sphere, ``[2 nodes^2, 3]``, and weights that sum to 1; exact up to degree 2 nodes - 1."""
    z, w = gauss(nodes)
    angles = turned(2 * np.pi * (np.arange(2 * nodes) + 0.5) / (2 * nodes))
    height = np.repeat(2 * z - 1, 2 * nodes)
    rays: Array = np.concatenate(
        [np.sqrt(1 - height**2)[:, None] * np.tile(angles, (nodes, 1)), height[:, None]], axis=1
    )
    return rays, np.repeat(w, 2 * nodes) / (2 * nodes)


@cache
def _solid_rule(solid: Solid, nodes: int) -> Rule:
    form = solid.form
    if isinstance(form, Block):
        places, weights = gauss_cube(nodes, 3)
        low, high = np.array(form.low), np.array(form.high)
        return Rule(low + (high - low) * places, weights * (high - low).prod())
    if isinstance(form, Ball):
        z, w = gauss(nodes)
        rays, shares = _rays(nodes)
        points = form.centre + form.radius * (z[:, None, None] * rays).reshape(-1, 3)
        return Rule(points, 4 * math.pi * form.radius**3 * np.outer(w * z**2, shares).ravel())
    low, high = (np.array(corner) for corner in form.bounds)
    basis = Polynomials(low, high, max(nodes - 2, 0))
    surfaces = [surface for name in solid.parts for surface in solid.part(name)]
    error = 0.0
    if all(surface.share == 1 for surface in surfaces):
        moments = inside_of(basis, [rule_over(surfaces, nodes)])
    else:
        moments, error = solid.moments(basis)
    points = solid.scale(sobol(nodes**3, 3)).numpy()
    return fitted(points, basis.at(points), moments, error / moments[0])


@cache
def _surface_rule(surface: Surface, nodes: int) -> Rule:
    if surface.share == 1:
        points, weights, _ = surface.patch.quadrature(nodes)
        return Rule(surface.outward(torch.from_numpy(points)).numpy(), weights)
    points = surface.scale(sobol(PER_SQUARE * nodes**2, 2)).numpy()
    basis = Polynomials(points[:, :3].min(0), points[:, :3].max(0), nodes // 2)

    def moments(unit: Tensor) -> Array:
        places, kept = surface.kept(unit)
        integrals: Array = surface.patch.area / len(unit) * (with_normals(basis, places) @ kept)
        return integrals

    found, error = estimated(2, moments)
    return fitted(points, with_normals(basis, points), found, error / found[0])
