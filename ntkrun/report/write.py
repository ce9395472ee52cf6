"""Writes a report directory from run directories."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from ntkrun.report import ReportError
from ntkrun.report.aggregate import Sweep, groups_table, runs_table, sweeps, swept_keys
from ntkrun.report.figures import draw
from ntkrun.report.gather import gather
from ntkrun.report.page import Picture, render
from ntkrun.report.solutions import draw_solutions
from ntkrun.storage.atomic import write_atomically, write_text_atomically, writing

LONGEST = 100
"""Most characters of a figure's name."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What begins a formula in spreadsheets."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?inf", re.ASCII)


def write(directories: Sequence[Path], output: Path) -> Path:
    """See ``ntkrun.report.write_report``."""
    runs = gather(directories)
    if not runs:
        raise ReportError(f"no run directories in {', '.join(map(str, directories))}")
    _check_output(directories, output)
    output = output.resolve()
    with writing(output):
        (output / "figures").mkdir(parents=True, exist_ok=True)
    keys = swept_keys(runs)
    found = sweeps(runs, keys)
    _write_table(runs_table(runs, keys, output), output / "runs.csv")
    _write_table(groups_table(found, keys), output / "groups.csv")
    pictures: list[tuple[Sweep, list[Picture]]] = []
    files: set[str] = set()
    for sweep in found:
        pictures.append((sweep, _save(sweep, output / "figures", files)))
    _write(output / "index.html", render(runs, keys, pictures, output))
    return output / "index.html"


def _check_output(directories: Sequence[Path], output: Path) -> None:
    """See that the report stays where it seems to go: below a directory with runs, which may have been received.

    Raises:
        ReportError: a folder of it is a link.
    """
    searched = [directory.resolve() for directory in directories]
    inside = any(output.parent.resolve().is_relative_to(directory) for directory in searched)
    for folder in (output, output / "figures") if inside else (output / "figures",):
        if folder.is_symlink():
            raise ReportError(f"{folder} is a link; the report is not written through it")


def _write_table(table: pd.DataFrame, path: Path) -> None:
    table = table.rename(columns=_as_text).map(_as_text)
    _write(path, table.to_csv(index=False, lineterminator="\n"))


def _as_text(cell: object) -> object:
    """A cell that no spreadsheet takes for a formula; numbers remain numbers."""
    if isinstance(cell, str) and cell.startswith(FORMULA) and not NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell


def _write(path: Path, text: str) -> None:
    """Names that are not UTF-8 are written with escapes in their place."""
    write_text_atomically(path, text.encode("utf-8", "backslashreplace").decode())


def _save(sweep: Sweep, directory: Path, taken: set[str]) -> list[Picture]:
    """Draw the figures of a problem and save them as PNG, under names that are not yet taken."""
    pictures = []
    for drawing in [*draw(sweep), *draw_solutions(sweep)]:
        name = re.sub(r"[^A-Za-z0-9_-]", "-", drawing.name)[-LONGEST:].lstrip("-")
        if name in taken:
            name += f"-{len(taken)}"
        taken.add(name)
        path = directory / f"{name}.png"
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)  # of names in other scripts
            write_atomically(path, partial(drawing.figure.savefig, format="png"))
        pictures.append(Picture.of(drawing, path))
    return pictures
