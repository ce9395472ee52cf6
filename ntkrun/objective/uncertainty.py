"""Standard errors of unknown coefficients from the Jacobian at the end of training."""

from __future__ import annotations

import logging
import math

import torch
from torch import Tensor

from ntkrun.geometry import Sampler, Table, mix_seed
from ntkrun.network.coefficients import coefficient_slopes
from ntkrun.objective.batch import Batch
from ntkrun.objective.objective import Objective

log = logging.getLogger(__name__)

LARGEST = 2**26  # numbers of the Jacobian: half a GiB in float64
MOST = 2**23  # likewise, where it is made larger than that of the run
PER_PARAMETER = 4  # rows, where there were fewer than parameters
RESTLESS = 3  # standard errors of a step, beyond which training has not come to an end; 0.03 to 2.3 where it has
INFLATION = 1e6  # of a variance by unknown others, beyond which the network's own error decides
ADVICE = "fix one of them, or measure what tells them apart"
NAME = "coefficient"  # of the parameter that the coefficients share


def coefficient_errors(objective: Objective, batch: Batch) -> dict[str, float | None]:
    """Standard errors of the coefficients, by name, as linear regression has them.

    Rows of a term are taken to be of equal variance, that of its residuals, and independent of each other. With these
    standard deviations s_i, J~ = diag(1 / s_i) J and the covariance of the parameters is (J~'J~)^-1 N / (N - P). All
    parameters of the network are free in it: what they can make up for, the data do not tell. It knows nothing of an
    equation that is wrong, nor of a network that cannot represent the solution. Of tables, which batches take in turn,
    all rows count. Where there are no more rows than parameters, equations are read at so many more points, for they
    hold everywhere; measured values stay as many. It holds at the end of training; where a step of least squares is
    still large, the log says so.

    Args:
        objective: the problem and the network.
        batch: the points.

    Returns:
        ``None`` for a coefficient that the rows do not determine, or only together with others, and for all where
        there are no more rows than parameters or the Jacobian is too large to be formed.
    """
    slopes = coefficient_slopes(objective.network)
    batch = _with_whole_tables(objective, batch)
    rows, parameters = sum(objective.row_counts(batch)), objective.layout.size
    unknown: dict[str, float | None] = dict.fromkeys(slopes)
    if not slopes or rows * parameters > LARGEST:
        return unknown
    if rows <= parameters:
        batch = _with_more(objective, batch, PER_PARAMETER * parameters)
        rows = sum(objective.row_counts(batch))
    if rows <= parameters:
        few = f"{rows} residuals do not determine {parameters} parameters"
        log.info("no standard errors of %s: %s; take more points or a smaller network", ", ".join(slopes), few)
        return unknown
    with torch.no_grad():
        residuals = [r.double() for r in objective.residuals(batch)]
    deviations = torch.cat([r.square().mean().sqrt().expand(len(r)) for r in residuals])
    if not bool((torch.isfinite(deviations) & (deviations > 0)).all()):
        return unknown
    jacobian = objective.jacobian(batch).dense().double() / deviations[:, None]
    if not bool(torch.isfinite(jacobian).all()):
        return unknown
    where = objective.layout.slices[NAME]
    own, network = jacobian[:, where], torch.cat([jacobian[:, : where.start], jacobian[:, where.stop :]], dim=1)
    left = _beyond(network.cpu(), own.cpu())
    least = (torch.finfo(torch.float64).eps * rows) ** 2 * own.cpu().square().sum(0)  # by round-off alone
    left = left * (left.square().sum(0) > least)
    alone = left.square().sum(0)  # what of each is determined, were all others known
    errors, together, moving = dict(unknown), [], []
    steps = torch.linalg.lstsq(left, -(torch.cat(residuals) / deviations).cpu()[:, None], driver="gelsd").solution[:, 0]
    for j, ((name, slope), information) in enumerate(zip(slopes.items(), _information(left), strict=True)):
        if information > max(float(least[j]), float(alone[j]) / INFLATION):
            deviation = math.sqrt(rows / (rows - parameters) / information)
            errors[name] = abs(slope) * deviation
            ratio = abs(float(steps[j])) / deviation
            if ratio > RESTLESS:
                moving.append(f"{name} by {ratio:.2g}")
        elif alone[j] > least[j]:
            together.append(name)
    if moving:
        log.warning(
            "a step of least squares would still move %s standard errors: training has not come to an end there, and "
            "standard errors say nothing",
            ", ".join(moving),
        )
    if together:
        log.warning("only combinations of %s are determined, so their values are not: %s", ", ".join(together), ADVICE)
    return errors


def _with_whole_tables(objective: Objective, batch: Batch) -> Batch:
    """The batch with all rows of tables, such as measured values, of which it has some, unless these were too many."""
    counts = dict(zip(objective.names, objective.point_counts(batch), strict=True))
    tables = {
        term.name: torch.cat([part.rows for part in term.region if isinstance(part, Table)])
        for term in objective.terms
        if all(isinstance(part, Table) for part in term.region)
    }
    whole = {name: rows for name, rows in tables.items() if len(rows) > counts[name]}
    rows = objective.residual_rows({**counts, **{name: len(rows) for name, rows in whole.items()}})
    if not whole or rows * objective.layout.size > LARGEST:
        return batch
    return objective.batch({**objective.points(batch), **{name: r.to(objective.like) for name, r in whole.items()}})


def _with_more(objective: Objective, batch: Batch, wanted: int) -> Batch:
    """The batch with more points of the terms that read derivatives, so many rows in all, unless these were too many.

    Terms of values alone may stand for data, of which there are no more; so do tables.
    """
    counts = dict(zip(objective.names, objective.point_counts(batch), strict=True))
    equations = [
        i
        for i, term in enumerate(objective.terms)
        if (term.operators or any("_" in name for name in term.derivatives))
        and not any(isinstance(part, Table) for part in term.region)
    ]
    rows = objective.residual_rows(counts)
    own = objective.residual_rows({objective.names[i]: counts[objective.names[i]] for i in equations})
    if not own or wanted * objective.layout.size > MOST:
        return batch
    factor = math.ceil((wanted - rows + own) / own)
    points = objective.points(batch)
    for i in equations:
        term = objective.terms[i]
        more = Sampler(term.region, factor * counts[term.name], "sobol", mix_seed(0, 6, i), term.shares)
        points[term.name] = more.draw().to(objective.like)
    return objective.batch(points)


def _beyond(others: Tensor, own: Tensor) -> Tensor:
    """What of each column of ``own``, ``[N, k]``, no combination of the columns of ``others``, ``[N, p]``, makes up."""
    solution: Tensor = torch.linalg.lstsq(others, own, driver="gelsd").solution
    return own - others @ solution


def _information(columns: Tensor) -> list[float]:
    """Of every column, ``[N, k]``, the square of what the others do not make up."""
    triangle = torch.linalg.qr(columns, mode="r").R
    count = triangle.shape[1]
    if count == 1:
        return [float(triangle.square().sum())]
    rest = [torch.arange(count) != j for j in range(count)]
    return [float(_beyond(triangle[:, r], triangle[:, ~r]).square().sum()) for r in rest]
