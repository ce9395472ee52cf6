"""Tables that grow row by row, and whose rows before a checkpoint are part of it."""

from __future__ import annotations

import csv
import io
import math
import os
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ntkrun.storage.atomic import sync, write_atomically, writing
from ntkrun.storage.reader import UnreadableError, read_bytes

Value = float | int | None

PACKED = 4 * 2**20
"""Most bytes of compressed rows that are kept in memory and in every checkpoint."""
LARGEST = 4 * 2**30
"""Most bytes of a table that is read."""
NAMED = 5
"""Most rows that a message names."""


class TableError(ValueError):
    """A table that this run cannot go on with."""


@dataclass(frozen=True)
class Kept:
    """The rows of a table before a checkpoint, header included.

    Attributes:
        length: bytes.
        checksum: CRC-32 of these.
        rows: the bytes, compressed by zlib; nothing where they would make the checkpoint large.
    """

    length: int
    checksum: int
    rows: bytes | None

    def content(self) -> bytes | None:
        """The bytes themselves, where they are there and those that were kept."""
        if self.rows is None:
            return None
        unpack = zlib.decompressobj()
        try:
            content = unpack.decompress(self.rows, min(self.length + 1, LARGEST))
        except zlib.error:
            return None
        return content if self.fits(content) else None

    def fits(self, content: bytes) -> bool:
        """Whether this is what was kept."""
        return len(content) == self.length and zlib.crc32(content) == self.checksum


