"""Copies for several tracking programs at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ntkrun.loggers.base import Guarded, Logger


class Several(Logger):
    """Loggers side by side; one that fails is left alone, the others go on.

    Args:
        loggers: at least one.
    """

    def __init__(self, loggers: Sequence[Logger]) -> None:
        self._loggers = tuple(loggers)
        self._guarded = tuple(Guarded(each) for each in loggers)
        self.pictures = max(each.pictures for each in loggers)

    def check(self) -> None:
        for each in self._loggers:
            each.check()

    def addresses(self) -> list[str]:
        return [address for each in self._loggers for address in each.addresses()]

    def start(self, directory: Path, values: Mapping[str, Any], step: int) -> None:
        for each in self._guarded:
            each.start(directory, values, step)

    def log(self, step: int, row: Mapping[str, float]) -> None:
        for each in self._guarded:
            each.log(step, row)

    def picture(self, step: int, solution: Mapping[str, NDArray[Any]]) -> None:
        for each in self._guarded:
            if each.pictures:
                each.picture(step, solution)

    def flush(self) -> None:
        for each in self._guarded:
            each.flush()

    def finish(self, directory: Path, status: str) -> None:
        for each in self._guarded:
            each.finish(directory, status)
