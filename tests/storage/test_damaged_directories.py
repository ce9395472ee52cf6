"""Run directories damaged at random: resumed to the same end with a word about it, or refused in one line."""

from __future__ import annotations

import copy
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.test_resume import STEPS, Runs, assert_same_end, everything_in, resume, runs

__all__ = ["runs"]

DIRECTORIES = 60
KEPT = (
    *("checkpoint.pt", "checkpoint.previous.pt", "best.pt", "metrics.csv", "weights.csv", "summary.json"),
    "points.npz",
)

Damage = Callable[[Path, random.Random], None]


def flip_bits(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(chance.choice([1, 1, 3, 50])):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def flip_at_the_end(path: Path, chance: random.Random) -> None:
    """Where archives have their directory."""
    content = bytearray(path.read_bytes())
    content[-chance.randrange(1, min(800, len(content)))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def truncate(path: Path, chance: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: chance.randrange(path.stat().st_size)])


def blank(path: Path, chance: random.Random) -> None:
    """A block of zeros, as a file system leaves it after a crash."""
    content = bytearray(path.read_bytes())
    start = chance.randrange(len(content))
    content[start : start + 512] = bytes(len(content[start : start + 512]))
    path.write_bytes(content)


def remove(path: Path, chance: random.Random) -> None:
    path.unlink()


def lengthen(path: Path, chance: random.Random) -> None:
    with open(path, "ab") as file:
        file.write(chance.randbytes(chance.randrange(1, 300)))


def lose_lines(path: Path, chance: random.Random) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for line in lines if chance.random() < 0.8))


def change_state(path: Path, chance: random.Random) -> None:
    """Another value in a whole file: as an edited checkpoint has it."""
    if path.suffix != ".pt":
        return flip_bits(path, chance)
    state: Any = torch.load(path, weights_only=True)
    node = state = copy.deepcopy(state)
    while True:
        key = chance.choice(list(node) if isinstance(node, dict) else range(len(node)))
        if not isinstance(node[key], dict | list) or not node[key]:
            break
        node = node[key]
    node[key] = chance.choice([None, -1, 2**70, "x", [], {}, float("nan"), torch.zeros(1).expand(7), torch.zeros(0)])
    torch.save(state, path)
    return None


KINDS: tuple[Damage, ...] = (
    *(flip_bits, flip_at_the_end, truncate, blank, remove, lengthen, lose_lines),
    *(change_state, change_state),
)


def check(run: Path, whole: Path) -> str:
    """Resume a damaged run; returns what became of it."""
    before = everything_in(run)
    result = resume(run, f"iterations={STEPS}")
    assert "Traceback" not in result.stderr, result.stderr
    if result.status == 2:
        assert (result.stdout, result.stderr.count("\n")) == ("", 1), result.stderr
        assert everything_in(run) == before
        return "refused"
    assert result.status == 0, result.stderr
    assert_same_end(whole, run, progress=False)
    said = (run / "ntkrun.log").read_text().split("resuming at")[0]
    return "named" if "WARNING" in said else "same"


@pytest.mark.parametrize("part", range(3))
def test_damaged_directories(part: int, runs: Runs, tmp_path: Path) -> None:
    ended: Counter[str] = Counter()
    for number in range(part, DIRECTORIES, 3):
        chance = random.Random(number)
        run = tmp_path / str(number)
        shutil.copytree(runs.stopped, run)
        for name in chance.sample(KEPT, chance.choice([1, 1, 1, 2])):
            chance.choice(KINDS)(run / name, chance)
        ended[check(run, runs.whole)] += 1
    assert ended["refused"] >= 1
    assert ended["named"] >= 3
