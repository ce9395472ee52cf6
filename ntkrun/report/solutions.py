"""Pictures of the solutions of a group's best and median run."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import matplotlib

from ntkrun.plots.run import STYLE, plot_solution
from ntkrun.plots.saved import read_solution
from ntkrun.report.aggregate import Group, Sweep
from ntkrun.report.figures import NAMED, Drawing
from ntkrun.report.gather import Run, brief

GROUPS = 6
"""Most groups of a problem whose solutions are shown: those of the smallest mean error."""
SMALL = {**STYLE, "figure.dpi": 60, "font.size": 9}

log = logging.getLogger(__name__)


def draw_solutions(sweep: Sweep) -> list[Drawing]:
    """Prediction, solution and error of the best and of the median run of every group, as far as they were saved."""
    known = [group for group in sweep.groups if any(sweep.measure(run) is not None for run in group.runs)]
    known.sort(key=lambda group: min(m for run in group.runs if (m := sweep.measure(run)) is not None))
    return [
        drawing
        for group in known[:GROUPS]
        for which, run in _chosen(sweep, group)
        if (drawing := _draw(sweep, group, which, run)) is not None
    ]


def _chosen(sweep: Sweep, group: Group) -> Iterator[tuple[str, Run]]:
    """The best run and the median one; of an even number, the better of both in the middle."""
    measured = [(measure, run) for run in group.runs if (measure := sweep.measure(run)) is not None]
    ordered = [run for _, run in sorted(measured, key=lambda pair: pair[0])]
    middle = (len(ordered) - 1) // 2
    yield ("best" if len(ordered) > 1 else "only"), ordered[0]
    if middle:
        yield "median", ordered[middle]


def _draw(sweep: Sweep, group: Group, which: str, run: Run) -> Drawing | None:
    if not (run.directory / "solution.npz").exists():
        return None
    try:
        solution = read_solution(run.directory)
        with matplotlib.rc_context(SMALL):
            figure = plot_solution(solution)
    except ValueError as error:  # something else than a run has written it
        log.warning("%s/solution.npz is not drawn: %s", run.directory.name, error)
        return None
    name = brief(sweep.choices(group), NAMED) or "all runs"
    measure = sweep.measure(run)
    quantity = "relative L2 error" if sweep.solved else "sum of unweighted loss terms"
    return Drawing(
        f"{sweep.problem}_solution_{sweep.groups.index(group)}_{which}",
        figure,
        f"Solution, {which} run of {name}",
        f"Run {brief(run.directory.name, NAMED)}, seed {run.seed}: {quantity} {measure:.3g}.",
        f"prediction, and solution and error where they are known, of the {which} run of {name}",
    )
