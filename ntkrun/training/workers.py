"""Trainer for non-zero ranks; writes no files."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from ntkrun.training.records import Records
from ntkrun.training.trainer import Trainer


class Follower(Trainer):
    """A trainer that leaves checkpoints and the progress bar to the one that leads."""

    def save(self) -> None:
        """Find out what the leading process finds before it writes."""
        self._check()

    def _bar(self) -> tqdm[Any]:
        return tqdm(disable=True)


class NoRecords(Records):
    """Tables that are written elsewhere."""

    pictures = 0

    def __init__(self) -> None:
        pass

    def metrics(self, *row: object) -> None:
        pass

    def weight_updates(self, *rows: object) -> None:
        pass

    def step(self, *row: object) -> None:
        pass

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


@contextmanager
def silence() -> Iterator[None]:
    """Send this package's log lines nowhere while inside."""
    root = logging.getLogger("ntkrun")
    before = root.handlers, root.propagate
    root.handlers, root.propagate = [logging.NullHandler()], False
    try:
        yield
    finally:
        root.handlers, root.propagate = before
