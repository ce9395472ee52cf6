"""What a run changes of the process that it is carried out in, put back afterwards."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ntkrun.runtime.allocator import return_freed_memory

if sys.platform.startswith("linux"):
    import resource


@contextmanager
def process_state_kept() -> Iterator[None]:
    """Put back threads, torch's random numbers and default type, the memory limit and the search path for modules.

    The command line has a process to itself and needs none of this; a notebook continues after a run.
    """
    threads, dtype, path = torch.get_num_threads(), torch.get_default_dtype(), sys.path[:]
    limit = resource.getrlimit(resource.RLIMIT_DATA) if sys.platform.startswith("linux") else None
    with torch.random.fork_rng():
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.set_default_dtype(dtype)
            sys.path[:] = path
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_DATA, limit)
            return_freed_memory()
