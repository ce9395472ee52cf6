"""Tables whose rows before a checkpoint are damaged: named, restored where the checkpoint has them, else kept aside."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ntkrun.storage.table import PACKED, Kept, Table, TableError

COLUMNS = ("step", "loss", "error")


_made: list[Table] = []


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    for table in _made:
        table.close()
    _made.clear()


def made(path: Path, below: int | None = None, kept: Kept | None = None) -> Table:
    _made.append(Table(path, COLUMNS, 9, below, kept))
    return _made[-1]


def written(path: Path, steps: range = range(0, 60, 5)) -> Table:
    table = made(path)
    for step in steps:
        table.add({"step": step, "loss": 1 / (step + 1)})
    table.flush()
    return table


def text(path: Path) -> list[str]:
    return path.read_text().splitlines()


def lose_a_row(lines: list[bytes]) -> list[bytes]:
    return lines[:4] + lines[5:]


def swap(lines: list[bytes]) -> list[bytes]:
    return [*lines[:2], lines[3], lines[2], *lines[4:]]


DAMAGE: dict[str, tuple[Callable[[list[bytes]], list[bytes]], str]] = {
    "zeros": (lambda lines: [*lines[:3], bytes(len(lines[3])), *lines[4:]], "rows of step 10, 15 "),
    "digit": (lambda lines: [*lines[:2], lines[2].replace(b"5", b"6", 1), *lines[3:]], "row of step 5 "),
    "value": (lambda lines: [*lines[:2], lines[2].replace(b"0.1", b"0.7"), *lines[3:]], "row of step 5 "),
    "lost": (lose_a_row, "row of step 15 "),
    "cut": (lambda lines: [*lines[:5], lines[5][:4]], "rows of step 20, 25, 30, 35"),
    "empty": (lambda lines: [], "rows of step 0, 5, 10, 15, 20 and 3 more"),
    "header": (lambda lines: [b"nothing\n", *lines[1:]], "lines that are no rows"),
    "order": (swap, "lines that are no rows"),
    "doubled": (lambda lines: [*lines[:3], lines[2], *lines[3:]], "lines that are no rows"),
    "binary": (lambda lines: [b"\xff\xfe\x00" * 50], "rows of step 0, 5, 10, 15, 20 and 3 more"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_rows_are_named_and_restored(name: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    table = written(path)
    kept, whole = table.kept(40), text(path)[:9]
    table = written(path, range(0, 40, 5))  # as a checkpoint at step 40 finds it
    kept = table.kept(40)
    damage, words = DAMAGE[name]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(damage(lines)))
    before = path.read_bytes()
    resumed = made(path, 40, kept)
    assert text(path) == whole
    assert resumed.trouble.startswith(f"metrics.csv: {words}")
    assert "\n" not in resumed.trouble
    aside = tmp_path / "metrics.csv.damaged"
    assert aside.exists() == bool(before)
    if before:
        assert aside.read_bytes() == before
        assert resumed.trouble.endswith("; the file as it was is metrics.csv.damaged")
    assert resumed.kept(40) == kept


def test_rows_after_the_checkpoint_are_dropped_and_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    table = written(path, range(0, 45, 5))
    kept = table.kept(40)  # the last row is the closing one of this very step
    assert kept.length == sum(len(line) + 1 for line in text(path)[:9])
    with open(path, "ab") as file:
        file.write(b"40,1,\n45,\x00\x00")
    resumed = made(path, 40, kept)
    assert resumed.trouble == ""
    assert [line.split(",")[0] for line in text(path)[1:]] == [str(step) for step in range(0, 40, 5)]
    assert not (tmp_path / "metrics.csv.damaged").exists()


def test_rows_that_a_checkpoint_counted_stay_when_the_next_one_is_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    table = written(path, range(0, 45, 5))
    first = table.kept(40)
    second = table.kept(41)
    assert second.length > first.length
    assert second.content() == path.read_bytes()
    table.add_all([[45, 1.5, None], [50, 2.5, None]])
    table.flush()
    assert table.kept(50).content() == path.read_bytes().replace(b"50,2.5,\n", b"")
    assert table.kept(51).content() == path.read_bytes()


def test_a_table_too_long_for_checkpoints_is_compared_and_kept_aside(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("ntkrun.storage.table.PACKED", 1)
    path = tmp_path / "weights.csv"
    kept = written(path, range(0, 40, 5)).kept(40)
    assert kept.rows is None
    whole = path.read_bytes()
    assert made(path, 40, kept).trouble == ""
    path.write_bytes(whole.replace(b"\n15,", b"\n1x,"))
    resumed = made(path, 40, kept)
    assert resumed.trouble == (
        "weights.csv: line 5 cannot be used and is left out; the file as it was is weights.csv.damaged"
    )
    assert [line.split(",")[0] for line in text(path)[1:]] == ["0", "5", "10", "20", "25", "30", "35"]
    path.write_bytes(whole.replace(b"0.16", b"0.17"))
    assert "others than it knows" in made(path, 40, kept).trouble


def test_what_version_0_1_0_left_is_read_without_a_checksum(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    written(path)
    with open(path, "ab") as file:
        file.write(b"60,0.0")
    assert made(path, 40).trouble == ""
    assert len(text(path)) == 9
    path.write_bytes(path.read_bytes().replace(b"\n20,", b"\n2,0,"))
    assert made(path, 40).trouble.startswith("metrics.csv: line 6 cannot be used and is left out")
    path.unlink()
    assert "no such file any more" in made(path, 40).trouble


def test_rows_of_a_received_checkpoint_that_are_no_rows_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    for content in (b"step,loss,error\n=cmd(),1,\n", b"step,loss,error\n5,1,\n0,1,\n", b"step,x\n", b""):
        kept = Kept(len(content), zlib.crc32(content), zlib.compress(content))
        with pytest.raises(TableError):
            made(path, 40, kept)
    bomb = Kept(100, 0, zlib.compress(bytes(10**8)))
    assert bomb.content() is None
    assert Kept(100, 0, b"not zlib").content() is None
    assert len(zlib.compress(bytes(10**8))) < PACKED
