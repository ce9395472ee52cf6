"""Figures over the runs of one problem."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ntkrun.plots.run import STYLE
from ntkrun.report.aggregate import Group, Statistic, Sweep, Value, spread, text
from ntkrun.report.arrange import Arrangement, Crossing, Line, arrange, cross
from ntkrun.report.canvas import Styles, panels, set_axis, shown
from ntkrun.report.gather import Run, brief, unweighted_loss

ERROR = "relative L2 error"
LOSS = "sum of unweighted loss terms"
COST = "seconds in training and weight updates"
DESCRIBED = 12
NAMED = 100
"""Most characters of a name in a description."""
TERMS = 16
"""Most loss terms whose weights are drawn."""


@dataclass(frozen=True)
class Drawing:
    """A figure with what a page says about it.

    Attributes:
        name: of the file, without its suffix.
        figure: the figure.
        title: a heading.
        caption: how to read it, and what is not in it.
        description: what is drawn, in words, for those who cannot see it.
    """

    name: str
    figure: Figure
    title: str
    caption: str
    description: str


def draw(sweep: Sweep) -> list[Drawing]:
    """All figures of one problem for which there are data."""
    if not sweep.runs:
        return []
    measured = any(sweep.measure(run) is not None for run in sweep.runs)
    with matplotlib.rc_context(STYLE):
        drawings = [draw_measure(sweep)] if measured and sweep.keys else []
        drawings.append(draw_weights(sweep))
        if sweep.solved:
            drawings.append(draw_curves(sweep, "error", ERROR, lambda metrics: metrics["error/rel_l2"]))
        drawings.append(draw_curves(sweep, "loss", LOSS, unweighted_loss))
        return [*drawings, draw_cost(sweep)] if measured else drawings


def draw_measure(sweep: Sweep) -> Drawing:
    """The final error, or the unweighted loss where no error is known, against what was swept."""
    crossing, quantity = cross(sweep), _quantity(sweep)
    lines = {line.values: line for line in crossing.lines}
    arrangement = arrange(
        list(lines),
        crossing.others,
        lambda values: min(_mean(sweep, group) for _, group in lines[values].points + lines[values].across),
    )
    figure, grid = panels(arrangement)
    styles = Styles(arrangement)
    drawn: list[float] = []
    for axes, (_, members) in zip(grid, arrangement.panels, strict=True):
        for values, label in members.items():
            drawn += _draw_points(axes, sweep, crossing, lines[values], styles, label)
            drawn += _draw_across(axes, sweep, lines[values], styles, label)
    for axes in grid:
        set_axis(axes, crossing)
    _logarithmic(grid[0], drawn)
    _finish(figure, sweep, quantity, f"{quantity} at the end", styles)
    key = brief(crossing.key, NAMED)
    mark, band = ("Line", "band") if crossing.numbers else ("Mark", "bar")
    caption = [f"{mark}: mean over seeds; {band}: from the smallest to the largest; dots: seeds."]
    if max(len(group.runs) for group in sweep.groups) == 1:
        caption = ["One seed each."]
    if any(line.across for line in crossing.lines):
        caption.append(f"Dashed: runs to which no value of {key} belongs.")
    means = [
        f"{brief(', '.join([*map(text, line.values), text(value)]), NAMED)}: {_mean(sweep, group):.3g}"
        for line in crossing.lines
        for value, group in line.points + line.across
    ]
    described = f"; means {'; '.join(means)}" if len(means) <= DESCRIBED else ""
    return Drawing(
        f"{sweep.problem}_{'error' if sweep.solved else 'loss'}_against_swept",
        figure,
        f"{quantity[0].upper()}{quantity[1:]} against {key}",
        _caption(sweep, arrangement, caption),
        f"final {quantity} against {key}{described}",
    )


def _draw_points(axes: Axes, sweep: Sweep, crossing: Crossing, line: Line, styles: Styles, label: str) -> list[float]:
    """Means, bands and seeds of a line's groups; returns the values drawn."""
    if not line.points:
        return []
    measures = [_measures(sweep, group) for _, group in line.points]
    x = [_place(crossing, value, styles.labels.index(label), len(styles.labels)) for value, _ in line.points]
    colour = styles.colour(label)
    means = [float(np.mean(values)) for values in measures]
    low, high = [min(values) for values in measures], [max(values) for values in measures]
    axes.plot(x, means, **styles.mark(label), linestyle="-" if crossing.numbers else "none", label=label or "mean")
    if crossing.numbers:
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    else:
        axes.vlines(x, low, high, color=colour, alpha=0.35, linewidth=5)
    for place, values in zip(x, measures, strict=True):
        axes.plot([place] * len(values), values, ".", color=colour, markersize=4, alpha=0.6)
    return [value for values in measures for value in values]


