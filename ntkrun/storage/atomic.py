"""Atomic files: either whole or absent."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

LEFTOVERS = ".*.tmp"


class WriteError(OSError):
    """A file that cannot be written; the message is one line for the user."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the operating system has against writing a file into one line.

    Raises:
        WriteError: instead of any other ``OSError``.
    """
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(f"{path} cannot be written: {error.strerror or error}") from error


def write_atomically(path: Path, write: Callable[[IO[bytes]], object], keep: Path | None = None) -> None:
    """Write a file through a temporary neighbour, so that ``path`` never holds half of it.

    Args:
        path: the file; an older version is replaced once the new one is on the disk.
        write: receives an open binary file.
        keep: where the older version goes; its own older version is lost.

    Raises:
        WriteError: the file cannot be written, because the disk is full, say; ``path`` is as it was.
    """
    content = io.BytesIO()  # what writes a format may not survive that the disk fills up
    write(content)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        try:
            temporary.unlink(missing_ok=True)  # of a killed process that had this one's number
            with open(temporary, "xb") as file:  # through no link that lies there
                file.write(content.getbuffer())
                sync(file)
            if keep is not None and path.exists():
                os.replace(path, keep)
            os.replace(temporary, path)
            _sync_directory(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_text_atomically(path: Path, text: str) -> None:
    """``write_atomically`` for a string, in UTF-8."""
    write_atomically(path, lambda file: file.write(text.encode()))


def sync(file: IO[bytes] | IO[str]) -> None:
    """Put everything that was written to a file on the disk."""
    file.flush()
    os.fsync(file.fileno())


def remove_leftovers(directory: Path) -> None:
    """Remove temporary files that killed processes have left in a run directory, which no other one uses now.

    Raises:
        WriteError: the directory cannot be written to.
    """
    with writing(directory):
        for folder in (directory, directory / "plots"):
            for path in folder.glob(LEFTOVERS):
                path.unlink()


def _sync_directory(directory: Path) -> None:
    """Put the names of a directory's files on the disk; without this a crash of the machine may bring back old ones."""
    if os.name != "posix":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems know no such thing; the files themselves are whole
            os.fsync(handle)
    finally:
        os.close(handle)
