"""Log lines: to the run's log file, and to standard error around the progress bar."""

from __future__ import annotations

import errno
import io
import logging
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tqdm.contrib.logging import logging_redirect_tqdm

from ntkrun.storage.atomic import writing

NAME = "ntkrun.log"


class LogFile(logging.FileHandler):
    """A log file that says once that it cannot be written to; the lines are on standard error anyway."""

    _failed = False

    def _open(self) -> io.TextIOWrapper:
        """Open the file at its end, if it is one and has no other name, under which it would change as well."""
        return open(self.baseFilename, "a", encoding=self.encoding, opener=_open_own)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, the name is logging's
        """Called where a line could not be written."""
        error = sys.exception()
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._failed:
            self._failed = True
            print(f"{self.baseFilename} cannot be written: {error.strerror}", file=sys.stderr)

    def close(self) -> None:
        """Close the file; lines that could not be written are lost."""
        with suppress(OSError):  # has been said
            super().close()


def _open_own(path: str, flags: int) -> int:
    handle = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)
    status = os.fstat(handle)
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
        return handle
    os.close(handle)
    raise OSError(errno.EINVAL, "it is no file, or one with another name elsewhere", path)


class _OneLine(logging.Formatter):
    """For the screen; tracebacks are in the log file."""

    def format(self, record: logging.LogRecord) -> str:
        """The message alone."""
        return record.getMessage()


@contextmanager
def logging_to(directory: Path) -> Iterator[None]:
    """Send this package's log lines to ``directory/ntkrun.log`` and to standard error while inside.

    Raises:
        WriteError: the file cannot be opened.
    """
    root = logging.getLogger("ntkrun")
    before = root.level, root.handlers, root.propagate
    with writing(directory / NAME):
        file = LogFile(directory / NAME, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    console = logging.StreamHandler()
    console.setFormatter(_OneLine())
    root.handlers = [file, console]
    root.setLevel(logging.INFO)
    root.propagate = False
    try:
        with logging_redirect_tqdm([root]):
            yield
    finally:
        root.level, root.handlers, root.propagate = before
        file.close()
