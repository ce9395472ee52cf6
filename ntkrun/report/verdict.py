"""Which group of a sweep is better, by a paired comparison over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from ntkrun.report.aggregate import Group, Sweep
from ntkrun.report.gather import brief

LINES = 12
"""Most comparisons of one problem."""
LONGEST = 200
"""Most characters of a group's name."""

# 97.5 % quantiles of Student's t with 1 to 30 degrees of freedom.
_QUANTILES = (
    *(12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281),
    *(2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860),
    *(2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423),
)


@dataclass(frozen=True)
class Comparison:
    """How many times the error of a group is that of the best one, as a geometric mean over common seeds.

    Attributes:
        ratio: that factor.
        low, high: its 95 % interval, by Student's t on the logarithms of the pairs.
        seeds: how many pairs there are, at least 2.
    """

    ratio: float
    low: float
    high: float
    seeds: int

    @property
    def told_apart(self) -> bool:
        """Whether the interval leaves out 1, no difference."""
        return self.low > 1 or self.high < 1


def compare(best: Sequence[tuple[object, float]], other: Sequence[tuple[object, float]]) -> Comparison | None:
    """Compare two groups by the seeds that both have; ``None`` where fewer than two are common.

    Args:
        best: of every run its seed and its error; errors that are not positive are left out.
        other: likewise.
    """
    errors = {seed: error for seed, error in best if error > 0}
    ratios = [math.log(error) - math.log(errors[seed]) for seed, error in other if seed in errors and error > 0]
    if len(ratios) < 2:
        return None
    mean = fmean(ratios)
    half = quantile(len(ratios) - 1) * stdev(ratios) / math.sqrt(len(ratios))
    return Comparison(_power(mean), _power(mean - half), _power(mean + half), len(ratios))


def _power(exponent: float) -> float:
    """The exponential, infinite beyond all floats."""
    return math.exp(exponent) if exponent < 700 else math.inf


def quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's t; beyond 30 degrees of freedom by the leading correction to the normal one."""
    if freedom <= len(_QUANTILES):
        return _QUANTILES[freedom - 1]
    normal = 1.959964
    return normal + (normal**3 + normal) / (4 * freedom)


def verdicts(sweep: Sweep) -> list[str]:
    """One line for every group, how it compares with the group of the smallest error; none for a single group."""
    known = [(group, pairs) for group in sweep.groups if (pairs := _measures(sweep, group))]
    if len(known) < 2 or not sweep.keys:
        return []
    known.sort(key=lambda entry: fmean(math.log(error) for _, error in entry[1]))
    (best, errors), *others = known
    quantity = "error" if sweep.solved else "loss"
    lines = []
    for group, own in others[:LINES]:
        found = compare(errors, own)
        name = f"{_name(sweep, best)} against {_name(sweep, group)}: "
        if found is None:
            lines.append(f"{name}fewer than two common seeds, so nothing can be said.")
            continue
        said = "better" if found.told_apart else "not told apart"
        numbers = f"{found.ratio:.3g} times the {quantity} (95 % interval {found.low:.3g} to {found.high:.3g}"
        lines.append(f"{name}{said}; the latter has {numbers}; {found.seeds} seeds).")
    if len(others) > LINES:
        lines.append(f"{len(others) - LINES} more groups are not compared here; the table has all.")
    return lines


def _measures(sweep: Sweep, group: Group) -> list[tuple[object, float]]:
    found = ((str(run.seed), sweep.measure(run)) for run in group.runs)
    return [(seed, measure) for seed, measure in found if measure is not None and 0 < measure < math.inf]


def _name(sweep: Sweep, group: Group) -> str:
    return brief(sweep.choices(group), LONGEST)
