"""The command ``ntkrun-watch``."""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ntkrun.commands.chart import Curve, chart
from ntkrun.commands.opening import check_output, one_line_errors
from ntkrun.common.arguments import Parser
from ntkrun.common.errors import one_line, refuse
from ntkrun.common.streams import lasting_streams
from ntkrun.common.terminal import shows_colour, shows_unicode

if TYPE_CHECKING:
    import pandas as pd

DESCRIPTION = """\
Show the curves of a run in the terminal as they grow, until it ends: its loss terms, and its error where a solution is
known. Works over ssh. Of a directory with several runs, such as a sweep's, the one that was written to last is shown.

  ntkrun-watch RUN
  ntkrun-watch outputs --every 10
  ntkrun-watch RUN --html watch.html      and a page for the browser, which loads itself anew
"""

CLEAR = "\x1b[H\x1b[J"
ROWS = 4000
"""About the most rows of a table that are drawn."""
CURVES = 40
"""The most loss terms that are drawn."""
LARGEST = 1e100
"""Larger numbers are left out."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Show curves and leave with an exit status.

    0: the run has ended, or the watching (Ctrl-C; the run goes on). 1: the page cannot be written. 2: the command line
    or the files of the run cannot be used.
    """
    parser = Parser("ntkrun-watch", DESCRIPTION)
    parser.add_argument("directory", metavar="RUN", type=Path, help="a run directory, or one above several")
    parser.add_argument("--every", metavar="SECONDS", type=float, default=2.0, help="between looks; default: 2")
    parser.add_argument("--once", action="store_true", help="look once and leave")
    parser.add_argument("--html", metavar="FILE.html", type=Path, help="also keep a page of the curves in this file")
    with lasting_streams():
        given = parser.parse_args(arguments)
        if not given.directory.is_dir():
            refuse(f"{given.directory}: no such directory")
        if not 0.1 <= given.every <= 3600:
            refuse(f"--every {given.every:g}: expected 0.1 to 3600 seconds")
        check_output(given.html, (".html",), "--html")
        try:
            with one_line_errors():
                _watch(given)
        except KeyboardInterrupt:
            print()
    sys.exit(0)


def _watch(given: argparse.Namespace) -> None:
    """Look until the run has ended.

    Raises:
        ValueError: a file of the run cannot be used.
        WriteError: the page cannot be written.
    """
    clear = sys.stdout.isatty() and not given.once
    shown = None
    while True:
        run = newest_run(given.directory)
        if run is None:
            refuse(f"{given.directory}: no run here; there is no metrics.csv")
        state, table = read_state(run), read_metrics(run)
        going = state.get("status") == "running"
        picture = draw(run, state, table)
        if picture != shown:
            if given.html is not None:
                from ntkrun.commands.watch_page import write_page

                write_page(given.html, headline(run, state, table), table, given.every if going else None)
            print((CLEAR if clear else "") + picture, flush=True)
            shown = picture
        if given.once or not going:
            return
        time.sleep(given.every)


def newest_run(directory: Path) -> Path | None:
    """The run directory in or below a directory whose table was written to last."""
    found = [(path.lstat().st_mtime, path) for path in directory.rglob("metrics.csv")]
    return max(found)[1].parent if found else None


def read_state(run: Path) -> dict[str, Any]:
    """The content of ``summary.json``; without it the run has not come so far as to say that it is running.

    Raises:
        UnreadableError: it is something else than a run writes.
    """
    from ntkrun.storage.reader import read_json
    from ntkrun.storage.summary import SUMMARY

    path = run / SUMMARY
    if not path.exists() and not path.is_symlink():
        return {"status": "running"}
    found = read_json(path)
    return found if isinstance(found, dict) else {}


def read_metrics(run: Path) -> pd.DataFrame:
    """What is drawn of ``metrics.csv``: whole lines of a table that is perhaps being written, the last one included.

    Raises:
        UnreadableError: it is something else than a run writes.
    """
    from ntkrun.storage.reader import read_growing_table

    table = read_growing_table(run / "metrics.csv", "step", "loss")
    table = table.iloc[(len(table) - 1) % (1 + len(table) // ROWS) :: 1 + len(table) // ROWS]
    losses = [name for name in table.columns if name.startswith("loss/")]
    kept = ["step", "loss", *losses[:CURVES], *(name for name in ("error/rel_l2",) if name in table)]
    return table[kept].where(table[kept].abs() < LARGEST)


def headline(run: Path, state: Mapping[str, Any], table: pd.DataFrame) -> str:
    """One line about a run: how far it is, and its error where that is known."""
    step = table["step"].iloc[-1] if len(table) else 0
    head = f"{run}: {state.get('status', 'unknown')}, step {step:g} of {state.get('iterations', '?')}"
    errors = _curve(table, "error/rel_l2")
    return one_line(head + (f", relative L2 error {errors[-1][1]:.2e}" if errors else ""))


def draw(run: Path, state: Mapping[str, Any], table: pd.DataFrame) -> str:
    """The picture of a run: a line about it, its losses and its error.

    Args:
        run: its directory.
        state: the content of its ``summary.json``.
        table: of ``read_metrics``.
    """
    size = shutil.get_terminal_size((80, 24))
    errors = _curve(table, "error/rel_l2")
    losses = {
        one_line(name.removeprefix("loss/")): curve
        for name in table.columns
        if name.startswith("loss/") and (curve := _curve(table, name))
    }
    style = {"braille": shows_unicode(sys.stdout), "colour": shows_colour(sys.stdout)}
    height = max(7, (size.lines - 4) // (2 if errors else 1))
    parts = [headline(run, state, table), "loss terms", chart(losses, size.columns - 1, height, **style)]
    if errors:
        parts += ["relative L2 error", chart({"error": errors}, size.columns - 1, height, **style)]
    return "\n".join(parts)


def _curve(table: pd.DataFrame, name: str) -> Curve:
    if name not in table:
        return []
    pairs = zip(table["step"].tolist(), table[name].tolist(), strict=True)
    return [(step, value) for step, value in pairs if math.isfinite(step) and math.isfinite(value)]
