"""Opening the run that a command is about, and one line for what is wrong with it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ntkrun.common.errors import fail, refuse

if TYPE_CHECKING:
    from ntkrun.experiment.trained import TrainedRun


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments by which ``open_run`` finds a run."""
    parser.add_argument("run", metavar="RUN", type=Path, help="a run directory")
    parser.add_argument("--best", action="store_true", help="the network of the smallest error, not the last one")
    parser.add_argument("--trust", metavar="MODULE,...", default="", help="modules of your own that the run needs")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: the device of the run")


def open_run(given: argparse.Namespace) -> TrainedRun:
    """The run that the arguments name.

    Raises:
        ValueError: it cannot be loaded; the message is one line.
    """
    import ntkrun

    modules = [module for module in given.trust.split(",") if module]
    return ntkrun.load(given.run, best=given.best, trust=modules, device=given.device)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Leave with one line: exit status 2 for what was given, 1 for what cannot be written."""
    from ntkrun.common.user_frames import cause, from_user_code
    from ntkrun.storage.atomic import WriteError

    try:
        yield
    except WriteError as error:
        fail(error)
    except ValueError as error:
        refuse(error)
    except Exception as error:  # of the classes of a run's own
        if not from_user_code(error):
            raise
        refuse(cause(error))


def check_output(path: Path | None, allowed: tuple[str, ...], option: str = "--output") -> None:
    """Refuse a file whose suffix says no format that can be written, or that has no directory to be in."""
    if path is None:
        return
    if path.suffix not in allowed:
        refuse(f"{option} {path}: the suffix says the format; it may be {', '.join(allowed)}")
    if not path.parent.is_dir():
        refuse(f"{option} {path}: there is no such directory")
