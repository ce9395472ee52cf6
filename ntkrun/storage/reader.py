"""The one reader of files that may come from someone else.

A run directory may have been received, and what lies in it need not be what its name says. Only regular files of
bounded size are opened, never a link, pipe, socket or device; what is parsed is bounded in depth and number, so that
every file is read or refused within a second and some hundred MB, by one line.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
import stat
import zipfile
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ntkrun.storage.plain_yaml import PlainError, load_plain

MIB = 2**20
TEXT = MIB
"""Most bytes of a summary or another short text."""
CONFIGURATION = MIB // 4
"""Most bytes of a configuration."""
TABLE = 256 * MIB
"""Most bytes of a table."""
ARRAYS = 256 * MIB
"""Most bytes of an array file, and of its arrays."""
VALUES = 20_000_000
"""Most numbers of a table."""
COLUMNS = 2_000
"""Most columns of a table."""


class UnreadableError(ValueError):
    """A file of a run that is missing, incomplete, malformed or not a regular file; the message is one line."""


@contextmanager
def opened(path: Path, limit: int) -> Iterator[IO[bytes]]:
    """A regular file, open for reading; nothing waits for the other end of a pipe, and no link is followed.

    Args:
        path: the file.
        limit: the most bytes that it may have.

    Raises:
        UnreadableError: there is no such file, it is something else than a file, too long, or cannot be opened.
    """
    name = shown_name(path)
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
    try:
        handle = os.open(path, flags | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise UnreadableError(f"no {name}") from None
    except OSError as error:
        raise UnreadableError(f"{name} cannot be read: {_reason(error)}") from None
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
        os.close(handle)
        what = f"longer than {_size(limit)}" if stat.S_ISREG(status.st_mode) else "not a file"
        raise UnreadableError(f"{name} cannot be read: {what}")
    with os.fdopen(handle, "rb") as file:
        try:
            yield file
        except OSError as error:
            raise UnreadableError(f"{name} cannot be read: {_reason(error)}") from None


def shown_name(path: Path) -> str:
    """A file's name for messages, with its folder where that is one of Hydra's."""
    return f"{path.parent.name}/{path.name}" if path.parent.name == ".hydra" else path.name


def read_bytes(path: Path, limit: int = TEXT) -> bytes:
    """The content of a file.

    Raises:
        UnreadableError: see ``opened``.
    """
    with opened(path, limit) as file:
        content = bytearray()
        while len(content) <= limit and (more := file.read(MIB)):  # all that is asked for is allocated at once
            content += more
    if len(content) > limit:
        raise UnreadableError(f"{shown_name(path)} cannot be read: longer than {_size(limit)}")
    return bytes(content)


def read_text(path: Path, limit: int = TEXT) -> str:
    """The content of a text file in UTF-8.

    Raises:
        UnreadableError: see ``opened``; or it is in another encoding.
    """
    try:
        return read_bytes(path, limit).decode("utf-8")
    except UnicodeDecodeError:
        raise UnreadableError(f"{shown_name(path)} cannot be read: not UTF-8") from None


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        UnreadableError: see ``read_text``; or it is not JSON, is nested too deeply, or has a whole number beyond 2^63.
    """
    text = read_text(path)
    try:
        return json.loads(text, parse_int=_whole)
    except RecursionError:
        raise UnreadableError(f"{shown_name(path)}: nested too deeply") from None
    except ValueError as error:
        raise UnreadableError(f"{shown_name(path)} is not JSON: {error}") from None


def read_yaml(path: Path) -> Any:
    """The content of a YAML file as plain values, by OmegaConf's rules for numbers; interpolations remain texts.

    Raises:
        UnreadableError: see ``read_text``; or it is not YAML, or has aliases, tags of its own, keys given twice, whole
            numbers beyond 2^63, or too many or too deeply nested values.
    """
    name, text = shown_name(path), read_text(path, CONFIGURATION)
    try:
        return load_plain(text)
    except PlainError as error:
        place = f", line {error.line}" if error.line else ""
        raise UnreadableError(f"{name}{place}: {error}") from None


def read_table(path: Path, *columns: str, whole_lines: bool = True) -> pd.DataFrame:
    """A table of numbers; empty fields become NaN.

    Args:
        path: a CSV file.
        columns: those that it must have.
        whole_lines: take it for cut off where its last line has no end.

    Raises:
        UnreadableError: the file is missing, cut off, or holds something else.
    """
    name = path.name
    with opened(path, TABLE) as file:
        if not _ends_with_a_line(file, name) and whole_lines:
            raise UnreadableError(f"{name} ends in the middle of a line")
        return _table(file, name, columns)


