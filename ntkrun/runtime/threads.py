"""The number of threads of a run."""

from __future__ import annotations

import os
from typing import Any, Literal

import torch

from ntkrun.common.torchrun import local_count, several_processes

WORK = 4e7  # floating-point operations of a step that occupy a thread
DENSE = 10  # how many times as fast operations on large matrices are; threads that share small ones wait for each other

_AT_START = torch.get_num_threads()


def set_threads(setting: int | Literal["auto"], hydra: Any) -> None:
    """Set the number of threads of this process.

    Args:
        setting: ``auto`` shares the cores out among the jobs that run side by side on this machine, or among the
            processes of a run, and leaves torch's own choice to a run by itself; ``spare_threads`` then reduces it.
        hydra: Hydra's own configuration of a job of a sweep, or ``None``.
    """
    torch.set_num_threads(_fair_share(hydra) if setting == "auto" else setting)


def spare_threads(work: float, matrix_work: float = 0.0) -> None:
    """Use fewer threads where a step has too little work for them, which then cost more than they do.

    Args:
        work: floating-point operations of a step in layers.
        matrix_work: those on the matrices of the optimiser.
    """
    torch.set_num_threads(max(1, min(torch.get_num_threads(), int((work + matrix_work / DENSE) / WORK))))


def _fair_share(hydra: Any) -> int:
    cores = available_cores()
    launcher: Any = {} if hydra is None else hydra.launcher
    name = str(launcher.get("_target_", "")).rpartition(".")[2]
    if name == "JoblibLauncher":
        jobs = int(launcher.get("n_jobs") or 1)
        return max(1, cores // (jobs if jobs > 0 else max(1, cores + 1 + jobs)))
    if name == "LocalLauncher":  # submitit's, which starts all jobs at once
        return int(launcher.get("cpus_per_task") or 1)
    if name == "RayLauncher":
        return max(1, int(launcher.ray.remote.get("num_cpus") or 1))
    if several_processes():
        return max(1, cores // local_count())
    return cores if _of_slurm() else _AT_START


def available_cores() -> int:
    """The number of cores that this process may use: those of its Slurm job, or all that the system gives it."""
    return _of_slurm() or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _of_slurm() -> int:
    """The cores that Slurm has given to this process, 0 outside Slurm."""
    return int(os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE") or 0)
