"""What a problem is: a domain, loss terms, and a solution to compare with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ntkrun.geometry import Box


class ProblemError(ValueError):
    """A problem's definition does not fit itself: a wrong shape, an undeclared derivative, a missing target."""


class Columns:
    """Named columns of length N: the coordinates of points (``x.t``) or derivatives at them (``d.u_xx``)."""

    def __init__(self, columns: Mapping[str, Tensor], what: str) -> None:
        self._columns = columns
        self._what = what

    def __getattr__(self, name: str) -> Tensor:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self._columns[name]
        except KeyError:
            raise ProblemError(f"{self._what} has no {name!r}, only {', '.join(self._columns)}") from None


Residual = Callable[[Columns, Columns], Tensor]
"""``residual(x, d)``: coordinates and declared derivatives, columns of length N; returns ``[N]`` or ``[N, m]``."""


@dataclass(frozen=True)
class Term:
    """One loss term: an operator applied to the network minus its target, on a region.

    Attributes:
        name: the name used in configuration, CSV columns and plots.
        region: the boxes from which the term's points are drawn.
        derivatives: what the residual reads, such as ``("u_tt", "u_xx")``; ``"u"`` is the value.
        residual: computes the residual rows.
    """

    name: str
    region: tuple[Box, ...]
    derivatives: tuple[str, ...]
    residual: Residual


class PDE(ABC):
    """A problem on a box.

    Subclasses set ``domain`` and, where the network has several outputs, ``fields``. Every constructor
    argument is a configuration key of the problem. Coordinates are the single letters of the domain.
    """

    domain: Box
    fields: ClassVar[tuple[str, ...]] = ("u",)

    @abstractmethod
    def terms(self) -> tuple[Term, ...]:
        """The loss terms, each with a name of its own."""

    def exact(self, x: Columns) -> Tensor | None:
        """The solution at the points ``x``, ``[N]`` or ``[N, fields]``; ``None`` when none is known."""
        return None

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Coordinate letters, in the order of the network's inputs."""
        return self.domain.coordinates

    def columns(self, points: Tensor) -> Columns:
        """Name the columns of ``points``, ``[N, d]``."""
        return Columns(dict(zip(self.coordinates, points.unbind(1), strict=True)), "the point set")
