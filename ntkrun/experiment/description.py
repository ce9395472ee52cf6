"""The description of a run in its directory: the configuration, Hydra's own part of it, and the overrides."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ntkrun.storage.atomic import write_text_atomically, writing

FOLDER = ".hydra"


def write_description(directory: Path, texts: Mapping[str, str]) -> None:
    """Write the files of ``.hydra/`` by name; to be called by the process that holds the directory's lock.

    Hydra would write them before anybody has looked whether another process works there.

    Raises:
        WriteError: a file cannot be written.
    """
    folder = directory / FOLDER
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_text_atomically(folder / name, text)
