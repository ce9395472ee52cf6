"""Stream plans: the Taylor coefficients (streams) that a set of derivatives needs.

A stream is one directional derivative (v . grad)^k of the network's outputs along a fixed input
direction v, or a fixed linear combination of such. Pure derivatives are streams themselves; mixed ones are
combinations of pure directional derivatives by polarisation. The highest derivatives enter the formula of Faa di
Bruno linearly, so that a combination of them is carried as one stream (Dangel, Siebert, Zeinhofer, Walther,
arXiv 2505.13644, who call it collapsed Taylor mode).
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ntkrun.backend.transfer import constant

MAX_ORDER = 4

Direction = tuple[int, ...]
Recipe = tuple[tuple[int, float], ...]

Index = str | tuple[tuple[str, float], ...]
"""A multi-index such as ``"xx"`` or ``"xt"`` (``""`` for the value), or a linear operator with constant coefficients:
pairs of multi-index and coefficient."""

Formula = dict[tuple[Direction, int], float]
"""Powers ``(v . grad)^k`` by direction and order, and the coefficients of their sum."""

Polarisation = Callable[[Counter[int], int], dict[Direction, float]]

Part = tuple[Direction, int, float]
"""A direction v, an order k and a coefficient: one summand ``coefficient * (v . grad)^k``."""


class UnknownDerivativeError(ValueError):
    """A derivative name that does not fit the fields and coordinates of a problem."""


@dataclass(frozen=True)
class StreamPlan:
    """The streams carried through a network, and how derivatives are read off them.

    Stream 0 is the value. Direction ``j`` occupies ``orders[j]`` consecutive streams, its
    derivatives of order 1, 2, ..., ``orders[j]`` (plain derivatives, not divided by ``k!``). The collapsed
    streams come last.

    Attributes:
        directions: input directions, one integer vector of length ``d`` each.
        orders: the highest derivative order carried along each direction.
        recipes: for each index the pairs (stream, coefficient) whose weighted sum is that derivative.
        collapsed: for each collapsed stream the parts whose sum it is; all lower derivatives along their
            directions have streams of their own.
    """

    directions: tuple[Direction, ...]
    orders: tuple[int, ...]
    recipes: tuple[tuple[Index, Recipe], ...]
    collapsed: tuple[tuple[Part, ...], ...] = ()

    @property
    def streams(self) -> int:
        """Number of streams S, the value included."""
        return 1 + sum(self.orders) + len(self.collapsed)

    @property
    def max_order(self) -> int:
        """The highest derivative order of any stream (0 when only values are carried)."""
        return max(self.reach().values(), default=0)

    def reach(self) -> dict[Direction, int]:
        """The highest derivative order along each direction, within collapsed streams too."""
        highest = dict(zip(self.directions, self.orders, strict=True))
        for direction, order, _ in itertools.chain.from_iterable(self.collapsed):
            highest[direction] = max(highest.get(direction, 0), order)
        return highest

    def chains(self) -> list[tuple[int, int]]:
        """For each direction, its first stream and its order."""
        starts = itertools.accumulate(self.orders, initial=1)
        return list(zip(starts, self.orders, strict=False))

    def sums(self) -> list[tuple[int, list[tuple[int, int, float]]]]:
        """For each collapsed stream, itself and the parts beyond order 1: first lower stream, order, coefficient."""
        starts = {direction: start for direction, (start, _) in zip(self.directions, self.chains(), strict=True)}
        first = 1 + sum(self.orders)
        return [
            (first + j, [(starts[direction], order, factor) for direction, order, factor in parts if order > 1])
            for j, parts in enumerate(self.collapsed)
        ]

    def seed(self, x: Tensor) -> Tensor:
        """Streams of the identity map at the points ``x``.

        Args:
            x: points, ``[N, d]``.

        Returns:
            ``[S, N, d]``: the points, each direction as its first-order stream, zeros above.
        """
        streams = x.new_zeros(self.streams, *x.shape)
        streams[0] = x
        for direction, (start, _) in zip(self.directions, self.chains(), strict=True):
            streams[start] = constant(direction, x)
        for (stream, _), parts in zip(self.sums(), self.collapsed, strict=True):
            for direction, order, factor in parts:
                if order == 1:
                    streams[stream] += factor * constant(direction, x)
        return streams

    def read(self, streams: Tensor) -> dict[Index, Tensor]:
        """Every planned derivative of every output.

        Args:
            streams: output streams, ``[S, N, outputs]``.

        Returns:
            For each index, a tensor ``[N, outputs]``.
        """
        derivatives = {}
        for index, recipe in self.recipes:
            (stream, coefficient), *rest = recipe
            value = streams[stream] if coefficient == 1 else coefficient * streams[stream]
            for stream, coefficient in rest:
                value = value + coefficient * streams[stream]
            derivatives[index] = value
        return derivatives


def parse_derivative(name: str, fields: Sequence[str], coordinates: Sequence[str]) -> tuple[str, str]:
    """Split ``"u_xt"`` into its field ``"u"`` and its multi-index, letters in coordinate order.

    Raises:
        UnknownDerivativeError: the field or a coordinate is unknown, or the order exceeds ``MAX_ORDER``.
    """
    field, _, letters = name.partition("_")
    if field not in fields:
        raise UnknownDerivativeError(f"{name!r}: no field {field!r}; the fields are {', '.join(fields)}")
    for letter in letters:
        if letter not in coordinates:
            raise UnknownDerivativeError(
                f"{name!r}: no coordinate {letter!r}; the coordinates are {', '.join(coordinates)}"
            )
    if len(letters) > MAX_ORDER:
        raise UnknownDerivativeError(f"{name!r}: order {len(letters)}; the highest order is {MAX_ORDER}")
    return field, "".join(sorted(letters, key=list(coordinates).index))


def parse_operator(
    formula: Mapping[str, float], fields: Sequence[str], coordinates: Sequence[str]
) -> tuple[str, Index]:
    """Split a linear operator such as ``{"u_tt": 1.0, "u_xx": -4.0}`` into its field and its index.

    Raises:
        UnknownDerivativeError: a derivative is unknown, or is the value, or there are two fields.
    """
    parsed = [(*parse_derivative(name, fields, coordinates), factor) for name, factor in formula.items()]
    if values := [field for field, letters, _ in parsed if not letters]:
        raise UnknownDerivativeError(f"{values[0]!r}: an operator is made of derivatives, not of values")
    first, *others = {field for field, _, _ in parsed}
    if others:
        raise UnknownDerivativeError(f"{', '.join(formula)}: an operator acts on one field")
    return first, tuple((letters, float(factor)) for _, letters, factor in parsed)


def plan_streams(indices: Iterable[Index], coordinates: Sequence[str]) -> StreamPlan:
    """Plan the streams for a set of derivatives, with as few streams as the identities allow.

    Args:
        indices: multi-indices and operators.
        coordinates: single-letter coordinate names, in the order of the network's inputs.
    """
    indices = tuple(indices)
    axes = {letter: axis for axis, letter in enumerate(coordinates)}
    needed: dict[Direction, int] = {}
    separate: dict[Index, Formula] = {}
    collapsed: dict[Index, Formula] = {}
    # Pure derivatives first, so that mixed ones can reuse their streams, and operators those of both.
    for index in sorted(set(indices) - {""}, key=_complexity):
        options = [_formula(index, axes, polarisation) for polarisation in (_signs_formula, _subsets_formula)]
        formula = min(options, key=lambda formula: _extra_streams(_powers(formula), needed))
        shorter = min(options, key=lambda formula: _extra_streams(_lower(formula), needed))
        if 1 + _extra_streams(_lower(shorter), needed) < _extra_streams(_powers(formula), needed):
            collapsed[index] = shorter
            needed |= _larger(_lower(shorter), needed)
        else:
            separate[index] = formula
            needed |= _larger(_powers(formula), needed)
    starts = dict(zip(needed, itertools.accumulate(needed.values(), initial=1), strict=False))
    recipes: dict[Index, Recipe] = {"": ((0, 1.0),)}
    for index, formula in separate.items():
        recipes[index] = tuple((starts[direction] + k - 1, factor) for (direction, k), factor in formula.items())
    for j, index in enumerate(collapsed):
        recipes[index] = ((1 + sum(needed.values()) + j, 1.0),)
    return StreamPlan(
        tuple(needed),
        tuple(needed.values()),
        tuple((index, recipes[index]) for index in dict.fromkeys(("", *indices))),
        tuple(tuple((*power, factor) for power, factor in formula.items()) for formula in collapsed.values()),
    )


def _complexity(index: Index) -> tuple[bool, int, str]:
    if isinstance(index, str):
        return False, len(set(index)), index
    return True, len(index), str(index)


def _powers(formula: Formula) -> dict[Direction, int]:
    """The highest order along each direction."""
    highest: dict[Direction, int] = {}
    for direction, order in formula:
        highest[direction] = max(highest.get(direction, 0), order)
    return highest


def _lower(formula: Formula) -> dict[Direction, int]:
    """What a collapsed stream needs besides itself: along each direction, the orders below its highest."""
    return {direction: order - 1 for direction, order in _powers(formula).items() if order > 1}


def _extra_streams(wanted: Mapping[Direction, int], needed: Mapping[Direction, int]) -> int:
    return sum(max(0, order - needed.get(direction, 0)) for direction, order in wanted.items())


def _larger(wanted: Mapping[Direction, int], needed: Mapping[Direction, int]) -> dict[Direction, int]:
    return {direction: max(order, needed.get(direction, 0)) for direction, order in wanted.items()}


def _formula(index: Index, axes: Mapping[str, int], polarisation: Polarisation) -> Formula:
    """A multi-index or an operator as a sum of powers of directional derivatives."""
    total: Formula = {}
    for letters, coefficient in ((index, 1.0),) if isinstance(index, str) else index:
        powers = polarisation(Counter(axes[letter] for letter in letters), len(axes))
        for direction, factor in powers.items():
            power = direction, len(letters)
            total[power] = total.get(power, 0.0) + coefficient * factor
    return total


def _collect(terms: Sequence[tuple[Direction, float]], order: int) -> dict[Direction, float]:
    """Merge parallel directions: (c v . grad)^k = c^k (v . grad)^k."""
    merged: dict[Direction, float] = {}
    for vector, factor in terms:
        divisor = math.gcd(*vector)
        if divisor == 0:
            continue
        if next(c for c in vector if c) < 0:
            divisor = -divisor
        direction = tuple(c // divisor for c in vector)
        merged[direction] = merged.get(direction, 0.0) + factor * divisor**order
    return {direction: factor for direction, factor in merged.items() if factor}


def _unit_vectors(orders: Counter[int], dimensions: int) -> list[Direction]:
    return [tuple(int(i == axis) for i in range(dimensions)) for axis in orders.elements()]


def _signs_formula(orders: Counter[int], dimensions: int) -> dict[Direction, float]:
    """Polarisation over signs: d1...dk = 1/(2^(k-1) k!) sum_e (prod e) ((e1 + sum e_j e_j) . grad)^k."""
    first, *others = _unit_vectors(orders, dimensions)
    k = 1 + len(others)
    if len(orders) == 1:
        return {first: 1.0}
    scale = 1 / (2 ** (k - 1) * math.factorial(k))
    terms = []
    for signs in itertools.product((1, -1), repeat=len(others)):
        vector = tuple(a + sum(s * o[i] for s, o in zip(signs, others, strict=True)) for i, a in enumerate(first))
        terms.append((vector, scale * math.prod(signs)))
    return _collect(terms, k)


def _subsets_formula(orders: Counter[int], dimensions: int) -> dict[Direction, float]:
    """Polarisation over subsets: d1...dk = 1/k! sum_A (-1)^(k-|A|) ((sum_{j in A} e_j) . grad)^k."""
    vectors = _unit_vectors(orders, dimensions)
    k = len(vectors)
    if len(orders) == 1:
        return {vectors[0]: 1.0}
    terms = []
    for chosen in itertools.product((0, 1), repeat=k):
        vector = tuple(sum(c * v[i] for c, v in zip(chosen, vectors, strict=True)) for i in range(dimensions))
        terms.append((vector, (-1) ** (k - sum(chosen)) / math.factorial(k)))
    return _collect(terms, k)
