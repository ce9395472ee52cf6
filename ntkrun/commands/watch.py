"""The command ``ntkrun-watch``."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from ntkrun.commands.chart import Curve, chart
from ntkrun.common.arguments import Parser
from ntkrun.common.errors import refuse
from ntkrun.common.streams import lasting_streams
from ntkrun.common.terminal import shows_colour, shows_unicode

DESCRIPTION = """\
Show the curves of a run in the terminal as they grow, until it ends: its loss terms, and its error where a solution is
known. Works over ssh. Of a directory with several runs, such as a sweep's, the one that was written to last is shown.

  ntkrun-watch RUN
  ntkrun-watch outputs --every 10
"""

CLEAR = "\x1b[H\x1b[J"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Show curves and leave with an exit status.

    0: the run has ended, or the watching (Ctrl-C; the run goes on). 2: the command line cannot be used.
    """
    parser = Parser("ntkrun-watch", DESCRIPTION)
    parser.add_argument("directory", metavar="RUN", type=Path, help="a run directory, or one above several")
    parser.add_argument("--every", metavar="SECONDS", type=float, default=2.0, help="between looks; default: 2")
    parser.add_argument("--once", action="store_true", help="look once and leave")
    with lasting_streams():
        given = parser.parse_args(arguments)
        if not given.directory.is_dir():
            refuse(f"{given.directory}: no such directory")
        if not 0.1 <= given.every <= 3600:
            refuse(f"--every {given.every:g}: expected 0.1 to 3600 seconds")
        try:
            _watch(given.directory, given.every, given.once)
        except KeyboardInterrupt:
            print()
    sys.exit(0)


def _watch(directory: Path, every: float, once: bool) -> None:
    clear = sys.stdout.isatty() and not once
    shown = None
    while True:
        run = newest_run(directory)
        if run is None:
            refuse(f"{directory}: no run here; there is no metrics.csv")
        state = _status(run)
        picture = draw(run, state)
        if picture != shown:
            print((CLEAR if clear else "") + picture, flush=True)
            shown = picture
        if once or state.get("status") != "running":
            return
        time.sleep(every)


def newest_run(directory: Path) -> Path | None:
    """The run directory in or below a directory whose table was written to last."""
    found = [path for path in directory.rglob("metrics.csv") if path.is_file()]
    return max(found, key=os.path.getmtime).parent if found else None


def draw(run: Path, state: dict[str, Any]) -> str:
    """The picture of a run: a line about it, its losses and its error.

    Args:
        run: its directory.
        state: the content of its ``summary.json``.
    """
    size = shutil.get_terminal_size((80, 24))
    rows = read_rows(run / "metrics.csv")
    last = rows[-1] if rows else {}
    head = f"{run}: {state.get('status', 'unknown')}, step {last.get('step', 0):g} of {state.get('iterations', '?')}"
    errors = _curve(rows, "error/rel_l2")
    if errors:
        head += f", relative L2 error {errors[-1][1]:.2e}"
    losses = {
        name.removeprefix("loss/"): curve
        for name in (rows[0] if rows else {})
        if name.startswith("loss/") and (curve := _curve(rows, name))
    }
    style = {"braille": shows_unicode(sys.stdout), "colour": shows_colour(sys.stdout)}
    height = max(7, (size.lines - 4) // (2 if errors else 1))
    parts = [head, "loss terms", chart(losses, size.columns - 1, height, **style)]
    if errors:
        parts += ["relative L2 error", chart({"error": errors}, size.columns - 1, height, **style)]
    return "\n".join(parts)


def read_rows(path: Path) -> list[dict[str, float]]:
    """The whole rows of a table that is perhaps being written; what is no number is NaN."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    whole = text[: text.rfind("\n") + 1]
    return [
        {name: _number(value) for name, value in row.items() if name is not None}
        for row in csv.DictReader(whole.splitlines())
    ]


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _curve(rows: Sequence[dict[str, float]], name: str) -> Curve:
    return [(row["step"], row[name]) for row in rows if math.isfinite(row.get(name, math.nan))]


def _status(run: Path) -> dict[str, Any]:
    try:
        found = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {"status": "running"}  # it has not come so far as to say so
    return found if isinstance(found, dict) else {}
