"""Checkpoints: the state of a run, saved and loaded."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ntkrun.common.errors import one_line
from ntkrun.storage.atomic import write_atomically, writing
from ntkrun.storage.reader import UnreadableError, read_bytes

FORMAT = 5
NAME = "checkpoint.pt"
PREVIOUS = "checkpoint.previous.pt"
BEST = "best.pt"
EARLIER = "earlier."  # before the names of what an earlier run in the same directory has left
LARGEST = 4 * 2**30  # bytes of a file that is read


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged or of another format."""


class DamagedError(CheckpointError):
    """A checkpoint that is missing, or not whole."""


@dataclass(frozen=True)
class Checkpoint:
    """A state to resume from.

    Attributes:
        state: what was saved, with all tensors on the CPU.
        trouble: why it is that of the previous checkpoint; empty for the newest.
    """

    state: dict[str, Any]
    trouble: str = ""


def save_checkpoint(directory: Path, state: dict[str, Any]) -> None:
    """Write ``state``, plain values and tensors only, as the directory's checkpoint; the one before is kept.

    What an earlier run had left is removed.
    """
    path = directory / NAME
    write_atomically(path, lambda file: torch.save({"format": FORMAT, **state}, file), keep=directory / PREVIOUS)
    with writing(path):
        for name in (NAME, PREVIOUS, BEST):
            (directory / (EARLIER + name)).unlink(missing_ok=True)


def save_best(directory: Path, state: dict[str, Any]) -> None:
    """Write the network of the smallest error so far, with that error and its step."""
    write_atomically(directory / BEST, lambda file: torch.save({"format": FORMAT, **state}, file))


def has_checkpoint(directory: Path) -> bool:
    """Whether there is a checkpoint to resume from."""
    return any((directory / name).is_file() for name in (NAME, PREVIOUS))


def load_checkpoint(directory: Path) -> Checkpoint:
    """The directory's checkpoint, or the previous one where that is damaged; nothing in the files is executed.

    A file that cannot be read for the moment is no damaged one.

    Raises:
        CheckpointError: there is none, or it cannot be used.
    """
    try:
        return Checkpoint(_read(directory / NAME))
    except DamagedError as error:
        if not (directory / PREVIOUS).is_file():
            raise
        trouble = str(error)
    try:
        return Checkpoint(_read(directory / PREVIOUS), f"{trouble}; resuming from {PREVIOUS}")
    except DamagedError as error:
        raise CheckpointError(f"{trouble}; neither can the one before be used: {error}") from None


def load_earlier(directory: Path) -> dict[str, Any] | None:
    """The checkpoint of an earlier run that was set aside, where it can be read."""
    try:
        return _read(directory / (EARLIER + NAME))
    except CheckpointError:
        return None


def load_network(place: Path) -> Mapping[str, Any]:
    """The state of a network: the last one of a run directory, or that of a file in it; nothing is executed.

    Raises:
        CheckpointError: there is none, or it cannot be used.
    """
    state = load_checkpoint(place).state if place.is_dir() else _read(place)
    if not isinstance(state.get("network"), dict):
        raise CheckpointError(f"{place} holds no network")
    network: dict[str, Any] = state["network"]
    return network


def load_best(directory: Path) -> dict[str, Any]:
    """The network of the smallest error, with that error and its step; nothing in the file is executed.

    Raises:
        CheckpointError: there is none, or it cannot be used.
    """
    return _read(directory / BEST)


def drop_damaged(directory: Path) -> None:
    """Put the previous checkpoint in the place of the damaged one, lest the next one pushes it out."""
    with writing(directory / NAME):
        os.replace(directory / PREVIOUS, directory / NAME)


def set_aside(directory: Path) -> None:
    """Give what an earlier run has left other names, until the run that starts anew has a checkpoint of its own."""
    with writing(directory / NAME):
        for name in (NAME, PREVIOUS, BEST):
            if (directory / name).exists():
                os.replace(directory / name, directory / (EARLIER + name))


def drop_best(directory: Path) -> None:
    """Remove the best network, where there is one."""
    with writing(directory / BEST):
        (directory / BEST).unlink(missing_ok=True)


def reinstate(directory: Path) -> None:
    """Take what was set aside back, where a run has come to no checkpoint of its own."""
    with writing(directory / NAME):
        for name in (NAME, PREVIOUS, BEST):
            if (directory / (EARLIER + name)).exists():
                os.replace(directory / (EARLIER + name), directory / name)


def _read(path: Path) -> dict[str, Any]:
    """A saved state.

    Raises:
        DamagedError: there is no such file, or what is in it is not what was written.
        CheckpointError: the file cannot be read now, or is whole and something else.
    """
    try:
        if not path.is_file():
            raise DamagedError(f"there is no {path.name} in {path.parent}")
        content = read_bytes(path, LARGEST)
    except (UnreadableError, OSError) as error:
        raise CheckpointError(f"{path}: {error}; it is left as it is") from None
    records = _verified(content, path)
    try:
        state = torch.load(records, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(f"{path} holds more than plain values and tensors; it was not loaded") from None
    except MemoryError:
        raise CheckpointError(f"{path} does not fit into memory") from None
    except Exception as error:  # whatever changed bytes make of the format
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedError(f"{path} is damaged: {reason}") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of this version of ntkrun")
    return state


def _verified(content: bytes, path: Path) -> io.BytesIO:
    """The records of an archive in an archive of their own, all bytes compared with their checksums.

    ``torch.load`` looks at no checksum, and it finds the records by fields of the archive's directory that have none:
    it may well read other bytes than those that ``zipfile`` has compared.

    Raises:
        DamagedError: a checksum is wrong, or it is no such archive.
    """
    fresh = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(fresh, "w") as copy:
            entries = {entry.filename: entry for entry in archive.infolist()}
            if len(entries) < len(archive.infolist()) or sum(e.file_size for e in entries.values()) > len(content):
                raise zipfile.BadZipFile("records that overlap")
            for name, entry in entries.items():
                if entry.compress_type != zipfile.ZIP_STORED:
                    raise zipfile.BadZipFile(f"{name} is compressed")
                copy.writestr(name, archive.read(entry))
    except Exception as error:  # whatever changed bytes make of the format
        reason = str(error) if isinstance(error, zipfile.BadZipFile) else "not an archive as ntkrun writes it"
        raise DamagedError(f"{path} is damaged: {one_line(reason)}") from None
    fresh.seek(0)
    return fresh
