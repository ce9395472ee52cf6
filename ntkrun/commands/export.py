"""The command ``ntkrun-export``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ntkrun.commands.opening import add_run_arguments, check_output, one_line_errors, open_run
from ntkrun.common.arguments import Parser
from ntkrun.common.streams import lasting_streams

DESCRIPTION = """\
Write the network of a run as a program that needs nothing of ntkrun, and compare it with the run.

  ntkrun-export RUN --output wave.pt2 --derivatives u,u_x,u_tt
      values = torch.export.load("wave.pt2").module()(points)
  ntkrun-export RUN --output wave.onnx
      for other languages; needs ntkrun[onnx]

It maps points, [N, d] with the coordinates in the order of the domain, to values [N, k].
"""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Export and leave with an exit status.

    0: done; the last line is the file. 1: it cannot be written. 2: the command line or the run cannot be used.
    """
    parser = Parser("ntkrun-export", DESCRIPTION)
    add_run_arguments(parser)
    parser.add_argument("--output", metavar="FILE", type=Path, required=True, help=".pt2 or .onnx")
    parser.add_argument("--derivatives", metavar="u,u_x,...", help="default: the fields")
    with lasting_streams():
        given = parser.parse_args(arguments)
        check_output(given.output, (".pt2", ".onnx"))
        with one_line_errors():
            run = open_run(given)
            names = given.derivatives.split(",") if given.derivatives else None
            difference = run.export(given.output, names)
            print(f"differs from the run by {difference:.1e} of the largest value")
            print(given.output)
    sys.exit(0)
