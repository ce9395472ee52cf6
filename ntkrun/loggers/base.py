"""The interface of loggers, the choice to have none, and a guard that keeps a run going when one breaks."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

log = logging.getLogger(__name__)


class Logger(ABC):
    """A copy of a run's numbers and figures for a tracking program.

    The tables of the run directory are written in any case.

    Attributes:
        pictures: how many pictures of the solution it wants along a run or time window, besides those at its end.
    """

    pictures: int = 0

    def check(self) -> None:  # noqa: B027, most need nothing
        """Look whether everything needed is installed.

        Raises:
            ValueError: something is missing.
        """

    def addresses(self) -> list[str]:
        """Where it sends anything beyond files at its default places; a received run does so only where trusted."""
        return []

    @abstractmethod
    def start(self, directory: Path, values: Mapping[str, Any], step: int) -> None:
        """Begin, or resume a run.

        Args:
            directory: the run directory.
            values: the configuration as plain values.
            step: the first step to be logged; more than 0 where a run is resumed.
        """

    @abstractmethod
    def log(self, step: int, row: Mapping[str, float]) -> None:
        """Take the finite numbers of a row of metrics.csv, and those of the last weight update before it."""

    def picture(self, step: int, solution: Mapping[str, NDArray[Any]]) -> None:  # noqa: B027, most take none
        """Take the solution as it is before a step, the arrays of ``solution.npz``; called where a row is due."""

    def flush(self) -> None:  # noqa: B027, most hold nothing back
        """Hand over everything; called at every checkpoint."""

    @abstractmethod
    def finish(self, directory: Path, status: str) -> None:
        """Take the figures and end.

        Args:
            directory: the run directory, complete.
            status: ``completed``, ``failed`` or ``interrupted``.
        """


class TablesOnly(Logger):
    """The tables of the run directory and nothing else."""

    def start(self, directory: Path, values: Mapping[str, Any], step: int) -> None:
        pass

    def log(self, step: int, row: Mapping[str, float]) -> None:
        pass

    def finish(self, directory: Path, status: str) -> None:
        pass


class Guarded(Logger):
    """A logger that is left alone, with a warning, once it has failed: a run does not end for its copy.

    Args:
        inner: the logger.
    """

    def __init__(self, inner: Logger) -> None:
        self._inner: Logger | None = inner
        self.pictures = inner.pictures

    def start(self, directory: Path, values: Mapping[str, Any], step: int) -> None:
        self._try(lambda inner: inner.start(directory, values, step))

    def log(self, step: int, row: Mapping[str, float]) -> None:
        self._try(lambda inner: inner.log(step, row))

    def picture(self, step: int, solution: Mapping[str, NDArray[Any]]) -> None:
        self._try(lambda inner: inner.picture(step, solution))

    def flush(self) -> None:
        self._try(lambda inner: inner.flush())

    def finish(self, directory: Path, status: str) -> None:
        self._try(lambda inner: inner.finish(directory, status))

    def _try(self, act: Callable[[Logger], None]) -> None:
        if self._inner is None:
            return
        try:
            act(self._inner)
        except Exception as error:
            name = type(self._inner).__name__
            log.warning("%s failed and is left alone from here on: %s: %s", name, type(error).__name__, error)
            self._inner, self.pictures = None, 0


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """A configuration as pairs of dotted keys and texts."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, str(value)
