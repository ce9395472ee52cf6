"""``ntkrun show``: a problem in mathematical notation, with its terms, points and defaults."""

from __future__ import annotations

import inspect
import os
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sympy

from ntkrun.cli.compose import compose_run
from ntkrun.cli.preflight import own_values
from ntkrun.common.terminal import shows_unicode
from ntkrun.config.classes import look_for_modules_in
from ntkrun.config.configuration import Configuration, read_configuration
from ntkrun.config.measured_data import check_point_names, point_counts, read_measurements
from ntkrun.geometry import Box, Face
from ntkrun.pde import PDE, Term
from ntkrun.pde.measured import data_terms
from ntkrun.pde.notation import NotationError, integral_words, solution_expressions, term_expressions

WIDTH = 100


def show(arguments: Sequence[str]) -> int:
    """Print the problem that overrides such as ``pde=wave pde.c=3`` describe; returns the exit status.

    Raises:
        ConfigError: they cannot be used.
    """
    directory, overrides = None, []
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if name in ("--config-dir", "-cd"):
            directory = value if equals else next(rest, "")
        else:
            overrides.append(argument)
    look_for_modules_in(os.getcwd())
    configuration = read_configuration(own_values(compose_run(overrides, directory, hydra=True)))
    pde = configuration.pde.build()
    if configuration.data:
        pde.measurements = read_measurements(configuration.data, pde)
    check_point_names(configuration.setup.points, pde)
    for line in describe(pde, configuration):
        print(line)
    return 0


def describe(pde: PDE, configuration: Configuration) -> Iterator[str]:
    """The lines about a problem.

    Args:
        pde: the problem.
        configuration: that it is of.
    """
    name, counts = type(pde).__name__, point_counts(configuration.setup.points, pde)
    yield name
    yield "=" * len(name)
    about, _, _ = (inspect.getdoc(type(pde)) or "").partition("\nArgs:")
    yield about.replace("``", "").strip()
    yield ""
    yield f"fields    {', '.join(pde.fields)}"
    yield f"domain    {_region(pde.domain)}"
    for field, part in pde.supports.items():
        yield f"          {field} lives on {_region(part)}"
    for field, letters in pde.depends.items():
        yield f"          {field} depends on {', '.join(letters)} alone"
    if pde.constrains and not pde.built_in:
        yield "          the network's outputs are transformed by constrain()"
    for coefficient in pde.coefficients:
        yield f"unknown   {coefficient.name}, starting from {coefficient.start:g}"
    for term in pde.terms():
        yield ""
        yield from _term(pde, term, counts.get(term.name))
    for term, (field, table) in zip(data_terms(pde.measurements), pde.measurements.items(), strict=True):
        yield ""
        yield f"{term.name}: {len(table.rows)} measured values of {field}"
    yield ""
    yield from _solution(pde)
    yield ""
    yield from _defaults(configuration.values)


def _term(pde: PDE, term: Term, count: int | None) -> Iterator[str]:
    points = "a hard constraint" if term.name in (pde.built_in or ()) else f"{count} points"
    yield f"{term.name}: {points} in"
    for box in term.region[:4]:
        yield f"    {_region(box)}"
    if len(term.region) > 4:
        yield f"    and {len(term.region) - 4} more parts"
    try:
        for expression in term_expressions(pde, term):
            yield textwrap.indent(_pretty(sympy.Eq(expression, 0, evaluate=False)), "        ")
    except NotationError as error:
        yield f"        a residual of {', '.join([*term.derivatives, *term.operators])} (not shown: {error})"
    for name, each in term.integrals.items():
        try:
            yield f"        where {name} is the {integral_words(pde, each)}"
        except NotationError as error:
            yield f"        where {name} is an integral (not shown: {error})"


def _solution(pde: PDE) -> Iterator[str]:
    try:
        closed = solution_expressions(pde)
    except NotationError as error:
        yield f"solution: a closed form (not shown: {error})"
        return
    if closed:
        yield "solution:"
        for field, expression in zip(pde.fields, closed, strict=False):
            yield textwrap.indent(_pretty(sympy.Eq(sympy.Symbol(field), expression, evaluate=False)), "        ")
        return
    reference = pde.reference()
    if reference is None:
        yield "solution: none is known; runs report the loss at held-out points"
    else:
        yield f"solution: numerical, on {' x '.join(str(len(axis)) for axis in reference.axes.values())} points"


def _defaults(values: Mapping[str, Any]) -> Iterator[str]:
    yield "defaults, with what was chosen:"
    for group in ("pde", "network", "weights", "optimizer"):
        node = {k: v for k, v in values[group].items() if k not in ("_target_", "points", "data")}
        kind = str(values[group]["_target_"]).rpartition(".")[2]
        listed = ", ".join(f"{key}={_text(value)}" for key, value in node.items())
        yield textwrap.fill(
            f"{group + ':':<11}{kind}  {listed}", WIDTH, initial_indent="    ", subsequent_indent=" " * 15
        )
    yield f"    run:       iterations={values['iterations']}, dtype={values['dtype']}, seed={values['seed']}"


def _text(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _region(region: Any) -> str:
    """A region in words: a box by its intervals, anything else by its kind and the box around it, if it has one."""
    low, high = getattr(region, "low", None), getattr(region, "high", None)
    kind = (
        "" if isinstance(region, Box | Face) else f"{type(region).__name__.lower()} of {', '.join(region.coordinates)}"
    )
    if low is None or high is None:
        return kind
    ends = [(c, f"{low[c]:.6g}", f"{high[c]:.6g}") for c in region.coordinates]
    intervals = ", ".join(f"{c} = {a}" if a == b else f"{c} in [{a}, {b}]" for c, a, b in ends)
    return f"{kind} within {intervals}" if kind else intervals


def _pretty(expression: Any) -> str:
    unicode = shows_unicode(sys.stdout)
    text: str = sympy.pretty(expression, use_unicode=unicode, wrap_line=False)
    return text if max(map(len, text.splitlines())) <= WIDTH else str(expression.lhs) + " = " + str(expression.rhs)
