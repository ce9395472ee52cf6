"""The command ``ntkrun-report``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ntkrun.common.arguments import Parser
from ntkrun.common.errors import fail, refuse
from ntkrun.common.streams import lasting_streams

DESCRIPTION = """\
Gather runs into a report: runs.csv, groups.csv (means over seeds, by whatever was swept),
figures/, and index.html, which shows all of it without a network.
"""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Write a report and leave with an exit status.

    0: done. 1: it cannot be written. 2: the command line cannot be used. The last line printed is the path of the page.
    """
    with lasting_streams():
        _main(arguments)


def _main(arguments: Sequence[str] | None) -> NoReturn:
    parser = Parser("ntkrun-report", DESCRIPTION)
    parser.add_argument(
        "directories", metavar="DIR", nargs="+", type=Path, help="searched for run directories, itself included"
    )
    parser.add_argument(
        "--output", metavar="DIR", type=Path, help="default: report/ in the directory given, or here for several"
    )
    given = parser.parse_args(arguments)
    for directory in given.directories:
        if not directory.is_dir():
            refuse(f"{directory}: no such directory")
    base = given.directories[0] if len(given.directories) == 1 else Path()
    output = given.output or base / "report"
    if output.exists() and not output.is_dir():
        refuse(f"--output {output}: not a directory")

    from ntkrun.report import ReportError, write_report
    from ntkrun.storage.atomic import WriteError

    try:
        print(write_report(given.directories, output))
    except ReportError as error:
        refuse(error)
    except WriteError as error:
        fail(error)
    sys.exit(0)