def read_growing_table(path: Path, *columns: str) -> pd.DataFrame:
    """The whole lines of a table of numbers that is perhaps being written; empty before its first.

    Args:
        path: a CSV file.
        columns: those that it must have, once it has any.

    Raises:
        UnreadableError: see ``read_table``.
    """
    content = read_bytes(path, TABLE)
    whole = content[: content.rfind(b"\n") + 1]
    return _table(io.BytesIO(whole), path.name, columns) if whole else pd.DataFrame(columns=list(columns), dtype=float)


def _table(file: IO[bytes], name: str, columns: Sequence[str]) -> pd.DataFrame:
    """The table in an open file."""
    try:
        with io.TextIOWrapper(file, encoding="utf-8", newline="") as text:
            header, values = _numbers(csv.reader(text), name)
    except UnicodeDecodeError:
        raise UnreadableError(f"{name} cannot be read: not UTF-8") from None
    except csv.Error as error:
        raise UnreadableError(f"{name}: {error}") from None
    if missing := [column for column in columns if column not in header]:
        raise UnreadableError(f"{name} has no column {missing[0]}")
    rows = np.frombuffer(values, dtype=np.float64).reshape(-1, len(header))
    return pd.DataFrame(rows, columns=header, copy=True)


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file; nothing in it is executed.

    Raises:
        UnreadableError: it is missing, holds something else than arrays of numbers and texts, or too much.
    """
    name = path.name
    with opened(path, ARRAYS) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > ARRAYS:
                    raise UnreadableError(f"{name} cannot be read: its arrays are longer than {_size(ARRAYS)}")
                return {entry.filename.removesuffix(".npy"): _array(archive, entry) for entry in archive.infolist()}
        except UnreadableError:
            raise
        except Exception as error:  # whatever changed bytes make of zipfile and of NumPy's format
            raise UnreadableError(f"{name} is damaged, or does not hold arrays: {type(error).__name__}") from None


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    """One array, whose header may not promise more than its part of the archive holds."""
    with archive.open(entry) as member:
        version = np.lib.format.read_magic(member)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(member)
        if math.prod(shape) * max(dtype.itemsize, 1) > entry.file_size:
            raise ValueError("the header promises more than there is")
    with archive.open(entry) as member:
        found: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
    return found


def _ends_with_a_line(file: IO[bytes], name: str) -> bool:
    """Whether the last byte ends a line; the file is at its start again afterwards."""
    if not os.fstat(file.fileno()).st_size:
        raise UnreadableError(f"{name} is empty")
    file.seek(-1, os.SEEK_END)
    last = file.read(1)
    file.seek(0)
    return last == b"\n"


def _numbers(rows: Iterator[list[str]], name: str) -> tuple[list[str], array[float]]:
    """The header and all numbers, row by row."""
    header = next(rows)
    if len(header) > COLUMNS:
        raise UnreadableError(f"{name} has more than {COLUMNS} columns")
    if len(header) == 1 and (sign := next((each for each in ";\t" if each in header[0]), None)):
        raise UnreadableError(f"{name} has {sign!r} between its columns; expected are commas, and points in numbers")
    if header and all(_is_number(entry) for entry in header):
        raise UnreadableError(f"{name} has numbers in its first line; expected are the names of the columns")
    if twice := _repeated(header):
        raise UnreadableError(f"{name} has two columns {twice}")
    values: array[float] = array("d")
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise UnreadableError(f"{name}, line {number}: {len(row)} values instead of {len(header)}")
        try:
            values.extend([float(entry) if entry else math.nan for entry in row])
        except ValueError as error:
            raise UnreadableError(f"{name}, line {number}: {error}") from None
        if len(values) > VALUES:
            raise UnreadableError(f"{name} has more than {VALUES} values")
    return header, values


def _is_number(entry: str) -> bool:
    try:
        return math.isfinite(float(entry))
    except ValueError:
        return False


def _repeated(names: Sequence[str]) -> str | None:
    """The first name that occurs twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _whole(digits: str) -> int:
    """A whole number of JSON."""
    if len(digits) > 20 or abs(int(digits)) >= 2**63:
        raise ValueError("a whole number beyond 2^63")
    return int(digits)


def _reason(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "it is a link"
    if error.errno == errno.ENXIO:
        return "not a file"
    return error.strerror or str(error)


def _size(limit: int) -> str:
    return f"{limit // MIB} MiB" if limit >= MIB else f"{limit // 1024} KiB"
