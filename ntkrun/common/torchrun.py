"""The environment that torchrun sets. Imports nothing heavy: the command line needs it early."""

from __future__ import annotations

import os


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
