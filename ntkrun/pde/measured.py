"""Loss terms of measured values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ntkrun.geometry import Sampler, Table, mix_seed
from ntkrun.pde.base import PDE, Columns, ProblemError, Residual, Term

DATA = "data"
SEED = 7  # of values made up for problems of the menu, the same in every run
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


def held_apart(tables: Mapping[str, Table], share: float, seed: int) -> tuple[dict[str, Table], dict[str, Table]]:
    """Measured values to train on, and others to tell by how well the network does.

    Args:
        tables: by field.
        share: of the rows of every table that are held out; rounded, at least one and not all of them.
        seed: of the choice, which is random.

    Returns:
        The tables of both.

    Raises:
        ProblemError: there is no table, or one of a single row.
    """
    if not tables:
        raise ProblemError("there are no measured values to hold out")
    trained, held = {}, {}
    for i, (field, table) in enumerate(tables.items()):
        rows = len(table.rows)
        if rows == 1:
            raise ProblemError(f"there is one measured value of {field}, which cannot be held out and trained on")
        order = torch.randperm(rows, generator=torch.Generator().manual_seed(mix_seed(seed, 6, i)))
        count = min(max(1, round(share * rows)), rows - 1)
        held[field] = replace(table, rows=table.rows[order[:count].sort().values])
        trained[field] = replace(table, rows=table.rows[order[count:].sort().values])
    return trained, held


def measured_at_random(pde: PDE, fields: Sequence[str], number: int, noise: float) -> dict[str, Table]:
    """Values of a problem's own solution at points of a Sobol sequence, as an experiment might give them.

    Args:
        pde: a problem with a closed form.
        fields: those to measure.
        number: of points.
        noise: standard deviation of independent normal errors, in those of a field's values.
    """
    points = Sampler((pde.domain,), number, "sobol", SEED).draw()
    exact = pde.exact(pde.columns(points))
    assert exact is not None
    values = exact.reshape(number, -1)
    return {field: noisy(pde, field, points, values[:, pde.fields.index(field)], noise) for field in fields}


def noisy(pde: PDE, field: str, points: Tensor, values: Tensor, noise: float) -> Table:
    """A table of values, ``[N]`` in float64, with errors; see ``measured_at_random``."""
    generator = torch.Generator().manual_seed(mix_seed(SEED, pde.fields.index(field)))
    errors = torch.randn(len(values), generator=generator, dtype=torch.float64)
    return Table(pde.coordinates, (field,), torch.cat([points, (values + noise * values.std() * errors)[:, None]], 1))


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
