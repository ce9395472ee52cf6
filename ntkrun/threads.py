"""How many threads a run computes with."""

from __future__ import annotations

import os
from typing import Any, Literal

import torch

_AT_START = torch.get_num_threads()


def set_threads(setting: int | Literal["auto"], hydra: Any) -> None:
    """Set the number of threads of this process.

    Args:
        setting: ``auto`` shares the cores out among the jobs that run side by side on this machine, and leaves
            torch's own choice to a run by itself.
        hydra: Hydra's own configuration of a job of a sweep, or ``None``.
    """
    torch.set_num_threads(_fair_share(hydra) if setting == "auto" else setting)


def _fair_share(hydra: Any) -> int:
    if "SLURM_CPUS_PER_TASK" in os.environ:
        return int(os.environ["SLURM_CPUS_PER_TASK"])
    if hydra is None:
        return _AT_START
    launcher = hydra.launcher
    if "JoblibLauncher" in launcher._target_:
        jobs = int(launcher.get("n_jobs") or 1)
        side_by_side = jobs if jobs > 0 else max(1, available_cores() + 1 + jobs)
        return max(1, available_cores() // side_by_side)
    if "RayLauncher" in launcher._target_:
        return max(1, int(launcher.ray.remote.get("num_cpus") or 1))
    return _AT_START


def available_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
