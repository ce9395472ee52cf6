"""Derivatives along outward normals, ``u_n`` to ``u_nnnn``, as sums of partial ones."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ntkrun.geometry import TIME, Box, Face, Region
from ntkrun.pde.base import PDE, Columns, ProblemError, Term

NORMAL = "n"  # the letter in names of derivatives, and before coordinates in names of columns


@dataclass(frozen=True)
class NormalDerivative:
    """(n . grad)^k of a derivative of a field.

    Attributes:
        name: as declared.
        parts: partial derivatives, each with its factor and the names of the components of the normal that multiply it.
    """

    name: str
    parts: tuple[tuple[str, int, tuple[str, ...]], ...]

    def value(self, x: Columns, derivatives: Mapping[str, Tensor]) -> Tensor:
        """Its values from those of the partial derivatives, ``[N]``."""
        values = []
        for name, factor, components in self.parts:
            value = factor * derivatives[name]
            for component in components:
                value = value * getattr(x, component)
            values.append(value)
        return torch.stack(values).sum(0)


def oriented(term: Term, pde: PDE) -> Term:
    """The term with normals at its points, where it reads derivatives along them and its regions are boxes.

    Raises:
        ProblemError: a box has no single normal.
    """
    if not _names(term, pde) or _normal_coordinates(term, pde):
        return term
    axes = [_axis(box, term) for box in term.region]
    shown = tuple(c for c in pde.coordinates if c in axes)
    faces = []
    for box, axis in zip(term.region, axes, strict=True):
        assert isinstance(box, Box)
        faces.append(Face(box, axis, -1 if box.low[axis] == pde.domain.low[axis] else 1, shown))
    return replace(term, region=tuple(faces))


def normal_derivatives(term: Term, pde: PDE) -> tuple[NormalDerivative, ...]:
    """The derivatives along normals that an oriented term reads."""
    coordinates = _normal_coordinates(term, pde)
    return tuple(_expanded(name, coordinates) for name in _names(term, pde))


def along_normals(
    names: Sequence[str], coordinates: Sequence[str], columns: Sequence[str]
) -> tuple[NormalDerivative, ...]:
    """Those of some derivatives that are taken along the normal of points with columns such as ``nx``.

    Args:
        names: of the derivatives.
        coordinates: letters of the problem.
        columns: of the points.

    Raises:
        ProblemError: the points carry no normal.
    """
    along = [name for name in names if _is_normal(name, coordinates)]
    known = [c for c in coordinates if NORMAL + c in columns]
    if along and not known:
        raise ProblemError(f"derivative {along[0]}: its nodes have no normal, expected those of parts of a boundary")
    return tuple(_expanded(name, known) for name in along)


def _expanded(name: str, coordinates: Sequence[str]) -> NormalDerivative:
    field, _, letters = name.partition("_")
    order, others = letters.count(NORMAL), letters.replace(NORMAL, "")
    parts = []
    for chosen in itertools.combinations_with_replacement(coordinates, order):
        factor = math.factorial(order) // math.prod(map(math.factorial, Counter(chosen).values()))
        parts.append((f"{field}_{''.join(chosen)}{others}", factor, tuple(NORMAL + c for c in chosen)))
    return NormalDerivative(name, tuple(parts))


def _names(term: Term, pde: PDE) -> list[str]:
    """The derivatives of a term that name the normal."""
    return [name for name in term.derivatives if _is_normal(name, pde.coordinates)]


def _is_normal(name: str, coordinates: Sequence[str]) -> bool:
    return NORMAL not in coordinates and NORMAL in name.partition("_")[2]


def _normal_coordinates(term: Term, pde: PDE) -> list[str]:
    return [c for c in pde.coordinates if NORMAL + c in term.columns]


def _axis(box: Region, term: Term) -> str:
    """The coordinate along which the normal of a flat box points; time only where space is not flat."""
    flat = [c for c in box.coordinates if c not in box.free] if isinstance(box, Box) else []
    if len(flat) > 1:
        flat = [c for c in flat if c != TIME]
    if len(flat) != 1:
        names = ", ".join(name for name in term.derivatives if NORMAL in name.partition("_")[2])
        kind = "a box that is flat along one coordinate" if isinstance(box, Box) else "one whose points carry a normal"
        raise ProblemError(f"loss term {term.name!r}, derivative {names}: a region has no normal, expected {kind}")
    return flat[0]
