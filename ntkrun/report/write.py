"""From run directories to a report directory."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from ntkrun.report.aggregate import Sweep, groups_table, runs_table, sweeps, swept_keys
from ntkrun.report.figures import draw
from ntkrun.report.gather import gather
from ntkrun.report.page import Picture, render
from ntkrun.storage.atomic import write_atomically, write_text_atomically, writing


class ReportError(ValueError):
    """There is nothing to report on."""


def write(directories: Sequence[Path], output: Path) -> Path:
    """See ``ntkrun.report.write_report``."""
    runs = gather(directories)
    if not runs:
        raise ReportError(f"no run directories in {', '.join(map(str, directories))}")
    output = output.resolve()
    with writing(output):
        (output / "figures").mkdir(parents=True, exist_ok=True)
    keys = swept_keys(runs)
    found = sweeps(runs, keys)
    _write_table(runs_table(runs, keys, output), output / "runs.csv")
    _write_table(groups_table(found, keys), output / "groups.csv")
    pictures = [(sweep, _save(sweep, output / "figures")) for sweep in found]
    write_text_atomically(output / "index.html", render(runs, keys, pictures, output))
    return output / "index.html"


def _write_table(table: pd.DataFrame, path: Path) -> None:
    write_text_atomically(path, table.to_csv(index=False, lineterminator="\n"))


def _save(sweep: Sweep, directory: Path) -> list[Picture]:
    """Draw the figures of a problem and save them as PNG."""
    pictures = []
    for drawing in draw(sweep):
        path = directory / f"{re.sub(r'[^A-Za-z0-9_.-]', '-', drawing.name)}.png"
        write_atomically(path, partial(drawing.figure.savefig, format="png"))
        pictures.append(Picture.of(drawing, path))
    return pictures
