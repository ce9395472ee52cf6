"""Checkpoints: the state of a run, saved and loaded."""

from __future__ import annotations

import os
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ntkrun.storage.atomic import write_atomically, writing

FORMAT = 5
NAME = "checkpoint.pt"
PREVIOUS = "checkpoint.previous.pt"
BEST = "best.pt"


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
    """Write ``state``, plain values and tensors only, as the directory's checkpoint; the one before is kept."""
    path = directory / NAME
    write_atomically(path, lambda file: torch.save({"format": FORMAT, **state}, file), keep=directory / PREVIOUS)


def save_best(directory: Path, state: dict[str, Any]) -> None:
    """Write the network of the smallest error so far, with that error and its step."""
    write_atomically(directory / BEST, lambda file: torch.save({"format": FORMAT, **state}, file))


def has_checkpoint(directory: Path) -> bool:
    """Whether there is a checkpoint to resume from."""
    return any((directory / name).is_file() for name in (NAME, PREVIOUS))


def load_checkpoint(directory: Path) -> Checkpoint:
    """The directory's checkpoint, or the previous one where that is damaged; nothing in the files is executed.

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


def remove_checkpoints(directory: Path) -> None:
    """Remove what an earlier run has left, for a run that starts anew."""
    with writing(directory / NAME):
        for name in (NAME, PREVIOUS, BEST):
            (directory / name).unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DamagedError(f"there is no {path.name} in {path.parent}")
    _check_bytes(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(f"{path} holds more than plain values and tensors; it was not loaded") from None
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} cannot be read: {reason}") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of this version of ntkrun")
    return state


def _check_bytes(path: Path) -> None:
    """Compare all bytes with the checksums that ``torch.save`` has written; ``torch.load`` does not look at them."""
    try:
        with zipfile.ZipFile(path) as archive:  # what torch.save writes; a bare pickle or half a file is not
            damaged = archive.testzip()
    except Exception:  # whatever changed bytes make of the format
        raise DamagedError(f"{path} is damaged or was not written by ntkrun") from None
    if damaged is not None:
        raise DamagedError(f"{path} is damaged: wrong checksum of {damaged}")
