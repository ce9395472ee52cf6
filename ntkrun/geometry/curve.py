"""Parts of the boundary of a shape in the plane, with outward normals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ntkrun.geometry.quadrature import curve_rule
from ntkrun.geometry.region import chosen_by
from ntkrun.geometry.rule import Rule
from ntkrun.geometry.shape import Shape


@dataclass(frozen=True, eq=False, repr=False)
class Curve(Shape):
    """Straight segments and arcs of circles in the plane.

    Attributes:
        letters: of both coordinates.
        start, end: of the segments, ``[n, 2]``; the shape lies to their left.
        centre: of the circle whose chord a segment is, ``[n, 2]``; NaN where there is none.
        radius: of these circles, ``[n]``.
    """

    letters: tuple[str, str]
    start: Tensor
    end: Tensor
    centre: Tensor
    radius: Tensor

    @property
    def low(self) -> Mapping[str, float]:
        corners = torch.minimum(self.start, self.end).amin(0).tolist()
        return dict(zip(self.letters, corners, strict=True))

    @property
    def high(self) -> Mapping[str, float]:
        corners = torch.maximum(self.start, self.end).amax(0).tolist()
        return dict(zip(self.letters, corners, strict=True))

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(f"n{c}" for c in self.letters)

    @property
    def dimension(self) -> int:
        return 1

    @property
    def measure(self) -> float:
        return float(self._lengths().sum())

    def scale(self, unit: Tensor) -> Tensor:
        """Points by arc length and their normals, ``[..., 4]``; those of arcs lie on the circles."""
        along = unit.reshape(-1).contiguous()
        lengths = self._lengths()
        ends = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]) / lengths.sum()
        k, s = chosen_by(ends, along)
        points = torch.lerp(self.start[k], self.end[k], s[:, None])
        tangent = torch.nn.functional.normalize(self.end[k] - self.start[k], dim=1)
        normal = torch.stack([tangent[:, 1], -tangent[:, 0]], dim=1)
        ray = torch.nn.functional.normalize(points - self.centre[k], dim=1)
        outward = ray * (ray * normal).sum(1, keepdim=True).sign()
        bent = ~self.centre[k].isnan()
        points = torch.where(bent, self.centre[k] + self.radius[k, None] * ray, points)
        columns = torch.cat([points, torch.where(bent, outward, normal)], dim=1)
        return columns.view(*unit.shape[:-1], 4)

    def contains(self, points: Tensor, slack: float = 0.0) -> Tensor:
        along, across = self.end - self.start, points[:, None] - self.start
        s = ((across * along).sum(-1) / along.square().sum(-1)).clamp(0, 1)
        distance = (across - s[..., None] * along).norm(dim=-1)
        sagitta = torch.where(self.centre[:, 0].isnan(), 0.0, self.radius - self._apothem())
        near: Tensor = distance <= slack + sagitta
        return near.any(1)

    def quadrature(self, nodes: int) -> Rule:
        """A rule for integrals along the curve; see ``curve_rule``."""
        start, end, centre, radius = (each.numpy() for each in (self.start, self.end, self.centre, self.radius))
        return curve_rule(start, end, centre, radius, nodes)

    def _lengths(self) -> Tensor:
        """Of segments and of the arcs above them, ``[n]``."""
        chord = (self.end - self.start).norm(dim=1)
        half = (chord / (2 * self.radius)).clamp(max=1)
        return torch.where(self.centre[:, 0].isnan(), chord, 2 * self.radius * half.asin())

    def _apothem(self) -> Tensor:
        """Distance of chords from the centres of their circles, ``[n]``."""
        half: Tensor = (self.end - self.start).norm(dim=1) / 2
        return (self.radius**2 - half**2).clamp_min(0).sqrt()
