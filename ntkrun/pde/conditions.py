"""Loss terms of common conditions, in one line each.

A value is a number or a function of the coordinates, ``lambda x: torch.sin(x.t)``. Normals point outwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ntkrun.geometry import Domain, Region
from ntkrun.pde.base import Columns, ProblemError, Term
from ntkrun.pde.integral import Integral

Value = float | Callable[[Columns], Tensor]
Regions = Region | Sequence[Region]


def dirichlet(name: str, region: Regions, value: Value = 0.0, field: str = "u") -> Term:
    """The field has a given value.

    Args:
        name: of the term.
        region: a region, or several.
        value: of the field.
        field: the field.
    """
    return Term(name, _parts(region), (field,), lambda x, d: getattr(d, field) - _at(value, x))


def neumann(name: str, region: Regions, value: Value = 0.0, field: str = "u") -> Term:
    """The normal derivative of the field has a given value.

    Args:
        name: of the term.
        region: faces of the domain, or regions whose points carry normals.
        value: of the normal derivative.
        field: the field.
    """
    return robin(name, region, value, 0.0, 1.0, field)


def robin(name: str, region: Regions, value: Value = 0.0, a: Value = 1.0, b: Value = 1.0, field: str = "u") -> Term:
    """A combination of the field and its normal derivative has a given value, a u + b u_n = value.

    Args:
        name: of the term.
        region: faces of the domain, or regions whose points carry normals.
        value: of the combination.
        a: factor of the field.
        b: factor of its normal derivative.
        field: the field.
    """
    slope = f"{field}_n"

    def residual(x: Columns, d: Columns) -> Tensor:
        flux: Tensor = _at(b, x) * getattr(d, slope) - _at(value, x)
        return flux if a == 0 else flux + _at(a, x) * getattr(d, field)

    return Term(name, _parts(region), (slope,) if a == 0 else (field, slope), residual)


def periodic(name: str, domain: Domain, coordinate: str, order: int = 1, fields: Sequence[str] = ("u",)) -> Term:
    """Values and derivatives along a coordinate are the same at both ends of the domain.

    Args:
        name: of the term.
        domain: of the problem.
        coordinate: along which the solution is periodic.
        order: derivatives below this order are meant, 1 for values alone; that of the equation is enough.
        fields: the fields.

    Returns:
        A term of ``order`` residuals per field, which ``network.periodic=true`` replaces where the problem has that
        period among its ``periods``.
    """
    low = domain.face(coordinate, "low")
    names = tuple(_derivative(field, k * coordinate) for field in fields for k in range(order))
    period = {coordinate: domain.high[coordinate] - domain.low[coordinate]}
    return Term(
        name,
        (low,),
        names,
        lambda x, d: torch.stack([getattr(d, each) - getattr(d.partner, each) for each in names], dim=1),
        period,
    )


def interface(
    name: str,
    region: Regions,
    fields: tuple[str, str],
    factors: tuple[Value, Value] = (1.0, 1.0),
    order: int = 2,
    jumps: Sequence[Value] = (),
) -> Term:
    """Two fields, each the solution on one side of a surface, fit together: u = v and a u_n = b v_n, or by given jumps.

    Args:
        name: of the term.
        region: the surface: boxes that are flat in one coordinate, or regions whose points carry normals.
        fields: u and v.
        factors: a and b, such as conductivities.
        order: 1 for the values alone; of fourth-order equations 4, with the same factors for all derivatives.
        jumps: u - v, a u_n - b v_n and so on, as far as they are not zero.

    Returns:
        A term of ``order`` residuals per point.

    Raises:
        ProblemError: there are more jumps than residuals.
    """
    first, second = fields
    names = [(_derivative(first, k * "n"), _derivative(second, k * "n")) for k in range(order)]
    if len(jumps) > order:
        raise ProblemError(f"loss term {name!r}: {len(jumps)} jumps for an interface of order {order}")
    given = (*jumps, *[0.0] * (order - len(jumps)))

    def residual(x: Columns, d: Columns) -> Tensor:
        a, b = (_at(factor, x) for factor in factors)
        rows = [
            getattr(d, u) - getattr(d, v) if k == 0 else a * getattr(d, u) - b * getattr(d, v)
            for k, (u, v) in enumerate(names)
        ]
        return torch.stack([row - _at(jump, x) for row, jump in zip(rows, given, strict=True)], dim=1)

    return Term(name, _parts(region), tuple(each for pair in names for each in pair), residual)


def conserved(name: str, region: Regions, quantity: Integral, value: Value) -> Term:
    """An integral has a given value: a mass, a mean, at every point of a region.

    Args:
        name: of the term.
        region: which integrals are meant: the face at the low end of all coordinates that are integrated over stands
            for all of them, so that its points are times, say, and a single point for a single number.
        quantity: ``integral("u", x=(0.0, 1.0))``, with ``mean=True`` for a mean.
        value: of the integral.
    """
    return Term(name, _parts(region), (), lambda x, d: d.quantity - _at(value, x), integrals={"quantity": quantity})


def _parts(region: Regions) -> tuple[Region, ...]:
    parts = (region,) if isinstance(region, Region) else tuple(region)
    if not parts:
        raise ProblemError("a condition is given without a region")
    return parts


def _at(value: Value, x: Columns) -> Any:
    return value(x) if callable(value) else value


def _derivative(field: str, letters: str) -> str:
    return f"{field}_{letters}" if letters else field
