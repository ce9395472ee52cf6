"""Damaged checkpoints, and runs that were killed before their first one."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ntkrun.storage.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from tests.cli.test_resume import (
    DAMAGE,
    STEPS,
    Runs,
    assert_resume_refused,
    assert_same_end,
    checkpoint,
    resume,
    runs,
    start,
    stopped,
)

__all__ = ["runs", "stopped"]


def flip(path: Path, position: int, mask: int = 1) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= mask
    path.write_bytes(content)


def test_no_changed_byte_goes_unnoticed(tmp_path: Path) -> None:
    """It is found, or lies where it changes nothing of what is read."""
    tensors = {"network": {"w": torch.arange(300.0), "b": torch.ones(7, dtype=torch.float64)}, "step": 12}
    save_checkpoint(tmp_path, tensors)
    path = tmp_path / "checkpoint.pt"
    whole, size = path.read_bytes(), path.stat().st_size
    chance, found = random.Random(0), 0
    for position in chance.sample(range(size), 400):
        flip(path, position, 1 << chance.randrange(8))
        try:
            state = load_checkpoint(tmp_path).state
        except CheckpointError:
            found += 1
        else:
            assert state.keys() == {"format", "network", "step"}
            assert state["step"] == 12
            assert all(torch.equal(state["network"][name], value) for name, value in tensors["network"].items())
        path.write_bytes(whole)
    assert found > 200


def test_a_changed_byte_within_a_tensor_is_found(stopped: Path) -> None:
    path = stopped / "checkpoint.pt"
    weight = next(iter(checkpoint(stopped)["network"].values()))
    position = path.read_bytes().index(weight.numpy().tobytes())
    flip(path, position)
    assert torch.load(path, weights_only=True)  # torch itself does not see it
    with pytest.raises(CheckpointError, match=r"checkpoint.pt is damaged: wrong checksum"):
        load_checkpoint_alone(stopped)


def load_checkpoint_alone(directory: Path) -> None:
    (directory / "checkpoint.previous.pt").unlink()
    load_checkpoint(directory)


DAMAGED: dict[str, Callable[[Path], object]] = {
    **{name: DAMAGE[name] for name in ("missing", "empty", "text", "truncated", "nearly-whole", "pickle")},
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "flipped": lambda path: flip(path, path.stat().st_size // 2),
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_the_previous_checkpoint_takes_the_place_of_a_damaged_one(
    damage: Callable[[Path], object], runs: Runs, stopped: Path
) -> None:
    assert checkpoint(stopped)["progress"]["step"] == 13
    damage(stopped / "checkpoint.pt")
    resumed = resume(stopped, f"iterations={STEPS}", "checkpoint_every=1000")
    assert resumed.status == 0, resumed.stderr
    log = (stopped / "ntkrun.log").read_text()
    assert "resuming from checkpoint.previous.pt" in log
    assert "resuming at step 12 of 30" in log
    assert_same_end(runs.whole, stopped, progress=False)
    previous = torch.load(stopped / "checkpoint.previous.pt", weights_only=True)
    assert previous["progress"]["step"] == 12  # the damaged one has not become the previous one


def test_two_damaged_checkpoints_are_refused(stopped: Path) -> None:
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        DAMAGE["truncated"](stopped / name)
    assert_resume_refused(stopped, [], "checkpoint.pt is damaged", "checkpoint.previous.pt is damaged")


def test_a_run_killed_before_its_first_checkpoint_starts_anew(runs: Runs, stopped: Path) -> None:
    """As the run leaves its directory when it is killed at step 2: with rows, the summary that says it is running."""
    for path in stopped.glob("*.pt"):
        path.unlink()
    (stopped / "summary.json").write_text((stopped / "summary.json").read_text().replace("completed", "running"))
    resumed = resume(stopped, f"iterations={STEPS}")
    assert resumed.status == 0, resumed.stderr
    assert_same_end(runs.whole, stopped)


def test_temporary_files_of_killed_processes_are_removed(stopped: Path) -> None:
    (stopped / "plots").mkdir()
    left = [stopped / ".checkpoint.pt.1234.tmp", stopped / ".summary.json.99.tmp", stopped / "plots" / ".a.png.1.tmp"]
    for path in left:
        path.write_bytes(b"half")
    assert resume(stopped).status == 0
    assert not [path for path in left if path.exists()]


def test_a_run_that_starts_anew_does_not_keep_the_checkpoints_of_another(tmp_path: Path) -> None:
    """Else a resume would go on from a state that never belonged to it."""
    run = tmp_path / "run"
    assert start(run, "iterations=8").status == 0
    assert start(run, "iterations=0", "pde=wave").status == 0
    assert checkpoint(run)["progress"]["step"] == 0
    assert not (run / "checkpoint.previous.pt").exists()


def test_the_checkpoint_before_is_kept(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert start(run, "iterations=13").status == 0
    steps = [
        torch.load(run / name, weights_only=True)["progress"]["step"]
        for name in ("checkpoint.pt", "checkpoint.previous.pt")
    ]
    assert steps == [13, 12]
