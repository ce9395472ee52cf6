"""Polygons cut into vertical strips, which map the unit square onto them by equal areas."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ntkrun.geometry.region import chosen_by

Array = NDArray[np.float64]


class Trapezoids:
    """A polygon, with holes and in several pieces if need be, as trapezoids between successive abscissae of vertices.

    The map is that of Rosenblatt (Ann. Math. Stat. 23, 1952): u is the share of the area to the left of x, and v the
    share of the vertical line through x that lies below y. It turns areas into areas of a constant multiple, so that
    Sobol points of the square are spread as evenly over the polygon.

    Args:
        rings: closed chains of vertices, ``[n, 2]`` each with the first repeated at the end: outlines and holes.

    Attributes:
        area: of the polygon.
    """

    def __init__(self, rings: Sequence[Array]) -> None:
        left, right = (np.concatenate(ends) for ends in zip(*((ring[:-1], ring[1:]) for ring in rings), strict=True))
        steep = left[:, 0] == right[:, 0]
        left, right = left[~steep], right[~steep]
        swapped = left[:, 0] > right[:, 0]
        left, right = np.where(swapped[:, None], right, left), np.where(swapped[:, None], left, right)
        x = np.unique(np.concatenate([left[:, 0], right[:, 0]]))
        strips = [_strip(left, right, *ends) for ends in pairwise(x)]
        most = max(len(strip) for strip in strips)
        ends = np.zeros((len(strips), most, 2, 2))  # [strip, trapezoid, left or right, lower or upper]
        for k, strip in enumerate(strips):
            ends[k, : len(strip)] = strip
        self._x = torch.from_numpy(x)
        self._ends = torch.from_numpy(ends)
        self._heights = self._ends[..., 1] - self._ends[..., 0]  # [strip, trapezoid, left or right]
        widths = self._x.diff()
        areas = self._heights.mean(-1).sum(-1) * widths
        self._shares = torch.cat([areas.new_zeros(1), areas.cumsum(0)]) / areas.sum()
        self.area = float(areas.sum())

    def scale(self, unit: Tensor) -> Tensor:
        """Map points of the unit square, ``[..., 2]`` in float64, into the polygon, ``[..., 2]``."""
        u, v = unit.reshape(-1, 2).T.contiguous()
        strip, part = chosen_by(self._shares, u)
        start, end = self._heights[strip].sum(1).unbind(1)
        # The height grows linearly from start to end: the share s of the width with the share part of the area solves
        # start s + (end - start) s^2 / 2 = part (start + end) / 2.
        area = part * (start + end)
        s = area / (start + (start**2 + area * (end - start)).clamp_min(0).sqrt())
        s = torch.where(area > 0, s, 0.0).clamp(0, 1)
        x = self._x[strip] + s * (self._x[strip + 1] - self._x[strip])
        lower = torch.lerp(self._ends[strip, :, 0, 0], self._ends[strip, :, 1, 0], s[:, None])
        upper = torch.lerp(self._ends[strip, :, 0, 1], self._ends[strip, :, 1, 1], s[:, None])
        tops = (upper - lower).cumsum(1)
        height = v * tops[:, -1]
        k = torch.searchsorted(tops, height[:, None], right=True)[:, 0]
        k = torch.minimum(k, (tops < tops[:, -1:]).sum(1))[:, None]  # of the heights of 0 that fill up, none
        below = (tops - (upper - lower)).gather(1, k)[:, 0]
        y = torch.minimum(lower.gather(1, k)[:, 0] + (height - below), upper.gather(1, k)[:, 0])
        return torch.stack([x, y], dim=1).view(unit.shape)


def _strip(left: Array, right: Array, start: float, end: float) -> Array:
    """The trapezoids between two abscissae, ``[k, 2, 2]``, from below: left and right, lower and upper end."""
    through = (left[:, 0] <= start) & (right[:, 0] >= end)
    a, b = left[through], right[through]
    slope = (b[:, 1] - a[:, 1]) / (b[:, 0] - a[:, 0])
    heights = np.stack([a[:, 1] + slope * (x - a[:, 0]) for x in (start, end)], axis=1)
    order = np.argsort(heights.sum(1), kind="stable")
    return heights[order].reshape(-1, 2, 2).transpose(0, 2, 1)
