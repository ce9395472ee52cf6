"""Threads of OpenMP wait for each other briefly, as OpenMP itself tells; what the user says counts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ntkrun.runtime.openmp import SPIN

RUN = ["-m", "ntkrun", "pde=poisson", "iterations=0", "plots=false", "progress=false", "pde.grid=5"]


@pytest.mark.parametrize(
    ("said", "rounds"), [({}, SPIN), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "PASSIVE"}, "0")]
)
def test_rounds_of_waiting(said: dict[str, str], rounds: str, tmp_path: Path) -> None:
    others = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    environment = {**others, "OMP_DISPLAY_ENV": "VERBOSE", **said}
    done = subprocess.run([sys.executable, *RUN], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (first, *_) = re.findall(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr) or pytest.skip("torch has another OpenMP here")
    assert first == rounds


def test_nothing_changes_once_torch_is_loaded(tmp_path: Path) -> None:
    code = "import os, torch, ntkrun.runtime.openmp as o; o.wait_briefly(); print(os.environ.get('GOMP_SPINCOUNT'))"
    others = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=others, capture_output=True, text=True)
    assert done.stdout.split() == ["None"]
