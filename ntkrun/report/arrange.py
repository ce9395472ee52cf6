"""The arrangement of figures: axes, lines and panels that stay readable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ntkrun.report.aggregate import ABSENT, Group, Sweep, Value, levels, numeric, text

LINES = 8
"""Most colours in one figure."""
PANELS = 9
"""Most panels that a key is laid out over."""


@dataclass(frozen=True)
class Arrangement:
    """Combinations of values as coloured lines in panels.

    Attributes:
        panel_key: the key whose values the panels are, if there are several.
        panels: title, and the combinations shown with the label of each.
        labels: all labels in order, each with a colour of its own.
        legend: title of the legend.
        numbers: whether labels are numbers in order.
        omitted: how many combinations are not shown.
    """

    panel_key: str
    panels: list[tuple[str, dict[tuple[Value, ...], str]]]
    labels: list[str]
    legend: str
    numbers: bool
    omitted: int


def arrange(
    combinations: Sequence[tuple[Value, ...]],
    keys: Sequence[str],
    rank: Callable[[tuple[Value, ...]], float],
) -> Arrangement:
    """Up to ``LINES`` combinations share a panel; more are laid out in panels by one key, or else selected.

    Args:
        combinations: values of the keys.
        keys: what they are values of.
        rank: which combinations to show where not all can be: those of the smallest rank.
    """
    every = range(len(keys))
    if len(combinations) <= LINES:
        return _laid_out(combinations, keys, None, 0)
    candidates = []
    for k in every:
        values = {combination[k] for combination in combinations}
        lines = {combination[:k] + combination[k + 1 :] for combination in combinations}
        if len(keys) > 1 and len(values) <= PANELS and len(lines) <= LINES:
            candidates.append((len(values), k))
    if candidates:
        return _laid_out(combinations, keys, min(candidates)[1], 0)
    if len(keys) == 1 and numeric(combination[0] for combination in combinations):
        last = len(combinations) - 1
        kept = [combinations[round(i * last / (LINES - 1))] for i in range(LINES)]
    else:
        best = set(sorted(combinations, key=rank)[:LINES])
        kept = [combination for combination in combinations if combination in best]
    return _laid_out(kept, keys, None, len(combinations) - len(kept))


def _laid_out(
    combinations: Sequence[tuple[Value, ...]], keys: Sequence[str], panel: int | None, omitted: int
) -> Arrangement:
    rest = [k for k in range(len(keys)) if k != panel]
    labels = {values: ", ".join(text(values[k]) for k in rest) for values in combinations}
    panels: list[tuple[str, dict[tuple[Value, ...], str]]] = [("", labels)]
    if panel is not None:
        panels = [
            (f"{keys[panel]} = {text(level)}", {v: label for v, label in labels.items() if v[panel] == level})
            for level in levels(values[panel] for values in combinations)
        ]
    ordered = sorted(
        combinations, key=lambda values: [levels(c[k] for c in combinations).index(values[k]) for k in rest]
    )
    return Arrangement(
        panel_key="" if panel is None else keys[panel],
        panels=panels,
        labels=list(dict.fromkeys(labels[values] for values in ordered)),
        legend=", ".join(keys[k] for k in rest),
        numbers=len(rest) == 1 and numeric(values[rest[0]] for values in combinations),
        omitted=omitted,
    )


@dataclass(frozen=True)
class Line:
    """Groups that differ in one key alone, in the order of its values.

    Attributes:
        values: of the other keys.
        points: values on the axis and their groups.
        across: groups with no place on the axis: null among numbers, or no such key at all.
    """

    values: tuple[Value, ...]
    points: list[tuple[Value, Group]]
    across: list[tuple[Value, Group]]


@dataclass(frozen=True)
class Crossing:
    """Groups as lines over an axis.

    Attributes:
        key: of the axis; the keys themselves, joined, where no two groups differ in one key alone.
        others: keys that distinguish the lines.
        lines: the lines.
        axis: all values on the axis.
        numbers: whether they are numbers.
    """

    key: str
    others: tuple[str, ...]
    lines: list[Line]
    axis: list[Value]
    numbers: bool


def cross(sweep: Sweep) -> Crossing:
    """Choose the axis for a figure over swept values: the numeric key with the most values, else any key's."""
    groups = [group for group in sweep.groups if any(sweep.measure(run) is not None for run in group.runs)]
    candidates = []
    for k, key in enumerate(sweep.keys):
        crossing = _along(k, sweep.keys, groups)
        if any(len(line.points) > 1 for line in crossing.lines):
            candidates.append((crossing.numbers, len(crossing.axis), -k, key, crossing))
    if candidates:
        return max(candidates, key=lambda candidate: candidate[:3])[-1]
    points: list[tuple[Value, Group]] = [(", ".join(map(text, group.values)), group) for group in groups]
    return Crossing(", ".join(sweep.keys), (), [Line((), points, [])], [value for value, _ in points], False)


def _along(k: int, keys: Sequence[str], groups: Sequence[Group]) -> Crossing:
    values = levels(group.values[k] for group in groups)
    numbers = numeric(values)
    axis = [value for value in values if value != ABSENT and not (numbers and value is None)]
    lines: dict[tuple[Value, ...], list[Group]] = {}
    for group in groups:
        lines.setdefault(group.values[:k] + group.values[k + 1 :], []).append(group)
    found = []
    for others, members in lines.items():
        ordered = sorted(((group.values[k], group) for group in members), key=lambda point: values.index(point[0]))
        points = [point for point in ordered if point[0] in axis]
        found.append(Line(others, points, [point for point in ordered if point[0] not in axis]))
    return Crossing(keys[k], tuple(keys[:k]) + tuple(keys[k + 1 :]), found, axis, numbers)
