"""Checks of the form of a problem's definition."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real

from torch import Tensor

from ntkrun.common.user_frames import cause, written
from ntkrun.geometry import Box, Domain, Measured, Region, Shape, Table
from ntkrun.pde.base import PDE, Coefficient, ProblemError, Term
from ntkrun.pde.integral import Integral


def check_problem(pde: PDE) -> None:
    """Check the form of a problem's definition, before any network is built for it.

    Raises:
        ProblemError: what is wrong, in one line.
    """
    _check_domain(getattr(pde, "domain", None))
    if isinstance(pde.fields, str) or not all(isinstance(f, str) and f.isidentifier() for f in pde.fields):
        raise ProblemError(f"fields={pde.fields!r}: expected a tuple of names, as ('u',)")
    if len(set(pde.fields)) < len(pde.fields) or not pde.fields or any("_" in field for field in pde.fields):
        raise ProblemError(f"fields={pde.fields!r}: expected different names without underscores")
    _check_coefficients(pde)
    _check_dependence(pde)
    _check_supports(pde)
    try:
        terms: object = pde.terms()
    except Exception as error:
        raise ProblemError(f"terms() fails with {cause(error)}") from error
    if not isinstance(terms, tuple | list):
        hint = "; is its return missing?" if terms is None else ""
        raise ProblemError(f"terms() gives a {type(terms).__name__}, expected a tuple of Term{hint}")
    for term in terms:
        if not isinstance(term, Term):
            raise ProblemError(f"terms() gives a {type(term).__name__} among its terms, expected a tuple of Term")
        try:
            _check_term(term, pde)
        except ProblemError as error:
            raise ProblemError(f"{error}{written(term.residual)}") from error
    _check_measurements(pde)
    built_in = pde.built_in or ()
    if isinstance(built_in, str) or not set(built_in) <= {term.name for term in terms}:
        raise ProblemError(f"built_in={pde.built_in!r}: expected a set of names of loss terms")
    if built_in and not pde.constrains:
        raise ProblemError("built_in names loss terms, but there is no constrain() that makes them hard constraints")
    if not set(pde.periods) <= set(pde.coordinates):
        raise ProblemError(f"periods={dict(pde.periods)}: the coordinates are {', '.join(pde.coordinates)}")


def floating_fields(pde: PDE) -> tuple[str, ...]:
    """The fields of which all terms read derivatives alone, as of a pressure: a constant may be added to each.

    Where ``constrain`` makes the fields from what the network gives, it may fix them, and none is named.
    """
    if pde.constrains:
        return ()
    read = {*pde.measurements}
    for term in pde.terms():
        read |= {*term.derivatives, *(name for each in term.integrals.values() for name in each.derivatives)}
    return tuple(field for field in pde.fields if field not in read)


def unread_coefficients(pde: PDE) -> tuple[str, ...]:
    """The unknown coefficients that no loss term declares, so that nothing trains them.

    Where ``constrain`` makes the fields from what the network gives, it may read them, and none is named.
    """
    if pde.constrains:
        return ()
    read = {name for term in pde.terms() for name in term.derivatives}
    for each in (each for term in pde.terms() for each in term.integrals.values()):
        read |= set(each.derivatives)
    return tuple(c.name for c in pde.coefficients if c.name not in read)


def _check_dependence(pde: PDE) -> None:
    given: object = pde.depends
    known = isinstance(given, Mapping) and all(
        field in pde.fields and isinstance(letters, tuple | list) and letters and set(letters) <= set(pde.coordinates)
        for field, letters in given.items()
    )
    if not known:
        raise ProblemError(
            f"depends={given!r}: expected some of the coordinates {', '.join(pde.coordinates)} by field, as "
            f"{{{pde.fields[-1]!r}: ({pde.coordinates[0]!r},)}}; the fields are {', '.join(pde.fields)}"
        )


def _check_supports(pde: PDE) -> None:
    given: object = pde.supports
    if not isinstance(given, Mapping) or not all(
        field in pde.fields and isinstance(part, Domain) and part.coordinates == pde.coordinates
        for field, part in given.items()
    ):
        raise ProblemError(
            f"supports={given!r}: expected a box or shape of {', '.join(pde.coordinates)} by field, as "
            f"{{{pde.fields[0]!r}: disc(...)}}; the fields are {', '.join(pde.fields)}"
        )


def _check_measurements(pde: PDE) -> None:
    tables: object = pde.measurements
    if not isinstance(tables, Mapping) or not all(isinstance(table, Table) for table in tables.values()):
        raise ProblemError(f"measurements={tables!r}: expected tables by field, as {{'u': Table(...)}}")
    for field, table in tables.items():
        if field not in pde.fields or table.coordinates != pde.coordinates or table.columns[:1] != (field,):
            raise ProblemError(
                f"measurements of {field!r} have the columns {', '.join((*table.coordinates, *table.columns))}; "
                f"expected are {', '.join(pde.coordinates)}, a field and what is known of it, the fields being "
                f"{', '.join(pde.fields)}"
            )


def _check_domain(domain: object) -> None:
    if not isinstance(domain, Shape):
        _check_box(domain, "the domain")
        return
    if domain.columns or not set(domain.free) == set(domain.coordinates):
        raise ProblemError("the domain is a part of a boundary, expected a shape with an area or a volume")
    try:
        measure = domain.measure
    except ValueError as error:
        raise ProblemError(f"the domain: {error}") from error
    if not 0 < measure < math.inf:
        raise ProblemError(f"the domain has the measure {measure}, expected a finite one above 0")


def _check_coefficients(pde: PDE) -> None:
    given: object = pde.coefficients
    if not isinstance(given, tuple | list) or not all(isinstance(c, Coefficient) for c in given):
        raise ProblemError(f"coefficients={given!r}: expected a tuple, as (Coefficient(name='nu', start=1.0),)")
    names = [c.name for c in given]
    named = all(isinstance(name, str) and name.isidentifier() and "_" not in name for name in names)
    if not named or len({*names, *pde.fields, *pde.coordinates}) < len([*names, *pde.fields, *pde.coordinates]):
        raise ProblemError(
            f"the coefficients are called {', '.join(map(str, names))}: expected different names without underscores, "
            "of no field and no coordinate"
        )
    for c in given:
        _check_coefficient(c)


def _check_coefficient(c: Coefficient) -> None:
    what = f"coefficient {c.name}"
    if c.bounds is not None and not (isinstance(c.bounds, tuple | list) and len(c.bounds) == 2):
        raise ProblemError(f"{what}: the bounds are {c.bounds!r}, expected two numbers")
    for number in (c.start, *(c.bounds or ()), c.scale, c.true):
        if number is not None and not (isinstance(number, Real) and math.isfinite(number)):
            raise ProblemError(f"{what}: {number!r} is no finite number")
    if c.bounds is not None and not c.bounds[0] < c.start < c.bounds[1]:
        raise ProblemError(f"{what}: start={c.start} does not lie between the bounds {c.bounds}")
    if c.positive and (c.start <= 0 or c.bounds is not None):
        raise ProblemError(f"{what}: a positive one starts above 0 and has no bounds")
    if c.scale is not None and c.scale <= 0:
        raise ProblemError(f"{what}: scale={c.scale} is to be above 0")


def _check_term(term: Term, pde: PDE) -> None:
    what = f"loss term {term.name!r}"
    if not isinstance(term.name, str) or not term.name:
        raise ProblemError(f"{what}: expected a name")
    if not isinstance(term.region, tuple | list) or not term.region:
        raise ProblemError(f"{what}: the region is a {type(term.region).__name__}, expected a tuple of Box, as (box,)")
    _check_regions(term, pde)
    names = term.derivatives
    if not isinstance(names, tuple | list) or not all(isinstance(name, str) for name in names):
        raise ProblemError(f"{what}: the derivatives are {names!r}, expected a tuple of names, as ('u', 'u_xx')")
    if not names and not term.operators and not term.integrals:
        raise ProblemError(f"{what}: it names no derivatives, as ('u', 'u_xx')")
    if not isinstance(term.operators, Mapping) or not all(map(_is_operator, term.operators.items())):
        raise ProblemError(
            f"{what}: the operators are {term.operators!r}, expected finite factors by derivative under names of their "
            "own, as {'wave': {'u_tt': 1.0, 'u_xx': -4.0}}"
        )
    _check_integrals(term, pde)
    known = [*set(names), *term.operators, *term.integrals]
    if twice := {name for name in known if known.count(name) > 1}:
        raise ProblemError(f"{what}: {', '.join(sorted(twice))} names two of its derivatives, operators and integrals")
    if not callable(term.residual):
        raise ProblemError(f"{what}: the residual is of type {type(term.residual).__name__}, expected a function")
    if term.partner is not None and not (
        isinstance(term.partner, Mapping)
        and set(term.partner) <= set(pde.coordinates)
        and all(map(_is_place, term.partner.values()))
    ):
        raise ProblemError(
            f"{what}: the partner is {term.partner!r}, expected distances, or functions of the point, by coordinate"
        )
    if term.shares is not None and not (
        isinstance(term.shares, tuple | list)
        and len(term.shares) == len(term.region)
        and all(isinstance(share, Real) and 0 < float(share) < math.inf for share in term.shares)
    ):
        raise ProblemError(
            f"{what}: the shares are {term.shares!r}, expected one positive number for each of {len(term.region)} boxes"
        )


def _check_regions(term: Term, pde: PDE) -> None:
    what = f"loss term {term.name!r}: the region"
    for part in term.region:
        if isinstance(part, Box) or not isinstance(part, Region):
            _check_box(part, what, pde.coordinates)
        elif part.coordinates != pde.coordinates:
            raise ProblemError(f"{what} has the coordinates {list(part.coordinates)}, expected {list(pde.coordinates)}")
    columns = [tuple(part.columns) for part in term.region]
    if different := [each for each in columns if each != columns[0]]:
        raise ProblemError(
            f"{what} has parts with the columns {list(columns[0])} and {list(different[0])}; they must be alike"
        )
    names = [*pde.coordinates, "progress", *columns[0]]
    if not all(isinstance(name, str) and name.isidentifier() for name in names) or len({*names}) < len(names):
        raise ProblemError(f"{what} has the columns {list(columns[0])}, expected names of no coordinate, all different")


def _check_integrals(term: Term, pde: PDE) -> None:
    what = f"loss term {term.name!r}"
    given: object = term.integrals
    if not isinstance(given, Mapping) or not all(isinstance(each, Integral) for each in given.values()):
        raise ProblemError(f"{what}: the integrals are {given!r}, expected {{'mass': integral('u', x=(0.0, 1.0))}}")
    for name, each in term.integrals.items():
        if not isinstance(name, str) or not name.isidentifier() or name in ("partner", "row"):
            raise ProblemError(f"{what}: an integral is called {name!r}, expected a name of its own")
        if each.shape is not None:
            _check_integrated(each.shape, f"{what}: integral {name!r}")
        if not each.coordinates or not set(each.coordinates) <= set(pde.coordinates):
            raise ProblemError(f"{what}: integral {name!r} runs over {list(each.coordinates)}, expected coordinates")
        for c, ends in each.over.items():
            _check_ends(ends, f"{what}: integral {name!r}", c, pde)
        if not isinstance(each.nodes, int) or each.nodes < 1:
            raise ProblemError(f"{what}: integral {name!r} has nodes={each.nodes!r}, expected 1 or more")
        if not callable(each.integrand) or not each.derivatives:
            raise ProblemError(f"{what}: integral {name!r} names no derivatives, as integral('u', x=(0.0, 1.0))")
        try:
            _ = each.rule  # made here, where its errors have a name
        except ValueError as error:
            raise ProblemError(f"{what}: integral {name!r}: {error}") from error


def _check_integrated(regions: Sequence[object], what: str) -> None:
    if not regions:
        raise ProblemError(f"{what} has no region, expected a box, a shape or parts of a boundary; there are no parts")
    measured = [each for each in regions if isinstance(each, Measured)]
    if others := [each for each in regions if not isinstance(each, Measured)]:
        raise ProblemError(f"{what} has shape={others[0]!r}, expected a box, a shape or parts of a boundary")
    if len({(each.coordinates, each.columns) for each in measured}) > 1:
        kinds = " and ".join(dict.fromkeys(f"[{', '.join((*each.coordinates, *each.columns))}]" for each in measured))
        raise ProblemError(f"{what} runs over regions whose points have {kinds}; they must be alike")


def _check_ends(ends: object, what: str, coordinate: str, pde: PDE) -> None:
    def is_end(end: object) -> bool:
        return end in pde.coordinates if isinstance(end, str) else _is_place(end)

    if not isinstance(ends, tuple | list) or len(ends) != 2 or not all(map(is_end, ends)):
        raise ProblemError(
            f"{what} runs over {coordinate}={ends!r}, expected two ends: finite numbers, coordinates, as (0.0, 't'), "
            "or functions of the point"
        )


def _is_place(given: object) -> bool:
    return callable(given) or (isinstance(given, Real) and math.isfinite(given))


def _is_operator(named: tuple[object, object]) -> bool:
    name, formula = named
    return (
        isinstance(name, str)
        and name.isidentifier()
        and isinstance(formula, Mapping)
        and len(formula) > 0
        and all(isinstance(key, str) for key in formula)
        and all(isinstance(factor, Real) and math.isfinite(factor) for factor in formula.values())
    )


def _check_box(box: object, what: str, coordinates: tuple[str, ...] = ()) -> None:
    """A region has the ``coordinates`` of the domain and may be flat; the domain itself has what it wants."""
    if not isinstance(box, Box):
        kind = "missing" if box is None else f"of type {type(box).__name__}"
        raise ProblemError(f"{what} is {kind}, expected a Box, as Box.of(x=(0.0, 1.0))")
    if not box.coordinates or not all(len(c) == 1 and c.isalpha() for c in box.coordinates):
        raise ProblemError(f"{what} has the coordinates {list(box.coordinates)}, expected single letters")
    if coordinates and box.coordinates != coordinates:
        raise ProblemError(f"{what} has the coordinates {list(box.coordinates)}, expected {list(coordinates)}")
    for c in box.coordinates:
        ends = box.low[c], box.high[c]
        finite = all(isinstance(end, Real) and math.isfinite(end) for end in ends)
        if not finite or ends[0] > ends[1] or (not coordinates and ends[0] == ends[1]):
            raise ProblemError(f"{what} has {c}={ends}, expected finite numbers, the lower end first")


def place(pde: PDE, point: Tensor) -> str:
    """The coordinates of a point, ``[d]`` or with further columns, by letter."""
    return ", ".join(f"{c}={value:.6g}" for c, value in zip(pde.coordinates, point.tolist(), strict=False))
