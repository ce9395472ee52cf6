"""The page of a report: one file with everything in it."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ntkrun.report.aggregate import (
    ABSENT,
    STATISTICS,
    Statistic,
    Sweep,
    Value,
    field_names,
    flattened,
    levels,
    text,
    values_by_run,
)
from ntkrun.report.charts import chart_data
from ntkrun.report.figures import Drawing
from ntkrun.report.gather import OUTPUT_KEYS, Run, brief
from ntkrun.report.verdict import verdicts

LONGEST = 120
"""Most characters of a name or value; ``runs.csv`` has all of them."""


@dataclass(frozen=True)
class Cell:
    """One field of a table.

    Attributes:
        text: as shown.
        sort: what its column is sorted by; ``None`` goes last.
        link: where it leads, if anywhere.
        kind: ``number`` or ``long``, or empty.
        order: its rank in the column.
    """

    text: str
    sort: float | None = None
    link: str = ""
    kind: str = ""
    order: int = 0


@dataclass(frozen=True)
class Column:
    """Heading of a column."""

    name: str
    number: bool = False


@dataclass(frozen=True)
class Table:
    """A table that can be sorted by any column.

    Attributes:
        name, caption, columns, rows: its content.
        groups: which group every row belongs to, as ``PROBLEM:NUMBER``; empty where groups are not told apart.
    """

    name: str
    caption: str
    columns: list[Column]
    rows: list[list[Cell]]
    groups: list[str]

    @classmethod
    def of(cls, name: str, caption: str, columns: dict[str, list[Cell]], groups: Sequence[str] = ()) -> Table:
        """From cells by column."""
        ranked = [_ranked(cells) for cells in columns.values()]
        heads = [Column(_short(name), any(cell.kind == "number" for cell in cells)) for name, cells in columns.items()]
        rows = [list(row) for row in zip(*ranked, strict=True)]
        return cls(name, caption, heads, rows, list(groups) or [""] * len(rows))


def _ranked(cells: Sequence[Cell]) -> list[Cell]:
    order = sorted({cell.sort for cell in cells if cell.sort is not None})
    ranks = {value: rank for rank, value in enumerate(order)}
    return [
        Cell(cell.text, cell.sort, cell.link, cell.kind, len(order) if cell.sort is None else ranks[cell.sort])
        for cell in cells
    ]


@dataclass(frozen=True)
class Picture:
    """A figure as the page shows it, with its size in CSS pixels.

    Attributes:
        title, caption, description, data, width, height: of the figure.
        kind: ``curves`` where the page also has a chart of the same that answers to the pointer, ``solution``, or
            empty.
    """

    title: str
    caption: str
    description: str
    data: str
    width: int
    height: int
    kind: str = ""

    @classmethod
    def of(cls, drawing: Drawing, png: Path) -> Picture:
        """From a figure and the file that it was saved to."""
        width, height = (round(96 * inches) for inches in drawing.figure.get_size_inches())
        data = base64.b64encode(png.read_bytes()).decode("ascii")
        kinds = {"curves": ("_error", "_loss", "_cost"), "solution": ("_best", "_median", "_only")}
        kind = next((kind for kind, ends in kinds.items() if drawing.name.endswith(ends)), "")
        return cls(drawing.title, drawing.caption, drawing.description, data, width, height, kind)


@dataclass(frozen=True)
class Section:
    """One problem."""

    anchor: str
    heading: str
    text: str
    verdicts: list[str]
    table: Table
    figures: list[Picture]
    solutions: list[Picture]
    data: Markup


def render(runs: Sequence[Run], keys: Sequence[str], found: Sequence[tuple[Sweep, list[Picture]]], output: Path) -> str:
    """The page.

    Args:
        runs: all of them.
        keys: what was swept.
        found: every problem with its figures.
        output: the directory of the page, which links are relative to.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files("ntkrun.report") / "page.html").read_text(encoding="utf-8"))
    excluded = [run for run in runs if not run.counted]
    counted = len(runs) - len(excluded)
    return template.render(
        title=f"Report on {_count(len(runs), 'run')}",
        summary=f"{counted} of {len(runs)} completed and counted. Swept: "
        f"{', '.join(map(_short, keys)) or 'nothing but the seed'}.",
        common=_common(runs, keys),
        sections=[_section(number, sweep, pictures) for number, (sweep, pictures) in enumerate(found, start=1)],
        runs=_runs_table(runs, keys, output, _groups([sweep for sweep, _ in found])),
        excluded=_excluded_table(excluded, output),
    )


def _section(number: int, sweep: Sweep, pictures: list[Picture]) -> Section:
    swept = [
        f"{_short(key)} ({', '.join(_short(text(value)) for value in levels(g.values[k] for g in sweep.groups))})"
        for k, key in enumerate(sweep.keys)
    ]
    said = [f"{_count(len(sweep.runs), 'run')} in {_count(len(sweep.groups), 'group')}."]
    said.append(f"Swept: {'; '.join(swept)}." if swept else "Nothing was swept but the seed.")
    if sweep.runs and not sweep.solved:
        said.append("No exact solution is known, so the unweighted loss stands for the error.")
    return Section(
        f"problem-{number}",
        f"Problem {_short(sweep.problem)}",
        " ".join(said),
        verdicts(sweep),
        _groups_table(sweep, _groups([sweep], number)),
        [picture for picture in pictures if picture.kind != "solution"],
        [picture for picture in pictures if picture.kind == "solution"],
        chart_data(sweep),
    )


