"""Damaged checkpoints, and runs that were killed before their first one."""

from __future__ import annotations

import errno
import io
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ntkrun.storage.atomic import WriteError
from ntkrun.storage.checkpoint import CheckpointError, DamagedError, load_checkpoint, save_checkpoint
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
    summary,
)

__all__ = ["runs", "stopped"]


def flip(path: Path, position: int, mask: int = 1) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= mask
    path.write_bytes(content)


TENSORS = {"network": {"w": torch.arange(300.0), "b": torch.ones(7, dtype=torch.float64)}, "step": 12}


def flip_in_a_tensor(path: Path) -> None:
    """Flip a bit of the first parameters; other bytes of the file may be padding."""
    weight = next(iter(torch.load(path, weights_only=True)["network"].values()))
    flip(path, path.read_bytes().index(weight.numpy().tobytes()))


def assert_what_was_saved(state: dict[str, Any]) -> None:
    assert state.keys() == {"format", "network", "step"}
    assert state["step"] == 12
    assert all(torch.equal(state["network"][name], value) for name, value in TENSORS["network"].items())


@pytest.mark.parametrize("part", ["anywhere", "in the directory"])
def test_no_changed_bit_goes_unnoticed(part: str, tmp_path: Path) -> None:
    """It is damage, for which the previous checkpoint stands in, or lies where it changes nothing of what is read.

    The archive's directory has no checksum, and torch finds the records by other fields of it than zipfile does.
    """
    save_checkpoint(tmp_path, TENSORS)
    path = tmp_path / "checkpoint.pt"
    whole = path.read_bytes()
    first = whole.index(b"PK\x01\x02") if part == "in the directory" else 0
    chance, found = random.Random(0), 0
    for position in chance.sample(range(first, len(whole)), 400):
        flip(path, position, 1 << chance.randrange(8))
        try:
            state = load_checkpoint(tmp_path).state
        except DamagedError:
            found += 1
        else:
            assert_what_was_saved(state)
        path.write_bytes(whole)
    assert found > 200


def test_any_changed_bit_lets_the_previous_checkpoint_stand_in(tmp_path: Path) -> None:
    for _ in range(2):
        save_checkpoint(tmp_path, TENSORS)
    path, chance, troubles = tmp_path / "checkpoint.pt", random.Random(1), 0
    whole = path.read_bytes()
    for position in chance.sample(range(whole.index(b"PK\x01\x02"), len(whole)), 150):
        flip(path, position, 1 << chance.randrange(8))
        loaded = load_checkpoint(tmp_path)
        assert_what_was_saved(loaded.state)
        troubles += bool(loaded.trouble)
        path.write_bytes(whole)
    assert troubles > 50


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE], ids=errno.errorcode.get)
@pytest.mark.parametrize("when", ["opened", "read"])
def test_what_cannot_be_read_for_the_moment_is_not_damaged(
    number: int, when: str, stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a network file system answers that has lost its server; the newest checkpoint must not be given up for it."""
    open_file, open_handle, failing = os.open, os.fdopen, stopped / "checkpoint.pt"

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(number, os.strerror(number))

    def fail_to_open(path: Any, *arguments: Any) -> int:
        if path == failing:
            raise OSError(number, os.strerror(number))
        return open_file(path, *arguments)

    def fail_to_read(handle: int, *arguments: Any) -> Any:
        if not os.path.samestat(os.fstat(handle), failing.stat()):
            return open_handle(handle, *arguments)
        os.close(handle)
        return Failing()

    with monkeypatch.context() as patch:
        if when == "opened":
            patch.setattr(os, "open", fail_to_open)
        else:
            patch.setattr(os, "fdopen", fail_to_read)
        assert_resume_refused(stopped, [f"iterations={STEPS}"], "checkpoint.pt", os.strerror(number), "left as it is")
    assert resume(stopped, f"iterations={STEPS}").status == 0
    assert "resuming at step 13" in (stopped / "ntkrun.log").read_text()


def test_a_changed_byte_within_a_tensor_is_found(stopped: Path) -> None:
    path = stopped / "checkpoint.pt"
    flip_in_a_tensor(path)
    assert torch.load(path, weights_only=True)  # torch itself does not see it
    with pytest.raises(CheckpointError, match=r"checkpoint.pt is damaged: Bad CRC-32 for file"):
        load_checkpoint_alone(stopped)


def load_checkpoint_alone(directory: Path) -> None:
    (directory / "checkpoint.previous.pt").unlink()
    load_checkpoint(directory)


DAMAGED: dict[str, Callable[[Path], object]] = {
    **{name: DAMAGE[name] for name in ("missing", "empty", "text", "truncated", "nearly-whole", "pickle")},
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "flipped": flip_in_a_tensor,
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


@pytest.mark.parametrize("damage", ["missing", "truncated", "pickle", "other-network"])
def test_a_damaged_best_network_is_named_and_replaced(damage: str, stopped: Path) -> None:
    DAMAGE[damage](stopped / "best.pt")
    assert resume(stopped, f"iterations={STEPS}").status == 0
    log = (stopped / "ntkrun.log").read_text()
    assert log.count("it is replaced by the network of the next error") == 1
    assert "best.pt" in log
    best = torch.load(stopped / "best.pt", weights_only=True)
    assert best["step"] == summary(stopped)["rel_l2"]["best_step"] >= 13


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


def full_disk(directory: Path, state: dict[str, Any]) -> None:
    raise WriteError(f"{directory / 'checkpoint.pt'} cannot be written: No space left on device")


def test_the_same_command_again_keeps_what_is_there_until_it_has_a_checkpoint(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, command = tmp_path / "run", ["schedule=constant", f"iterations={STEPS}"]
    assert start(run, *command[:1], "iterations=13").status == 0
    old = {name: (run / name).read_bytes() for name in ("checkpoint.pt", "checkpoint.previous.pt", "best.pt")}
    with monkeypatch.context() as patch:
        patch.setattr("ntkrun.training.trainer.save_checkpoint", full_disk)
        patch.setattr("ntkrun.training.trainer.save_best", full_disk)
        for _ in range(2):
            assert start(run, *command).status == 1
            assert {name: (run / f"earlier.{name}").read_bytes() for name in old} == old
            assert not list(run.glob("checkpoint*.pt"))
        assert start(run, *command, "seed=1").status == 1
    assert resume(run).status == 0  # of another seed, so that it starts anew
    assert checkpoint(run)["configuration"] != torch.load(io.BytesIO(old["checkpoint.pt"]))["configuration"]
    assert not list(run.glob("earlier.*"))


def test_a_run_killed_early_goes_on_from_what_the_same_command_had_left(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, command = tmp_path / "run", ["schedule=constant", f"iterations={STEPS}"]
    assert start(run, *command[:1], "iterations=13").status == 0
    with monkeypatch.context() as patch:
        patch.setattr("ntkrun.training.trainer.save_checkpoint", full_disk)
        assert start(run, *command).status == 1
    assert resume(run).status == 0
    assert "resuming at step 13 of 30" in (run / "ntkrun.log").read_text()
    assert_same_end(runs.whole, run, progress=False)


def test_the_checkpoint_before_is_kept(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert start(run, "iterations=13").status == 0
    steps = [
        torch.load(run / name, weights_only=True)["progress"]["step"]
        for name in ("checkpoint.pt", "checkpoint.previous.pt")
    ]
    assert steps == [13, 12]
