"""Reading files of bounded size."""

from __future__ import annotations

from pathlib import Path

from ntkrun.storage.reader import read_bytes


def test_a_short_file_takes_little_memory_however_long_it_may_be(tmp_path: Path) -> None:
    """What is asked of ``read`` is allocated at once: with 4 GiB allowed, small checkpoints failed for want of them."""
    path = tmp_path / "short"
    path.write_bytes(b"content")
    assert read_bytes(path, 2**60) == b"content"
