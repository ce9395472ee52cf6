"""Runs that version 0.1.0 was interrupted in are resumed by every later version."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests.driver import ntkrun

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture
def old_run(tmp_path: Path) -> Path:
    """A run of version 0.1.0 (wave, exact weights, Adam, float64), interrupted at step 23 of 40."""
    return shutil.copytree(DATA / "run_0_1_0", tmp_path / "run")


def test_a_run_of_0_1_0_resumes(old_run: Path, tmp_path: Path) -> None:
    result = ntkrun(f"resume={old_run}", cwd=tmp_path)
    assert result.status == 0, result.stderr
    assert "resuming at step 23 of 40" in (old_run / "ntkrun.log").read_text()
    for table in ("metrics", "weights"):
        resumed = pd.read_csv(old_run / f"{table}.csv")
        expected = pd.read_csv(DATA / f"run_0_1_0_{table}.csv")  # of version 0.1.0, not interrupted
        columns = [column for column in expected if "seconds" not in column]
        pd.testing.assert_frame_equal(resumed[columns], expected[columns], rtol=1e-9)
