"""The command ``ntkrun-predict``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ntkrun.commands.opening import add_run_arguments, check_output, one_line_errors, open_run
from ntkrun.common.arguments import Parser
from ntkrun.common.errors import refuse
from ntkrun.common.streams import lasting_streams

DESCRIPTION = """\
Evaluate the network of a run, its fields and derivatives of them up to order 4, at points of a table or on a grid.

  ntkrun-predict RUN --points points.csv                          a table on standard output
  ntkrun-predict RUN --points points.csv --derivatives u,u_x,u_tt --output values.csv
  ntkrun-predict RUN --grid 200 --at t=0.5 --output slice.vtu     for ParaView; needs ntkrun[vtk]
  ntkrun-predict RUN --animate solution.gif                       the solution over time, as a moving picture
  ntkrun-predict RUN --landscape loss.png                         the loss around the parameters of the run
"""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Predict and leave with an exit status.

    0: done. 1: it cannot be written. 2: the command line, the run or the points cannot be used.
    """
    with lasting_streams():
        given = _parser().parse_args(arguments)
        _check(given)
        with one_line_errors():
            (_animate if given.animate else _landscape if given.landscape else _predict)(given)
    sys.exit(0)


def _parser() -> Parser:
    parser = Parser("ntkrun-predict", DESCRIPTION)
    add_run_arguments(parser)
    parser.add_argument(
        "--points", metavar="FILE", type=Path, help="a CSV file whose first line names its columns: x,t"
    )
    parser.add_argument("--grid", metavar="N", type=int, help="so many points along every coordinate, ends included")
    parser.add_argument("--at", metavar="t=0.5", action="append", default=[], help="hold a coordinate fixed")
    parser.add_argument("--derivatives", metavar="u,u_x,...", help="default: the fields")
    parser.add_argument("--output", metavar="FILE", type=Path, help=".csv, .npz or .vtu; default: standard output")
    parser.add_argument(
        "--animate",
        metavar="FILE",
        type=Path,
        help="draw solution.npz of the run over time instead; .gif, or .mp4 where ffmpeg is installed",
    )
    parser.add_argument(
        "--landscape",
        metavar="FILE",
        type=Path,
        help="the loss on a plane through the parameters instead; .png, .pdf, or .npz for its numbers",
    )
    parser.add_argument(
        "--directions",
        choices=("random", "steepest"),
        default="random",
        help="of the plane: normalised by filter, or the leading eigenvectors of the kernel",
    )
    parser.add_argument("--radius", metavar="R", type=float, default=1.0, help="of the plane; default: 1")
    return parser


def _check(given: argparse.Namespace) -> None:
    """Refuse what can be seen to be wrong before anything heavy is loaded."""
    prediction = given.points or given.grid or given.at or given.derivatives or given.output
    if given.landscape is not None:
        if prediction or given.animate:
            refuse("--landscape takes no points, derivatives, output or animation")
        if not 0 < given.radius <= 1e6:
            refuse(f"--radius {given.radius:g}: expected a positive number up to 1e6")
        check_output(given.landscape, (".png", ".pdf", ".npz"), "--landscape")
        return
    if given.animate is not None:
        if prediction:
            refuse("--animate draws what the run has saved, and takes no points, derivatives or output")
        check_output(given.animate, (".gif", ".mp4"), "--animate")
        return
    if (given.points is None) == (given.grid is None):
        refuse("give either --points FILE or --grid N")
    if given.grid is not None and given.grid < 2:
        refuse(f"--grid {given.grid}: expected 2 or more")
    if given.points is not None and not given.points.is_file():
        refuse(f"--points {given.points}: no such file")
    check_output(given.output, (".csv", ".npz", ".vtu"))


def _predict(given: argparse.Namespace) -> None:
    from ntkrun.commands.formats import as_csv, write_values
    from ntkrun.commands.points import grid_points, inside_of, read_fixed, read_points

    run = open_run(given)
    domain = run.pde.domain
    fixed = read_fixed(given.at, domain)
    names = given.derivatives.split(",") if given.derivatives else None
    if given.points is None:
        points = grid_points(domain, given.grid, fixed)
        inside = inside_of(domain, points.table)
        values = run.predict(points.table[inside], names).reindex(points.table.index)
    else:
        points = read_points(given.points, domain.coordinates, fixed)
        values = run.predict(points.table, names)
    digits = 17 if run.config["dtype"] == "float64" else 9
    if given.output is None:
        sys.stdout.write(as_csv(points, values, digits))
    else:
        write_values(given.output, points, values, digits)
        print(given.output)


def _landscape(given: argparse.Namespace) -> None:
    from ntkrun.commands.landscape import write_landscape

    write_landscape(open_run(given), given.landscape, given.directions, given.radius)
    print(given.landscape)


def _animate(given: argparse.Namespace) -> None:
    from ntkrun.common.matplotlib_settings import import_matplotlib

    if not given.run.is_dir():
        raise ValueError(f"{given.run}: no such directory")
    import_matplotlib()
    from ntkrun.plots.animation import write_animation
    from ntkrun.plots.saved import read_solution

    write_animation(given.animate, read_solution(given.run))
    print(given.animate)
