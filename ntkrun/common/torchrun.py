"""The environment that torchrun sets. Imports nothing heavy: the command line needs it early."""

from __future__ import annotations

import os
from pathlib import Path


def several_processes() -> bool:
    """Whether this is one of several processes that train together."""
    told = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()
    return told and os.environ["WORLD_SIZE"] != "1"


def leads() -> bool:
    """Whether this process writes and prints what a run gives; the others only train along."""
    return not several_processes() or os.environ["RANK"] == "0"


def local_rank() -> int:
    """The number of this process among those on its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0")) if several_processes() else 0


def local_count() -> int:
    """The number of processes of this run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if several_processes() else 1


def several_machines() -> bool:
    """Whether processes of this run were started by torchrun on other machines as well."""
    return os.environ.get("GROUP_WORLD_SIZE", "1") != "1"


def restarted() -> bool:
    """Whether torchrun has started this process after another one of the run was lost (``--max-restarts``)."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def invocation_folder() -> Path | None:
    """The folder that torchrun keeps for its log files, the same for all starts on this machine, where it has one."""
    report = Path(os.environ.get("TORCHELASTIC_ERROR_FILE", ""))  # FOLDER/attempt_0/LOCAL_RANK/error.json
    attempts = [folder for folder in report.parents if folder.name.startswith("attempt_")]
    return attempts[0].parent if attempts else None