def _draw_across(axes: Axes, sweep: Sweep, line: Line, styles: Styles, label: str) -> list[float]:
    """Means of groups that have no place on the axis, as dashed lines."""
    levels = [_mean(sweep, group) for _, group in line.across]
    for level, (value, _) in zip(levels, line.across, strict=True):
        axes.axhline(level, color=styles.colour(label), linestyle="--", label=label)
        if line.points:
            axes.annotate(
                shown(text(value)), (1.01, level), xycoords=("axes fraction", "data"), va="center", fontsize="small"
            )
        else:
            styles.dashed.add(label)
    return levels


def _place(crossing: Crossing, value: Value, number: int, count: int) -> float:
    """Where a value lies on the axis; marks of different lines stand side by side over a category."""
    if crossing.numbers and value is not None:
        return float(value)
    return crossing.axis.index(value) + 0.6 * ((number + 0.5) / count - 0.5)


def draw_curves(sweep: Sweep, name: str, quantity: str, curve: Callable[[pd.DataFrame], pd.Series[float]]) -> Drawing:
    """What ``curve`` makes of metrics.csv against step and against seconds, a line per run."""
    arrangement = _by_group(sweep)
    rows = len(arrangement.panels)
    figure = Figure(figsize=(9.6, 0.8 + 3.2 * rows))
    grid = figure.subplots(rows, 2, squeeze=False, sharex="col", sharey=True)
    styles = Styles(arrangement)
    drawn: list[float] = []
    for row, (title, members) in zip(grid, arrangement.panels, strict=True):
        for run, label in _members(sweep, members):
            values = curve(run.metrics).replace([math.inf, -math.inf], math.nan).dropna()  # errors are not in every row
            drawn += values.tolist()
            for axes, x in zip(row, ("step", "seconds"), strict=True):
                axes.plot(
                    run.metrics.loc[values.index, x], values, color=styles.colour(label), linewidth=1.1, alpha=0.85
                )
        row[0].set(title=shown(title))
    for axes, x in zip(grid[-1], ("step", "seconds"), strict=True):
        axes.set(xlabel=x)
    _logarithmic(grid[0][0], drawn)
    _finish(figure, sweep, quantity, quantity, styles)
    caption = ["One line per run; seconds are those of all its phases."]
    if name == "loss":
        caption.append("Weighted sums are not shown, for they cannot be compared between weightings.")
    return Drawing(
        f"{sweep.problem}_{name}",
        figure,
        f"{quantity[0].upper()}{quantity[1:]} against step and seconds",
        _caption(sweep, arrangement, caption),
        f"{quantity} against step, and against seconds, one line per run",
    )


def draw_weights(sweep: Sweep) -> Drawing:
    """The weights of every loss term against the step, a line per run."""
    arrangement = _by_group(sweep)
    found = list(dict.fromkeys(c for run in sweep.runs for c in run.metrics.columns if c.startswith("weight/")))
    terms = found[:TERMS]
    count = len(arrangement.panels) * len(terms)
    columns = min(2, len(terms)) if len(arrangement.panels) == 1 else len(terms)
    rows = math.ceil(count / columns)
    share: Literal["col", "none"] = "none" if len(arrangement.panels) == 1 else "col"  # a column is a term
    figure = Figure(figsize=(2.4 + 3.6 * columns, 0.8 + 2.7 * rows))
    grid = list(figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=share).flat)
    for axes in grid[count:]:
        axes.set_visible(False)
    styles = Styles(arrangement)
    drawn: dict[str, list[float]] = {term: [] for term in terms}
    for i, (title, members) in enumerate(arrangement.panels):
        for axes, term in zip(grid[i * len(terms) :], terms, strict=False):
            for run, label in _members(sweep, members):
                if term in run.metrics:
                    step, weight = _trajectory(run, term)
                    axes.step(step, weight, where="post", color=styles.colour(label), linewidth=1.1, alpha=0.85)
                    drawn[term] += weight.tolist()
            name = shown(term.removeprefix("weight/"))
            axes.set(title=f"{name} ({shown(title)})" if title else name)
    for axes, term in zip(grid, terms * len(arrangement.panels), strict=False):
        _logarithmic(axes, drawn[term])
    for axes in grid[count - columns : count]:
        axes.set(xlabel="step")
        axes.tick_params(labelbottom=True)
    _finish(figure, sweep, "weight", "weights of the loss terms", styles)
    names = ", ".join(brief(term.removeprefix("weight/"), NAMED) for term in terms)
    caption = ["One line per run; a weight holds until the next update."]
    if len(found) > len(terms):
        caption.append(f"Only {len(terms)} of {len(found)} terms are drawn.")
    return Drawing(
        f"{sweep.problem}_weights",
        figure,
        "Weights of the loss terms",
        _caption(sweep, arrangement, caption),
        f"weights of the loss terms {names} against step, one line per run",
    )


