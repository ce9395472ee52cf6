"""What the tests of launchers share: which engines are here, and the command line in a process of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

SMALL = [
    *("pde=poisson", "network.width=8", "network.depth=2", "pde.grid=10", "log_every=10", "checkpoint_every=50"),
    *("optimizer=adam", "plots=false", "report=false"),
]


def _lacks(package: str) -> bool:
    try:
        distribution(package)
    except PackageNotFoundError:
        return True
    return False


def _no_slurm() -> bool:
    if shutil.which("sinfo") is None:
        return True
    return subprocess.run(["sinfo"], capture_output=True, timeout=30).returncode != 0


needs_joblib = [
    pytest.mark.joblib,
    pytest.mark.skipif(_lacks("hydra-joblib-launcher"), reason="hydra-joblib-launcher is not installed"),
]
needs_submitit = [
    pytest.mark.skipif(_lacks("hydra-submitit-launcher"), reason="hydra-submitit-launcher is not installed"),
]
needs_slurm = [
    pytest.mark.slurm,
    *needs_submitit,
    pytest.mark.skipif(_no_slurm(), reason="no Slurm is running"),
]
needs_ray = [
    pytest.mark.ray,
    pytest.mark.skipif(_lacks("hydra-ray-launcher"), reason="hydra-ray-launcher is not installed"),
]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "ntkrun", *(str(argument) for argument in arguments)]


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process is None or process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


def rows(path: Path) -> int:
    return len(path.read_text().splitlines()) - 1 if path.exists() else 0
