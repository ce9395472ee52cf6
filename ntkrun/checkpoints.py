"""Saving and loading the state of a run."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from ntkrun.files import write_atomically

FORMAT = 2
NAME = "checkpoint.pt"
BEST = "best.pt"


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged or of another format."""


def save_checkpoint(directory: Path, state: dict[str, Any]) -> None:
    """Write ``state``, plain values and tensors only, as the directory's checkpoint."""
    write_atomically(directory / NAME, lambda file: torch.save({"format": FORMAT, **state}, file))


def save_best(directory: Path, state: dict[str, Any]) -> None:
    """Write the network of the smallest error so far, with that error and its step."""
    write_atomically(directory / BEST, lambda file: torch.save({"format": FORMAT, **state}, file))


def load_checkpoint(directory: Path) -> dict[str, Any]:
    """The directory's checkpoint, with all tensors on the CPU; nothing in the file is executed.

    Raises:
        CheckpointError: there is none, or it cannot be read.
    """
    path = directory / NAME
    if not path.is_file():
        raise CheckpointError(f"there is no {NAME} in {directory}")
    if not zipfile.is_zipfile(path):  # what torch.save writes; a bare pickle or half a file is not
        raise CheckpointError(f"{path} is damaged or was not written by ntkrun")
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
