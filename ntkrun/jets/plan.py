"""Which streams a set of derivatives needs.

A stream is one directional derivative (v . grad)^k of the network's outputs along a fixed input
direction v. Pure derivatives are streams themselves; mixed ones are sums of pure directional
derivatives by polarisation.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

MAX_ORDER = 4

Direction = tuple[int, ...]
Recipe = tuple[tuple[int, float], ...]


class UnknownDerivativeError(ValueError):
    """A derivative name that does not fit the fields and coordinates of a problem."""


@dataclass(frozen=True)
class StreamPlan:
    """The streams carried through a network, and how derivatives are read off them.

    Stream 0 is the value. Direction ``j`` occupies ``orders[j]`` consecutive streams, its
    derivatives of order 1, 2, ..., ``orders[j]`` (plain derivatives, not divided by ``k!``).

    Attributes:
        directions: input directions, one integer vector of length ``d`` each.
        orders: the highest derivative order carried along each direction.
        recipes: for each multi-index (``"xx"``, ``"xt"``, ``""`` for the value) the pairs
            (stream, coefficient) whose weighted sum is that derivative.
    """

    directions: tuple[Direction, ...]
    orders: tuple[int, ...]
    recipes: tuple[tuple[str, Recipe], ...]

    @property
    def streams(self) -> int:
        """Number of streams S, the value included."""
        return 1 + sum(self.orders)

    @property
    def max_order(self) -> int:
        """The highest derivative order of any stream (0 when only values are carried)."""
        return max(self.orders, default=0)

    def chains(self) -> list[tuple[int, int]]:
        """For each direction, its first stream and its order."""
        starts = itertools.accumulate(self.orders, initial=1)
        return list(zip(starts, self.orders, strict=False))

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
            streams[start] = x.new_tensor(direction)
        return streams

    def read(self, streams: Tensor) -> dict[str, Tensor]:
        """Every planned derivative of every output.

        Args:
            streams: output streams, ``[S, N, outputs]``.

        Returns:
            For each multi-index, a tensor ``[N, outputs]``.
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


def plan_streams(indices: Sequence[str], coordinates: Sequence[str]) -> StreamPlan:
    """Plan the streams for a set of multi-indices, with as few streams as the identities allow.

    Args:
        indices: multi-indices such as ``"xx"`` or ``"xt"`` (``""`` for the value).
        coordinates: single-letter coordinate names, in the order of the network's inputs.
    """
    axes = {letter: axis for axis, letter in enumerate(coordinates)}
    needed: dict[Direction, int] = {}
    formulas: dict[str, dict[Direction, float]] = {"": {}}
    # Pure derivatives first, so that mixed ones can reuse their streams.
    for index in sorted(set(indices) - {""}, key=lambda index: (len(set(index)), index)):
        orders = Counter(axes[letter] for letter in index)
        options = [_signs_formula(orders, len(axes)), _subsets_formula(orders, len(axes))]
        best = min(options, key=lambda option: _extra_streams(option, len(index), needed))
        formulas[index] = best
        for direction in best:
            needed[direction] = max(needed.get(direction, 0), len(index))
    directions = tuple(needed)
    starts = dict(zip(directions, itertools.accumulate(needed.values(), initial=1), strict=False))
    recipes = []
    for index in dict.fromkeys(("", *indices)):
        terms = formulas[index].items()
        recipe = tuple((starts[direction] + len(index) - 1, factor) for direction, factor in terms)
        recipes.append((index, recipe if index else ((0, 1.0),)))
    return StreamPlan(directions, tuple(needed.values()), tuple(recipes))


def _extra_streams(formula: Mapping[Direction, float], order: int, needed: Mapping[Direction, int]) -> int:
    return sum(max(0, order - needed.get(direction, 0)) for direction in formula)


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