def _groups(found: Sequence[Sweep], first: int = 1) -> dict[Path, str]:
    """The group of every run that is in one that counts, as the page's charts number them."""
    return {
        run.directory: f"problem-{number}:{place}"
        for number, sweep in enumerate(found, start=first)
        for place, group in enumerate(group for group in sweep.groups if group.runs)
        for run in group.members
    }


def _groups_table(sweep: Sweep, known: Mapping[Path, str]) -> Table:
    groups = sweep.groups
    columns: dict[str, list[Cell]] = {
        key: _value_cells([group.values[k] for group in groups]) for k, key in enumerate(sweep.keys)
    }
    columns["seeds"] = [_count_cell(len(group.runs)) for group in groups]
    if any(group.not_completed for group in groups):
        columns["not completed"] = [_count_cell(group.not_completed) for group in groups]
    statistics: dict[str, list[Statistic]] = {
        name.replace("_", " "): [getattr(group, name) for group in groups] for name in STATISTICS
    }
    fields = field_names(sweep.runs)
    statistics |= {f"final error of {_short(name)}": [group.field_error(name) for group in groups] for name in fields}
    for name, found in statistics.items():
        if any(each.count for each in found):
            columns[name] = [_statistic_cell(each) for each in found]
        if any(each.count not in (0, len(group.runs)) for each, group in zip(found, groups, strict=True)):
            columns[f"{name}, count"] = [_count_cell(each.count) for each in found]
    caption = "Mean over seeds ± standard deviation (n - 1). Errors are relative L2 errors, seconds those in "
    marks = [known.get(group.members[0].directory, "") for group in groups]
    return Table.of(f"Means of {_short(sweep.problem)}", caption + "training and weight updates.", columns, marks)


def _runs_table(runs: Sequence[Run], keys: Sequence[str], output: Path, known: Mapping[Path, str]) -> Table:
    columns = {"run": _run_cells(runs, output)}
    values = values_by_run(runs, keys)
    columns |= {key: _value_cells([row[k] for row in values]) for k, key in enumerate(keys)}
    seeds = [run.seed if isinstance(run.seed, int) else ABSENT for run in runs]
    columns["seed"] = _value_cells(seeds)
    columns["status"] = _value_cells([run.status for run in runs])
    columns["final error"] = [_number_cell(run.final_error) for run in runs]
    columns["best error"] = [_number_cell(run.best_error) for run in runs]
    for name in field_names(runs):
        columns[f"final error of {_short(name)}"] = [_number_cell(run.field_errors.get(name)) for run in runs]
    columns["unweighted loss"] = [_number_cell(run.unweighted_loss) for run in runs]
    columns["seconds"] = [_number_cell(run.seconds) for run in runs]
    marks = [known.get(run.directory, "") for run in runs]
    return Table.of("Runs", "All runs, by what distinguishes them; click a heading to sort.", columns, marks)


def _excluded_table(runs: Sequence[Run], output: Path) -> Table:
    columns = {
        "run": _run_cells(runs, output),
        "status": _value_cells([run.status for run in runs]),
        "reason": [Cell(run.reason, float(i), kind="long") for i, run in enumerate(runs)],
    }
    return Table.of(
        "Runs left out",
        "These did not come to a usable end, or repeat another run; they are in no figure and no mean.",
        columns,
    )


def _run_cells(runs: Sequence[Run], output: Path) -> list[Cell]:
    base = Path(os.path.commonpath([run.directory.parent for run in runs])) if runs else Path()
    return [
        Cell(
            run.directory.relative_to(base).as_posix(),
            float(i),
            quote(os.fsencode(Path(os.path.relpath(run.directory, output)).as_posix())) + "/",
        )
        for i, run in enumerate(runs)
    ]


def _value_cells(values: Sequence[Value]) -> list[Cell]:
    order = levels(values)
    return [
        Cell(
            _short(text(value)),
            float(order.index(value)),
            kind="number" if isinstance(value, int | float) and not isinstance(value, bool) else "",
        )
        for value in values
    ]


def _statistic_cell(statistic: Statistic) -> Cell:
    deviation = "" if statistic.deviation is None else f" ± {_digits(statistic.deviation)}"
    return Cell(_digits(statistic.mean) + deviation, statistic.mean, kind="number")


def _number_cell(value: float | None) -> Cell:
    return Cell(_digits(value), value, kind="number")


def _count_cell(value: int) -> Cell:
    return Cell(str(value), value, kind="number")


def _digits(value: float | None) -> str:
    """Three significant digits."""
    return ABSENT if value is None else f"{value:#.3g}".rstrip(".")


def _common(runs: Sequence[Run], keys: Sequence[str]) -> list[str]:
    """Choices and overrides that all runs share."""
    known = [run for run in runs if run.choices]
    if not known:
        return []
    flat = flattened(known)
    chosen = [group for group, choice in known[0].choices.items() if choice != "null"]  # no experiment, say
    names = [*chosen, *known[0].overridden]
    shared = []
    for name in dict.fromkeys(names):
        values = {run.choices.get(name, own.get(name, ABSENT)) for run, own in zip(known, flat, strict=True)}
        if name not in (*keys, *OUTPUT_KEYS, "seed") and len(values) == 1 and ABSENT not in values:
            shared.append(f"{_short(name)}={_short(text(values.pop()))}")
    return shared


def _short(words: str) -> str:
    return brief(words, LONGEST)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
