"""Curves as text, for terminals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of the eight dots of a Braille character, by row and column."""
MARKS = "*o+x#@%&"
COLOURS = (36, 33, 32, 35, 34, 31, 37, 90)
"""ANSI codes of the curves' colours."""

Curve = Sequence[tuple[float, float]]


def chart(curves: Mapping[str, Curve], width: int, height: int, *, braille: bool = True, colour: bool = True) -> str:
    """Curves in one frame, with a logarithmic axis where their values are positive and span more than a factor of 10.

    Args:
        curves: points (x, y) by label; what is not finite is left out.
        width: characters of the whole.
        height: lines of the whole, with the legend.
        braille: draw with the dots of Braille characters, two by four in each, where colours or their being only one
            tell curves apart; else one mark per character.
        colour: tell curves apart by ANSI colours.
    """
    known = {name: [(x, y) for x, y in curve if math.isfinite(y)] for name, curve in curves.items()}
    known = {name: curve for name, curve in known.items() if curve}
    if not known:
        return "nothing to draw yet"
    values = [y for curve in known.values() for _, y in curve]
    scale = _Scale(min(values), max(values))
    left, right = min(c[0][0] for c in known.values()), max(c[-1][0] for c in known.values())
    braille = braille and (colour or len(known) == 1)  # else curves could not be told apart
    columns, lines = max(5, width - 10), max(3, height - 3)
    fine = (2, 4) if braille else (1, 1)
    canvas: dict[tuple[int, int], tuple[int, int]] = {}  # by line and column: bits of dots, number of the curve
    for number, curve in enumerate(known.values()):
        nodes = [
            (
                round((x - left) / ((right - left) or 1) * (columns * fine[0] - 1)),
                round((1 - scale.place(y)) * (lines * fine[1] - 1)),
            )
            for x, y in curve
        ]
        for i, j in _joined(nodes):
            cell = j // fine[1], i // fine[0]
            bit = DOTS[j % 4][i % 2] if braille else 0
            canvas[cell] = canvas.get(cell, (0, number))[0] | bit, number
    rows = []
    for j in range(lines):
        label = scale.label(1 - j / (lines - 1)) if j in (0, lines // 2, lines - 1) else ""
        marks = (_mark(canvas.get((j, i)), braille, colour) for i in range(columns))
        rows.append(f"{label:>8} |{''.join(marks)}".rstrip())
    ends = f"{left:g}", f"{right:g}"
    rows.append(" " * 10 + ends[0] + ends[1].rjust(columns - len(ends[0])))
    legend = "   ".join(
        f"{_mark((DOTS[1][0] | DOTS[1][1], k), braille, colour)} {name}" for k, name in enumerate(known)
    )
    return "\n".join([*rows, " " * 10 + legend])


def _joined(nodes: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The nodes of a curve and all dots on the straight lines between them."""
    yield nodes[0]
    for (i, j), (k, m) in itertools.pairwise(nodes):
        steps = max(abs(k - i), abs(m - j))
        yield from ((i + round((k - i) * n / steps), j + round((m - j) * n / steps)) for n in range(1, steps + 1))


class _Scale:
    """The vertical axis."""

    def __init__(self, low: float, high: float) -> None:
        self._logarithmic = low > 0 and high > 10 * low
        self._low, self._high = (math.log10(low), math.log10(high)) if self._logarithmic else (low, high)

    def place(self, value: float) -> float:
        """Where a value lies, from 0 to 1."""
        value = math.log10(value) if self._logarithmic else value
        return (value - self._low) / ((self._high - self._low) or 1)

    def label(self, place: float) -> str:
        value = self._low + place * (self._high - self._low)
        return f"{10**value if self._logarithmic else value:.1e}"


def _mark(cell: tuple[int, int] | None, braille: bool, colour: bool) -> str:
    if cell is None:
        return " "
    bits, number = cell
    mark = chr(0x2800 + bits) if braille else MARKS[number % len(MARKS)]
    return f"\x1b[{COLOURS[number % len(COLOURS)]}m{mark}\x1b[0m" if colour else mark
