"""A disk that is full, or cannot be written to."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from matplotlib import pyplot

from ntkrun.storage.checkpoint import has_checkpoint, load_checkpoint
from tests.cli.test_resume import SMALL, assert_same_end, resume, start, summary
from tests.driver import Result, ntkrun

CASE = [
    "weights=exact",
    "diagnostics=spectrum",
    "diagnostics.steps=[]",
    "pde.points.residual=10",
    "checkpoint_every=10",
]


def assert_failed_in_one_line(result: Result, reason: str) -> None:
    assert result.status == 1
    lines = [line for line in result.stderr.splitlines() if "cannot be written" in line]
    assert lines
    kept = ("the last checkpoint is kept", "there is no checkpoint yet")
    assert all(line.endswith((reason, *(f"{reason}; {words}" for words in kept))) for line in lines), lines
    # The log file's own complaint may be one more.
    assert len([line for line in lines if "ntkrun.log cannot" not in line]) == 1, lines
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    assert start(run, *CASE).status == 0
    return run


# Without room after so many writes


@contextmanager
def room_for(writes: int) -> Iterator[list[int]]:
    """Whatever file comes after so many were put on the disk fails; gives the number of attempts."""
    fsync, done = os.fsync, [0]

    def full(handle: int) -> None:
        done[0] += stat.S_ISREG(os.fstat(handle).st_mode)
        if done[0] > writes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ntkrun.storage.atomic.os.fsync", full)
        yield done


@pytest.mark.long
def test_a_disk_that_fills_up_costs_nothing(whole: Path, tmp_path: Path) -> None:
    with room_for(1000) as needed:
        assert start(tmp_path / "enough", *CASE).status == 0
    assert needed[0] > 15  # the log and the configuration are not among them
    kept = 0
    for writes in range(0, needed[0], 2):
        run = tmp_path / f"after-{writes}"
        with room_for(writes):
            failed = start(run, *CASE)
        assert_failed_in_one_line(failed, "No space left on device")
        assert not list(run.rglob(".*.tmp"))
        if has_checkpoint(run):
            assert not load_checkpoint(run).trouble
            kept += 1
        # A run that could not even write its configuration is begun anew.
        described = (run / ".hydra" / "config.yaml").exists()
        assert (resume(run) if described else start(run, *CASE)).status == 0
        assert_same_end(whole, run)
        assert summary(run)["status"] == "completed"
    assert kept > 3


# A small disk


@contextmanager
def small_disk(place: Path, size: str, *options: str) -> Iterator[Path]:
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", ",".join((f"size={size}", *options)), "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount a tmpfs")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def fill(disk: Path, room: int) -> Path:
    """Leave so many bytes of room."""
    ballast = disk / "ballast"
    free = os.statvfs(disk)
    ballast.write_bytes(bytes(free.f_bavail * free.f_frsize - room))
    return ballast


@pytest.mark.parametrize("room", [0, 12288, 20480, 40960, 61440, 131072])
def test_a_full_disk(room: int, whole: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "2m") as disk:
        run = disk / "run"
        ballast = fill(disk, room)
        failed = start(run, *CASE, f"plots={str(room > 100_000).lower()}")
        assert_failed_in_one_line(failed, "No space left on device")
        assert not pyplot.get_fignums()
        if has_checkpoint(run):
            assert not load_checkpoint(run).trouble
        ballast.unlink()
        configuration = run / ".hydra" / "config.yaml"
        again = (
            resume(run, "plots=false") if configuration.exists() and configuration.stat().st_size else start(run, *CASE)
        )
        assert again.status == 0, again.stderr
        assert_same_end(whole, run)


def test_a_disk_that_fills_up_on_resume(whole: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "2m") as disk:
        run = disk / "run"
        assert start(run, *CASE, "iterations=13", "schedule=constant").status == 0
        before = load_checkpoint(run).state["progress"]
        ballast = fill(disk, 0)
        assert_failed_in_one_line(resume(run, "iterations=30"), "No space left on device")
        assert load_checkpoint(run).state["progress"] == before
        ballast.unlink()
        assert resume(run, "iterations=30").status == 0


@pytest.mark.parametrize("multirun", [[], ["-m"]], ids=["run", "sweep"])
def test_an_outputs_folder_that_cannot_be_written_to(multirun: list[str], tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m", "ro") as disk:
        result = ntkrun(*multirun, *SMALL, cwd=disk)
    assert (result.status, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert "outputs" in result.stderr
    assert "cannot be written: Read-only file system" in result.stderr


def test_resuming_a_run_that_cannot_be_written_to(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        assert start(disk / "run").status == 0
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        result = resume(disk / "run")
        assert (result.status, result.stdout, result.stderr.count("\n")) == (1, "", 1)
        assert "cannot be written: Read-only file system" in result.stderr


def test_a_sweep_whose_disk_is_full_names_its_jobs(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "2m") as disk:
        (disk / "sweep").mkdir()
        fill(disk, 16384)
        result = ntkrun("-m", *SMALL, "seed=0,1", f"hydra.sweep.dir={disk / 'sweep'}", cwd=disk)
    assert result.status == 1
    assert "Traceback" not in result.stderr
    assert "No space left on device" in result.stderr


def test_a_file_in_the_place_of_the_outputs_folder(tmp_path: Path) -> None:
    (tmp_path / "outputs").touch()
    result = ntkrun(*SMALL, cwd=tmp_path)
    assert (result.status, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert "outputs" in result.stderr
