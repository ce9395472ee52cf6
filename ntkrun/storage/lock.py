"""One process at a time in a run directory."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ntkrun.storage.atomic import writing

log = logging.getLogger(__name__)

NAME = ".lock"

# What file systems without locks answer, network file systems most of all.
WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)


class BusyError(ValueError):
    """A run directory that another process works in; the message is one line for the user."""


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep other processes out of a run directory while inside.

    The operating system holds the lock for the process and drops it with the process, however that ends; the file
    itself stays and means nothing. On a file system without locks there is a warning instead.

    Raises:
        BusyError: another process, or this one, works in it already.
        WriteError: the lock's file cannot be written.
    """
    lock = FileLock(directory / NAME, blocking=False, fallback_to_soft=False)
    with writing(directory / NAME):
        try:
            lock.acquire()
        except Timeout:
            raise BusyError(f"another process is working on the run in {directory}") from None
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                raise
            log.warning("the file system of %s has no locks: let only one process work on a run", directory)
    try:
        yield
    finally:
        lock.release()


def check_free(directory: Path) -> None:
    """Raise ``BusyError`` where a process works in a directory, which need not exist; nothing is written."""
    if (directory / NAME).exists():
        with locked(directory):
            pass
