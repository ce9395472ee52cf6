"""Two processes that want the same run."""

from __future__ import annotations

import errno
import logging
from pathlib import Path

import pytest

from ntkrun.storage.lock import BusyError, check_free, locked
from tests.cli.test_resume import SMALL, assert_resume_refused, everything_in, resume, runs, stopped, summary
from tests.driver import ntkrun

__all__ = ["runs", "stopped"]


def test_a_second_resume_is_refused(stopped: Path) -> None:
    with locked(stopped):
        assert_resume_refused(stopped, ["iterations=30"], f"another process is working on the run in {stopped}")
    assert resume(stopped, "iterations=14").status == 0


def test_a_run_in_the_directory_of_another_is_refused_before_it_changes_anything(stopped: Path) -> None:
    """Hydra would write its configuration over that of the run which is there."""
    before = everything_in(stopped)
    with locked(stopped):
        result = ntkrun(*SMALL, "pde=wave", f"hydra.run.dir={stopped}", cwd=stopped.parent)
    assert (result.status, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "another process is working on the run in" in result.stderr
    assert everything_in(stopped) == before


def test_a_job_of_a_sweep_whose_directory_is_in_use_leaves_it_alone(tmp_path: Path) -> None:
    sweep = ["-m", *SMALL, "report=false", f"hydra.sweep.dir={tmp_path}/sweep"]
    assert ntkrun(*sweep, "seed=0", cwd=tmp_path).status == 0
    with locked(tmp_path / "sweep" / "0"):
        result = ntkrun(*sweep, "seed=0,1", cwd=tmp_path)
    assert "job 0 failed: another process is working on the run" in result.stdout
    assert result.status == 1
    assert "2 jobs: 1 completed, 1 not" in result.stdout
    assert "ntkrun: 0 failed: another process is working on the run" in result.stderr
    assert [summary(tmp_path / "sweep" / job)["status"] for job in "01"] == ["completed", "completed"]
    assert ntkrun(*sweep, "seed=0,1", cwd=tmp_path).status == 0  # the refusal is forgotten


def test_a_lock_ends_with_its_block_and_a_file_alone_means_nothing(tmp_path: Path) -> None:
    check_free(tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / ".lock").touch()
    check_free(tmp_path)
    with locked(tmp_path), pytest.raises(BusyError):
        check_free(tmp_path)
    check_free(tmp_path)


def test_a_file_system_without_locks_gives_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def flock(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with caplog.at_level(logging.WARNING), locked(tmp_path):
        pass
    assert f"the file system of {tmp_path} has no locks" in caplog.text
