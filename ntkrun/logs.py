"""Log lines: to the run's log file, and to standard error around the progress bar."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm.contrib.logging import logging_redirect_tqdm

NAME = "ntkrun.log"


@contextmanager
def logging_to(directory: Path) -> Iterator[None]:
    """Send this package's log lines to ``directory/ntkrun.log`` and to standard error while inside."""
    root = logging.getLogger("ntkrun")
    before = root.level, root.handlers, root.propagate
    file = logging.FileHandler(directory / NAME, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    console = logging.StreamHandler()
    console.setFormatter(logging.Formatter("%(message)s"))
    root.handlers = [file, console]
    root.setLevel(logging.INFO)
    root.propagate = False
    try:
        with logging_redirect_tqdm([root]):
            yield
    finally:
        root.level, root.handlers, root.propagate = before
        file.close()
