"""Spread-out choices of points: replicated systematic samples along a space-filling curve.

The diagonal of a kernel is a function of the point, smooth where the residual is. Points taken at equal distances along
a curve that stays near itself represent all of them better than points drawn at random: every stretch of the curve has
its share. Several such samples with offsets of their own tell how far their mean may be off.

Sources: W. G. Cochran, "Sampling Techniques", chapter 8 (systematic samples and their replication); J. Skilling,
"Programming the Hilbert curve", AIP Conference Proceedings 707 (2004).
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

FINER = 2  # levels of the curve beyond those that give every point a cell of its own
FEW = 32  # chosen points below which there are two replicates, else four


def hilbert_order(points: Tensor) -> Tensor:
    """In which order a Hilbert curve of their bounding box visits ``points``, ``[N, d]``: indices, ``[N]``.

    Coordinates that all points share take no part. Points in one cell of the curve keep their order.
    """
    points = points.detach().cpu().double()
    if len(points) < 2:
        return torch.arange(len(points))
    low, high = points.min(0).values, points.max(0).values
    free = high > low
    dimensions = int(free.sum())
    if dimensions == 0:
        return torch.arange(len(points))
    unit = (points[:, free] - low[free]) / (high[free] - low[free])
    if dimensions == 1:
        return unit[:, 0].argsort(stable=True)
    levels = min(62 // dimensions, math.ceil(math.log2(len(points)) / dimensions) + FINER)
    if levels == 0:
        return torch.arange(len(points))
    cells = list((unit * (2**levels - 1)).round().long().T)
    return _positions(cells, levels).argsort(stable=True)


def _positions(cells: list[Tensor], levels: int) -> Tensor:
    """Where a Hilbert curve of so many levels passes cells of the cube, ``[N]`` per dimension; Skilling's transform."""
    axes = [cell.clone() for cell in cells]
    top = 1 << (levels - 1)
    bit = top
    while bit > 1:
        below = bit - 1
        for i, axis in enumerate(axes):
            inverted = (axis & bit) != 0
            exchanged = torch.where(inverted, 0, (axes[0] ^ axis) & below)
            axes[0] = axes[0] ^ torch.where(inverted, below, exchanged)
            if i:
                axes[i] = axis ^ exchanged
        bit >>= 1
    for i in range(1, len(axes)):
        axes[i] = axes[i] ^ axes[i - 1]
    flips = torch.zeros_like(axes[0])
    bit = top
    while bit > 1:
        flips = torch.where((axes[-1] & bit) != 0, flips ^ (bit - 1), flips)
        bit >>= 1
    position = torch.zeros_like(flips)
    for level in reversed(range(levels)):
        for axis in axes:
            position = position * 2 + (((axis ^ flips) >> level) & 1)
    return position


def replicate_sizes(size: int) -> tuple[int, ...]:
    """How many points each replicate of a systematic sample of ``size`` points has."""
    count = min(size, 2 if size < FEW else 4)
    return tuple(size * (k + 1) // count - size * k // count for k in range(count))


def systematic_sample(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Positions among ``count`` points in order, ``[size]``, those of one replicate after the other.

    A replicate of m points takes one at every count / m positions from an offset on. Offsets are uniform, so that each
    point is expected m / count times in it; replicates of as many points have none in common.

    Args:
        count: number of points; more than ``size``.
        size: number of points to choose.
        generator: source of the offsets, on the CPU.
    """
    places = count // max(replicate_sizes(size))
    numbers = torch.rand(1 + places, generator=generator, dtype=torch.float64)
    replicate, step, distance = _strides(count, size)
    offsets = (numbers[1:].argsort() + numbers[0]) / places
    return ((offsets[replicate] + step) * distance).long().clamp_(max=count - 1)


def places_along(size: int, generator: torch.Generator) -> Tensor:
    """Places on a line of length 1, ``[size]``, those of one replicate after the other, whose offsets are independent.

    Each of a replicate's m places is as likely anywhere in its m-th of the line. In a stretch of length w, which stands
    for a point with that chance, m w of them are expected.
    """
    replicate, step, distance = _strides(1, size)
    offsets = torch.rand(len(replicate_sizes(size)), generator=generator, dtype=torch.float64)
    return (offsets[replicate] + step) * distance


@lru_cache(maxsize=64)
def _strides(count: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of every point of a sample: its replicate, its number there, and the distance to the next, ``[size]`` each."""
    sizes = torch.tensor(replicate_sizes(size))
    replicate = torch.arange(len(sizes)).repeat_interleave(sizes)
    number = torch.cat([torch.arange(m) for m in sizes.tolist()])
    return replicate, number, (count / sizes.double())[replicate]
