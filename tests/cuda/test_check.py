"""The check of a card: every line of it on the host, and what it says where there is nothing to check."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "check_gpu.py"


def check(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, capture_output=True, text=True, env=surroundings, timeout=900)


def test_without_a_card_it_says_so_and_ends_well(tmp_path: Path) -> None:
    done = check("--out", str(tmp_path / "out"), CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0
    assert "finds no CUDA device here: nothing was checked" in done.stdout
    assert done.stdout.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_all_of_it_on_the_host(tmp_path: Path) -> None:
    """Tests, step times in both dtypes, and an accuracy that is reached."""
    done = check("--device", "cpu", "--budget", "600", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert " passed" in page
    steps = pd.read_csv(tmp_path / "gpu.csv")
    assert set(steps["dtype"]) == {"float32", "float64"}
    assert {"ntkrun", "ntkrun, exact weights every step"} <= set(steps["program"])
    assert (steps["seconds"] > 0).all()
    assert (steps["peak_bytes"] > 2**20).all()
    for _, own in steps.groupby(["dtype", "program"]):
        assert f"| {1e3 * own['seconds'].median():.4g} |" in page
    errors = pd.read_csv(tmp_path / "gpu_accuracy.csv")
    assert errors["error"].min() <= 1e-6


@pytest.mark.long
def test_what_does_not_fit_into_the_budget_is_left_out_with_a_note(tmp_path: Path) -> None:
    done = check("--device", "cpu", "--budget", "1", "--out", str(tmp_path))
    page = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert page.count("is left out") == 3
    assert done.returncode in (0, 1)  # tests are given half a minute, which may be too little for them
