"""Runs that torchrun starts again after one of their processes was lost: they go on where their first start had begun.

A run directory has the time in its name unless the user says otherwise, so that the second start would not find it. It
is noted in the folder that torchrun keeps for one invocation, which is gone when that ends.
"""

from __future__ import annotations

import logging
from pathlib import Path

from ntkrun.common.torchrun import invocation_folder, restarted

NOTE = "ntkrun-run-directory.txt"

log = logging.getLogger(__name__)


def note_directory(directory: Path) -> None:
    """Note the directory of a run for the case that torchrun starts it again."""
    folder = invocation_folder()
    if folder is None:
        return
    try:
        (folder / NOTE).write_text(str(directory.absolute()), encoding="utf-8")
    except OSError as error:
        log.warning("a restart by torchrun will not find this run, as %s cannot be written: %s", folder, error)


def directory_override() -> list[str]:
    """What to add to the command line of a run that was started again, so that it takes its first directory."""
    folder = invocation_folder()
    if folder is None or not restarted():
        return []
    try:
        directory = (folder / NOTE).read_text(encoding="utf-8")
    except FileNotFoundError:  # it had not come so far
        return []
    quoted = directory.replace("'", "\\'")
    return [f"hydra.run.dir='{quoted}'"]
