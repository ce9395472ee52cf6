"""Process-wide state that a run changes, put back afterwards."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ntkrun.runtime.allocator import return_freed_memory
from ntkrun.runtime.user_changes import user_changes_undone

if sys.platform.startswith("linux"):
    import resource


@contextmanager
def process_state_kept() -> Iterator[None]:
    """Put back threads, torch's random numbers, the memory limit, and what ``user_changes_undone`` does.

    The command line has a process to itself and needs only the latter; a notebook continues after a run.
    """
    threads = torch.get_num_threads()
    limit = resource.getrlimit(resource.RLIMIT_DATA) if sys.platform.startswith("linux") else None
    with user_changes_undone(), torch.random.fork_rng():
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_DATA, limit)
            return_freed_memory()