class Table:
    """A CSV file that grows row by row, in the order of its first column.

    Args:
        path: the file.
        columns: its columns, ``step`` first.
        digits: significant digits of floats; 9 keep a float32 exactly, 17 a float64.
        keep_below: on going on with an older file, only rows with a smaller step are kept.
        kept: what the checkpoint knows of these rows, if it does.
        later: columns that files of earlier versions may lack; they are added, empty in the older rows.

    Attributes:
        trouble: what was found wrong with the older file and done about it, in one line; empty if nothing was.

    Raises:
        TableError: the older file has other columns.
        WriteError: here and in all methods, the file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        columns: Sequence[str],
        digits: int,
        keep_below: int | None = None,
        kept: Kept | None = None,
        later: Collection[str] = (),
    ) -> None:
        self.columns = tuple(columns)
        self.trouble = ""
        self._path = path
        self._spec = f".{digits}g"
        content = _lines([self.columns])
        if keep_below is not None:
            content = self._upgraded(self._older(content, keep_below, kept, later), later)
        write_atomically(path, lambda file: file.write(content))
        self._length, self._checksum = len(content), zlib.crc32(content)
        self._packer: zlib._Compress | None = zlib.compressobj(1)
        self._packed = bytearray()
        self._pack(content)
        self._last: tuple[float, bytes] | None = None  # the last row, which need not lie before the next checkpoint
        with writing(path):
            self._file: IO[bytes] = open(path, "ab")  # noqa: SIM115 (closed by close)

    def add(self, row: Mapping[str, Value]) -> None:
        """Append one row; absent columns stay empty."""
        self.add_all([[row.get(column) for column in self.columns]])

    def add_all(self, rows: Iterable[Sequence[Value]]) -> None:
        """Append rows that have a value for every column, empty for ``None``."""
        rows = list(rows)
        lines = [(",".join(map(self._format, row)) + "\n").encode() for row in rows]
        with writing(self._path):
            self._file.write(b"".join(lines))
        self._take(b"".join(([self._last[1]] if self._last else []) + lines[:-1]))
        self._last = float(rows[-1][0] or 0), lines[-1]

    def kept(self, below: int) -> Kept:
        """The rows with a smaller step than that of a checkpoint; steps of later checkpoints are not smaller."""
        if self._last is not None and self._last[0] < below:
            self._take(self._last[1])
            self._last = None
        rows = None if self._packer is None else bytes(self._packed) + self._packer.copy().flush()
        return Kept(self._length, self._checksum, rows)

    def flush(self) -> None:
        """Put everything on the disk."""
        with writing(self._path):
            sync(self._file)

    def close(self) -> None:
        """Flush and close."""
        with writing(self._path):
            self._file.close()

    def _take(self, lines: bytes) -> None:
        """Count rows among those before the next checkpoint."""
        self._length += len(lines)
        self._checksum = zlib.crc32(lines, self._checksum)
        self._pack(lines)

    def _pack(self, lines: bytes) -> None:
        if self._packer is not None:
            self._packed += self._packer.compress(lines)
            if len(self._packed) > PACKED:
                self._packer, self._packed = None, bytearray()

    def _format(self, value: Value) -> str:
        if value is None:
            return ""
        return str(value) if isinstance(value, int) else format(value, self._spec)

    def _older(self, header: bytes, below: int, kept: Kept | None, later: Collection[str]) -> bytes:
        """The rows of an older file with a smaller step; those that the checkpoint has stand in for what is damaged.

        A killed process may have left half a row at the end, and a crash of the machine anything after what the
        checkpoint has put on the disk.
        """
        found = self._read()
        if kept is not None and kept.fits(found[: kept.length]):
            return found[: kept.length]
        content = None if kept is None else kept.content()
        if content is not None:
            if b"".join(self._usable(content, below, later)[0]) != content:
                raise TableError(f"{self._path}: what the checkpoint has in place of it are no rows of this run")
            wrong = _differences(content, found)
            damage = f"{_named(wrong)} {_verb(wrong)} damaged and restored from the checkpoint"
            self._tell(damage if wrong else "lines that are no rows of this run are left out", found)
            return content
        if not found:
            if not below:
                return header
            self._tell("there is no such file any more; its rows up to here are lost", found)
            return header
        rows, wrong = self._usable(found, below, later)
        if wrong:
            self._tell(f"{_named(wrong, 'line')} cannot be used and {_verb(wrong)} left out", found)
        elif kept is not None:
            self._tell("rows before the checkpoint are others than it knows, and it does not hold them", found)
        return b"".join(rows)

    def _read(self) -> bytes:
        """The older file; nothing where there is none."""
        if not self._path.exists():
            return b""
        try:
            return read_bytes(self._path, LARGEST)
        except UnreadableError as error:
            raise TableError(f"{self._path.parent}: {error}") from None

    def _columns(self, content: bytes, later: Collection[str]) -> tuple[str, ...]:
        """The columns of a file of this version or an earlier one."""
        line = content.partition(b"\n")[0].decode(errors="replace")
        try:
            columns = tuple(next(csv.reader([line]), ()))
        except csv.Error:
            columns = ()
        if columns != tuple(c for c in self.columns if c in columns or c not in later):
            raise TableError(f"{self._path} has other columns than this run writes")
        return columns

    def _upgraded(self, content: bytes, later: Collection[str]) -> bytes:
        """The same rows with all columns of this version."""
        columns = self._columns(content, later)
        if columns == self.columns:
            return content
        rows = [dict(zip(columns, row, strict=True)) for row in list(csv.reader(content.decode().splitlines()))[1:]]
        return _lines([self.columns, *([row.get(column, "") for column in self.columns] for row in rows)])

    def _usable(self, found: bytes, below: int, later: Collection[str]) -> tuple[list[bytes], list[int]]:
        """The header and the rows with a smaller step, and the numbers of the lines among these that are no rows."""
        width, lines = len(self._columns(found, later)), found.splitlines(keepends=True)
        rows, wrong, after, last = lines[:1], [], [], -math.inf
        for number, line in enumerate(lines[1:], start=2):
            step = _step(line, width)
            if step is None or step <= last:
                after.append(number)  # wrong if a row before the checkpoint follows
            elif step < below:
                rows.append(line)
                wrong += after
                after, last = [], step
        return rows, wrong

    def _tell(self, what: str, found: bytes) -> None:
        """Remember what is wrong, and keep the file as it was found beside the table."""
        aside = self._path.with_name(f"{self._path.name}.damaged")
        self.trouble = f"{self._path.name}: {what}"
        if found:
            with writing(aside):
                os.replace(self._path, aside)
            self.trouble += f"; the file as it was is {aside.name}"


def _step(line: bytes, width: int) -> int | None:
    """The step of a row; nothing where this is none."""
    fields = line.rstrip(b"\n").split(b",")
    if not line.endswith(b"\n") or len(fields) != width or not fields[0].isdigit() or len(fields[0]) > 18:
        return None
    try:
        for field in fields:
            float(field or b"0")
    except ValueError:
        return None
    return int(fields[0])


def _differences(content: bytes, found: bytes) -> list[int]:
    """The steps of the rows that are missing in what was found, or others there."""
    there = set(found.splitlines(keepends=True))
    rows = content.splitlines(keepends=True)[1:]
    return [int(row.split(b",")[0]) for row in rows if row not in there]


def _named(numbers: Sequence[int], what: str = "row of step") -> str:
    """Some numbers in words."""
    first, *others = what.split(" ")
    words = " ".join([first + "s" * (len(numbers) > 1), *others])
    more = f" and {len(numbers) - NAMED} more" if len(numbers) > NAMED else ""
    return f"{words} {', '.join(map(str, numbers[:NAMED]))}{more}"


def _verb(numbers: Sequence[int]) -> str:
    return "are" if len(numbers) > 1 else "is"


def _lines(rows: Iterable[Sequence[str]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue().encode()
