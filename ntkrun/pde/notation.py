"""Loss terms and solutions in mathematical notation, read off the Python code by evaluating it on symbols."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import sympy
from torch import Tensor

from ntkrun.pde.base import PDE, Columns, Term
from ntkrun.pde.integral import End, Integral

NICE = 1000  # the largest denominator that is taken for meant
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    **{
        name: getattr(sympy, name)
        for name in ("sin", "cos", "tan", "exp", "log", "sinh", "cosh", "tanh", "sqrt", "erf")
    },
    "atan": sympy.atan,
    "atan2": sympy.atan2,
    "arctan2": sympy.atan2,
    "arctan": sympy.atan,
    "abs": sympy.Abs,
    "sign": sympy.sign,
    "square": lambda z: z**2,
    "reciprocal": lambda z: 1 / z,
    "sigmoid": lambda z: 1 / (1 + sympy.exp(-z)),
    "neg": lambda z: -z,
    "zeros_like": lambda z: sympy.Integer(0),
    "ones_like": lambda z: sympy.Integer(1),
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "rsub": lambda a, b: b - a,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "true_divide": lambda a, b: a / b,
    "pow": lambda a, b: a**b,
    "maximum": sympy.Max,
    "minimum": sympy.Min,
    "where": lambda condition, a, b: sympy.Piecewise((a, condition), (b, True)),
    "logical_and": sympy.And,
    "logical_or": sympy.Or,
    "logical_not": sympy.Not,
    "lt": sympy.Lt,
    "le": sympy.Le,
    "gt": sympy.Gt,
    "ge": sympy.Ge,
}
"""What torch calls by these names."""


class NotationError(ValueError):
    """Code that does something else with symbols than to compute with them."""


class Symbolic:
    """An expression that stands in for a column of numbers.

    Args:
        expression: a SymPy expression.
    """

    def __init__(self, expression: Any) -> None:
        self.expression = expression

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = function.__name__.strip("_")
        if name in ("stack", "cat", "concatenate", "hstack"):
            return Stacked(cls(component) for part in args[0] for component in components(part))
        if name not in FUNCTIONS:
            raise NotationError(f"torch.{name} has no notation here")
        return cls(FUNCTIONS[name](*map(_expression, args)))

    def __getattr__(self, name: str) -> Callable[..., Symbolic]:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in FUNCTIONS:
            raise NotationError(f"the method {name} of a column has no notation here")
        return lambda *others: Symbolic(FUNCTIONS[name](self.expression, *map(_expression, others)))

    def __add__(self, other: Any) -> Symbolic:
        return Symbolic(self.expression + _expression(other))

    def __sub__(self, other: Any) -> Symbolic:
        return Symbolic(self.expression - _expression(other))

    def __rsub__(self, other: Any) -> Symbolic:
        return Symbolic(_expression(other) - self.expression)

    def __mul__(self, other: Any) -> Symbolic:
        return Symbolic(self.expression * _expression(other))

    def __truediv__(self, other: Any) -> Symbolic:
        return Symbolic(self.expression / _expression(other))

    def __rtruediv__(self, other: Any) -> Symbolic:
        return Symbolic(_expression(other) / self.expression)

    def __pow__(self, other: Any) -> Symbolic:
        return Symbolic(self.expression ** _expression(other))

    def __rpow__(self, other: Any) -> Symbolic:
        return Symbolic(_expression(other) ** self.expression)

    def __neg__(self) -> Symbolic:
        return Symbolic(-self.expression)

    def __abs__(self) -> Symbolic:
        return Symbolic(sympy.Abs(self.expression))

    __radd__, __rmul__ = __add__, __mul__

    def __lt__(self, other: Any) -> Symbolic:
        return Symbolic(self.expression < _expression(other))

    def __le__(self, other: Any) -> Symbolic:
        return Symbolic(self.expression <= _expression(other))

    def __gt__(self, other: Any) -> Symbolic:
        return Symbolic(self.expression > _expression(other))

    def __ge__(self, other: Any) -> Symbolic:
        return Symbolic(self.expression >= _expression(other))

    def __and__(self, other: Any) -> Symbolic:
        return Symbolic(sympy.And(self.expression, _expression(other)))

    def __or__(self, other: Any) -> Symbolic:
        return Symbolic(sympy.Or(self.expression, _expression(other)))

    def __invert__(self) -> Symbolic:
        return Symbolic(sympy.Not(self.expression))

    def __bool__(self) -> bool:
        raise NotationError("a branch that depends on a column has no notation here")


class Stacked:
    """Several expressions, side by side; arithmetic holds for each.

    Args:
        parts: the expressions.
    """

    def __init__(self, parts: Iterable[Symbolic]) -> None:
        self.parts = tuple(parts)

    def unbind(self, dim: int = 1) -> tuple[Symbolic, ...]:
        """The expressions, as columns of a matrix are taken apart."""
        return self.parts

    def __getitem__(self, key: Any) -> Any:
        if not (isinstance(key, tuple) and len(key) == 2 and key[0] in (slice(None), Ellipsis)):
            raise NotationError(f"[{key}] is not about columns")
        chosen = self.parts[key[1]]
        return chosen if isinstance(chosen, Symbolic) else Stacked(chosen)

    def sum(self, *dimensions: int, **keywords: int) -> Symbolic:
        """Their sum."""
        return Symbolic(sum(each.expression for each in self.parts))

    def _each(self, act: Callable[[Any, Any], Any], other: Any) -> Stacked:
        others = other.parts if isinstance(other, Stacked) else (other,) * len(self.parts)
        if len(others) != len(self.parts):
            raise NotationError(f"{len(self.parts)} columns meet {len(others)}")
        return Stacked(map(act, self.parts, others))

    def __add__(self, other: Any) -> Stacked:
        return self._each(operator.add, other)

    def __sub__(self, other: Any) -> Stacked:
        return self._each(operator.sub, other)

    def __rsub__(self, other: Any) -> Stacked:
        return self._each(lambda own, given: given - own, other)

    def __mul__(self, other: Any) -> Stacked:
        return self._each(operator.mul, other)

    def __truediv__(self, other: Any) -> Stacked:
        return self._each(operator.truediv, other)

    def __neg__(self) -> Stacked:
        return Stacked(-each for each in self.parts)

    __radd__, __rmul__ = __add__, __mul__


def _expression(value: Any) -> Any:
    if isinstance(value, Symbolic):
        return value.expression
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, int | float):
        return number(value)
    raise NotationError(f"a {type(value).__name__} has no notation here")


def number(value: float) -> Any:
    """A number as one would write it: whole, a fraction, one of these times a power of pi, or six digits."""
    if isinstance(value, int) or value == int(value):
        return sympy.Integer(int(value))
    for power in (0, 1, -1, 2, -2, 4, 3):
        part = value / math.pi**power
        fraction = Fraction(part).limit_denominator(NICE)
        if fraction and math.isclose(float(fraction), part, rel_tol=1e-12):
            decimal = power == 0 and fraction.denominator not in (2, 3, 4, 5, 6, 8)
            return sympy.Float(value, 6) if decimal else sympy.Rational(fraction) * sympy.pi**power
    return sympy.Float(value, 6)


def components(result: Any) -> list[Any]:
    """The expressions that code has returned: one, or several that it has stacked.

    Raises:
        NotationError: it has returned something else.
    """
    if isinstance(result, list | tuple | Stacked):
        parts = result.parts if isinstance(result, Stacked) else result
        return [component for part in parts for component in components(part)]
    return [_expression(result)]


def term_expressions(pde: PDE, term: Term) -> list[Any]:
    """The residuals of a term as SymPy expressions in coordinates and derivatives, which the term makes zero.

    Raises:
        NotationError: its code does more than to compute with columns.
    """
    names = {name: Symbolic(sympy.Symbol(name)) for name in term.derivatives}
    for name, formula in term.operators.items():
        names[name] = Symbolic(sum(number(factor) * sympy.Symbol(each) for each, factor in formula.items()))
    names |= {name: Symbolic(sympy.Symbol(name)) for name in term.integrals}
    partner = None
    if term.partner is not None:
        moved = {c: _moved(pde, c, at) for c, at in term.partner.items()}
        place = ", ".join(moved.get(c, c) for c in pde.coordinates)
        partner = Columns({name: Symbolic(sympy.Symbol(f"{name}({place})")) for name in names}, "the term")
    return _evaluated(lambda: term.residual(_coordinates(pde, "progress"), Columns(names, "the term", partner)))


def integral_words(pde: PDE, integral: Integral) -> str:
    """What an integral is over, and of what; ``row.t`` in its integrand is the t of the point that it is taken for.

    Raises:
        NotationError: its code does more than to compute with columns.
    """
    names = {name: Symbolic(sympy.Symbol(name)) for name in integral.derivatives}
    row = Columns({c: Symbolic(sympy.Symbol(f"row.{c}")) for c in pde.coordinates}, "the point")
    known = {c: Symbolic(sympy.Symbol(c)) for c in (*pde.coordinates, "progress", *integral.columns)}
    nodes = Columns(known, "the nodes", row=row)
    (integrand,) = _evaluated(lambda: integral.integrand(nodes, Columns(names, "the integrand")))
    kind = "mean" if integral.mean else "integral"
    if integral.shape is not None:
        shapes = ", ".join(dict.fromkeys(type(each).__name__.lower() for each in integral.shape))
        return f"{kind} of {integrand} over {', '.join(integral.coordinates)} in {shapes}"
    ends = [f"{c} from {_end(pde, low)} to {_end(pde, high)}" for c, (low, high) in integral.over.items()]
    return f"{kind} of {integrand} over {' and '.join(ends)}"


def _end(pde: PDE, end: End) -> str:
    if not callable(end):
        return end if isinstance(end, str) else str(number(end))
    (place,) = _evaluated(lambda: end(_coordinates(pde)))
    return str(place)


def _moved(pde: PDE, coordinate: str, at: Any) -> str:
    if not callable(at):
        return f"{coordinate}{at:+g}"
    (place,) = _evaluated(lambda: at(_coordinates(pde)))
    return str(place)


def solution_expressions(pde: PDE) -> list[Any]:
    """The closed form of every field as a SymPy expression; empty where there is none.

    Raises:
        NotationError: its code does more than to compute with columns.
    """
    if type(pde).exact is PDE.exact:
        return []
    return _evaluated(lambda: pde.exact(_coordinates(pde)))


def _evaluated(compute: Callable[[], Any]) -> list[Any]:
    try:
        return components(compute())
    except NotationError:
        raise
    except Exception as error:  # whatever users' code raises on what is no tensor
        raise NotationError(f"{type(error).__name__}: {error}") from error


def _coordinates(pde: PDE, *others: str) -> Columns:
    return Columns({c: Symbolic(sympy.Symbol(c)) for c in (*pde.coordinates, *others)}, "the point set")
