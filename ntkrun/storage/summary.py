"""The summary of a run, as far as those read it who come after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ntkrun.storage.reader import UnreadableError, read_json

SUMMARY = "summary.json"


def read_summary(directory: Path) -> dict[str, Any]:
    """The directory's ``summary.json``; empty where there is none that can be read."""
    try:
        summary = read_json(directory / SUMMARY)
    except UnreadableError:
        return {}
    return summary if isinstance(summary, dict) else {}
