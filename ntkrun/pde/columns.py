"""What residuals, integrands and solutions are given: named columns of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ProblemError(ValueError):
    """A problem's definition does not fit itself: a wrong shape, an undeclared derivative, a missing target."""


class Columns:
    """Named columns of length N: the coordinates of points (``x.t``) or derivatives at them (``d.u_xx``).

    Points of some regions carry further columns, such as measured values, under the names that the region gives them.

    ``d.partner`` holds the derivatives at the partner points of a term that has them, and ``x.row`` at the nodes of an
    integral the coordinates of the points that the nodes belong to.
    """

    def __init__(
        self, columns: Mapping[str, Any], what: str, partner: Columns | None = None, row: Columns | None = None
    ) -> None:
        self._columns = columns
        self._what = what
        self._partner = partner
        self._row = row

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self._columns[name]
        except KeyError:
            raise ProblemError(f"{self._what} has no {name!r}, only {', '.join(self._columns)}") from None

    def changed(self, columns: Mapping[str, Any]) -> Columns:
        """The same with others in place of some columns."""
        return Columns({**self._columns, **columns}, self._what, self._partner, self._row)

    @property
    def partner(self) -> Columns:
        """The same derivatives at the partner points."""
        if self._partner is None:
            raise ProblemError(f"{self._what} has no partner points")
        return self._partner

    @property
    def row(self) -> Columns:
        """The points that the nodes of an integral belong to."""
        if self._row is None:
            raise ProblemError(f"{self._what} has no nodes of an integral")
        return self._row
