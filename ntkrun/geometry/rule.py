"""Rules of quadrature, and their products and sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]


class Rule(NamedTuple):
    """Nodes and weights of a rule for integrals over a region.

    Attributes:
        points: coordinates and what other columns points of the region carry, such as normals, ``[Q, d + k]``.
        weights: ``[Q]``; they sum to the measure.
        error: of the integrals of polynomials for which the rule is made, by their maximum over the region and the
            measure: 0 up to rounding, or a standard error where these integrals were themselves measured.
    """

    points: Array
    weights: Array
    error: float = 0.0


@runtime_checkable
class Measured(Protocol):
    """A region that integrals run over."""

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Coordinate letters."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what points carry beyond their coordinates."""
        ...

    def quadrature(self, nodes: int) -> Rule:
        """A rule of so many nodes per direction and piece."""
        ...


def gauss(nodes: int) -> tuple[Array, Array]:
    """Gauss-Legendre nodes and weights of the unit interval, ``[nodes]`` each; exact up to degree 2 nodes - 1."""
    z, w = np.polynomial.legendre.leggauss(nodes)
    return (z + 1) / 2, w / 2


def gauss_cube(nodes: int, dimensions: int) -> tuple[Array, Array]:
    """Places in the unit cube, ``[Q, dimensions]``, and weights that sum to 1, ``[Q]``, of the product of ``gauss``."""
    z, w = gauss(nodes)
    if not dimensions:
        return np.zeros((1, 0)), np.ones(1)
    places: Array = np.stack(np.meshgrid(*[z] * dimensions, indexing="ij"), axis=-1).reshape(-1, dimensions)
    weights: Array = np.stack(np.meshgrid(*[w] * dimensions, indexing="ij"), axis=-1).reshape(-1, dimensions).prod(1)
    return places, weights


def cube_rule(scale: Callable[[Tensor], Tensor], dimensions: int, measure: float, nodes: int) -> Rule:
    """That of the image of the unit cube under a map that stretches it alike everywhere, and of its measure."""
    places, weights = gauss_cube(nodes, dimensions)
    return Rule(scale(torch.from_numpy(places)).numpy(), weights * measure)


def joined(rules: Sequence[Rule]) -> Rule:
    """The sum of rules over regions whose points have the same columns; of none, one without nodes."""
    if not rules:
        return Rule(np.zeros((0, 0)), np.zeros(0))
    weights = np.concatenate([rule.weights for rule in rules])
    error = sum(rule.error * rule.weights.sum() for rule in rules) / weights.sum()
    return Rule(np.concatenate([rule.points for rule in rules]), weights, float(error))


def rule_over(regions: Sequence[Measured], nodes: int) -> Rule:
    """The sum of rules over regions, such as parts of a boundary."""
    return joined([region.quadrature(nodes) for region in regions])


def turned(angle: Array) -> Array:
    """Points of the unit circle at angles ``[Q]``, ``[Q, 2]``."""
    points: Array = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return points