def _trajectory(run: Run, term: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and weights of all updates, or of all rows of metrics.csv where there are none; the last one holds."""
    source = run.weights if len(run.weights) and term in run.weights else run.metrics
    step, weight = source["step"].to_numpy(), source[term].to_numpy()
    return np.append(step, run.metrics["step"].iloc[-1]), np.append(weight, weight[-1])


def draw_cost(sweep: Sweep) -> Drawing:
    """Seconds in training and weight updates against the final error, a mark per run."""
    arrangement, quantity = _by_group(sweep), _quantity(sweep)
    figure, grid = panels(arrangement)
    styles = Styles(arrangement)
    drawn: list[tuple[float, float]] = []
    for axes, (_, members) in zip(grid, arrangement.panels, strict=True):
        for run, label in _members(sweep, members):
            measure = sweep.measure(run)
            if run.seconds is not None and measure is not None:
                axes.plot(run.seconds, measure, **styles.mark(label), linestyle="none", alpha=0.85, label=label)
                drawn.append((run.seconds, measure))
    if spread(seconds for seconds, _ in drawn):
        grid[0].set_xscale("log")
    _logarithmic(grid[0], [measure for _, measure in drawn])
    for axes in grid:
        axes.set(xlabel=COST if len(grid) == 1 else "seconds")
    _finish(figure, sweep, quantity, f"{quantity} at the end against {COST}", styles, marks=True)
    return Drawing(
        f"{sweep.problem}_cost",
        figure,
        "Cost against accuracy",
        _caption(sweep, arrangement, ["One mark per run; lower and further left is better."]),
        f"final {quantity} against {COST}, one mark per run",
    )


def _quantity(sweep: Sweep) -> str:
    return ERROR if sweep.solved else LOSS


def _measures(sweep: Sweep, group: Group) -> list[float]:
    return [measure for run in group.runs if (measure := sweep.measure(run)) is not None]


def _mean(sweep: Sweep, group: Group) -> float:
    """The mean over seeds; infinite where nothing is known."""
    mean = Statistic.of(_measures(sweep, group)).mean
    return math.inf if mean is None else mean


def _by_group(sweep: Sweep) -> Arrangement:
    """All groups with runs that count, arranged as colours in panels."""
    groups = {group.values: group for group in sweep.groups if group.runs}
    return arrange(list(groups), sweep.keys, lambda values: _mean(sweep, groups[values]))


def _members(sweep: Sweep, members: Mapping[tuple[Value, ...], str]) -> Iterator[tuple[Run, str]]:
    """The runs of a panel with their labels."""
    for group in sweep.groups:
        if group.values in members:
            yield from ((run, members[group.values]) for run in group.runs)


def _logarithmic(axes: Axes, values: Sequence[float]) -> None:
    if spread(value for value in values if value > 0):
        axes.set_yscale("log")


def _finish(figure: Figure, sweep: Sweep, quantity: str, title: str, styles: Styles, marks: bool = False) -> None:
    figure.supylabel(quantity, fontsize="medium")
    figure.suptitle(f"{shown(sweep.problem)}: {title}")
    styles.legend(figure, marks)


def _caption(sweep: Sweep, arrangement: Arrangement, sentences: Sequence[str]) -> str:
    """The sentences, and what a reader would miss in the figure."""
    said = list(sentences)
    if arrangement.omitted:
        drawn = len(arrangement.labels)
        said.append(f"Only {drawn} of {drawn + arrangement.omitted} combinations are drawn; the table has all.")
    if missing := sum(group.not_completed for group in sweep.groups):
        said.append(f"{missing} run{'s' * (missing > 1)} not completed {'are' if missing > 1 else 'is'} missing.")
    return " ".join(said)
