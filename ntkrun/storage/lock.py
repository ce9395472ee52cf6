"""The lock of a run directory: one process at a time."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ntkrun.storage.atomic import writing

if os.name == "posix":
    import fcntl

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
    itself stays and means nothing. Where it can, the directory itself is locked, too, which removing the file does not
    undo. On a file system without locks there is a warning instead.

    Raises:
        BusyError: another process, or this one, works in it already.
        WriteError: the lock's file cannot be written.
    """
    lock = FileLock(directory / NAME, blocking=False, fallback_to_soft=False)
    with writing(directory / NAME):
        try:
            lock.acquire()
        except Timeout:
            raise _busy(directory) from None
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                raise
            log.warning("the file system of %s has no locks: let only one process work on a run", directory)
    try:
        with _directory_locked(directory):
            yield
    finally:
        lock.release()


@contextmanager
def _directory_locked(directory: Path) -> Iterator[None]:
    """Lock a directory itself, where that can be done: network file systems lock only what is open for writing.

    Raises:
        BusyError: somebody else has locked it.
    """
    handle = _open(directory)
    if handle is None:
        yield
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _busy(directory) from None
        except OSError:
            log.debug("%s cannot be locked itself", directory)
        yield
    finally:
        os.close(handle)


def _open(directory: Path) -> int | None:
    if os.name != "posix":
        return None
    try:
        return os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # what may not be read is locked by its file alone
        return None


def _busy(directory: Path) -> BusyError:
    return BusyError(f"another process is working on the run in {directory}")


def check_free(directory: Path) -> None:
    """Raise ``BusyError`` where a process works in a directory, which need not exist; nothing is written."""
    if not directory.is_dir():
        return
    with locked(directory) if (directory / NAME).exists() else _directory_locked(directory):
        pass
