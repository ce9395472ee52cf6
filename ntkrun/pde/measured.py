"""Loss terms of measured values."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ntkrun.geometry import Table
from ntkrun.pde.base import PDE, Columns, Residual, Term

DATA = "data"
STD = "_std"  # after a field's name: the column of the standard deviations of its values


def loss_terms(pde: PDE) -> tuple[Term, ...]:
    """All loss terms of a problem: its own, and those of measured values."""
    return (*pde.terms(), *data_terms(pde.measurements))


def data_terms(tables: Mapping[str, Table]) -> tuple[Term, ...]:
    """One loss term for every measured field: ``data`` where there is one field, else ``data_<field>``.

    The residual is field minus value. With standard deviations s it is multiplied by 1 / s over the root mean square of
    1 / s, so that values count by their accuracy while the term keeps the size of a mean squared difference.

    Args:
        tables: by field, with a column of the field's name, and one of its standard deviations, ``<field>_std``, or
            none.
    """
    return tuple(
        Term(DATA if len(tables) == 1 else f"{DATA}_{field}", (table,), (field,), _misfit(field, table))
        for field, table in tables.items()
    )


def _misfit(field: str, table: Table) -> Residual:
    deviation = field + STD
    if deviation not in table.columns:
        return lambda x, d: getattr(d, field) - getattr(x, field)
    deviations = table.rows[:, len(table.coordinates) + table.columns.index(deviation)]
    scale = float(deviations.double().reciprocal().square().mean().rsqrt())

    def residual(x: Columns, d: Columns) -> Tensor:
        difference: Tensor = getattr(d, field) - getattr(x, field)
        weighted: Tensor = difference * (scale / getattr(x, deviation))
        return weighted

    return residual
