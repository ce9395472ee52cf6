"""Settings of the memory allocator: freed memory stays within the process."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
KEEP = 2**30  # bytes; above this size blocks are still given back
USUAL = 2**17  # glibc's own thresholds, in bytes


def keep_freed_memory() -> bool:
    """Tell glibc not to return freed blocks to the operating system at once.

    Every training step frees the hidden layers it has just allocated and asks for them again; each time
    they come back as untouched pages, which the kernel has to clear one by one. Measured on wave with a
    128 x 4 network and 2,600 points: a fused step takes 0.82 of the time, a plain one 0.96.

    Returns:
        Whether the C library took the settings; elsewhere than on glibc nothing happens.
    """
    return _set_thresholds(KEEP)


def return_freed_memory() -> None:
    """Undo ``keep_freed_memory`` and give back what is free, for a process that does something else from here."""
    if _set_thresholds(USUAL):
        ctypes.CDLL(None).malloc_trim(0)


def _set_thresholds(size: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return False
    return bool(library.mallopt(M_TRIM_THRESHOLD, size)) and bool(library.mallopt(M_MMAP_THRESHOLD, size))
