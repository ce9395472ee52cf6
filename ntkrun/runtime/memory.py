"""Available memory, and refusals of what cannot fit before it is asked for."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import torch

from ntkrun.common.errors import ConfigError
from ntkrun.common.user_frames import message

_MEMINFO = Path("/proc/meminfo")


def available(device: str = "cpu") -> int:
    """Bytes that this process can still take on a device; on the CPU an upper bound where the system does not say.

    On a CUDA device, such as ``cuda`` or ``cuda:1``, what the device says is free, and what torch has taken from it but
    does not use.
    """
    if device.startswith("cuda"):
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    if _MEMINFO.exists():
        found = re.findall(r"^(?:MemAvailable|SwapFree): +(\d+) kB$", _MEMINFO.read_text(), re.M)
        return 1024 * sum(map(int, found))
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else sys.maxsize


def for_points(least: int, device: str = "cpu") -> int:
    """Bytes that the evaluation of points may take at a time: an eighth of all that a CUDA device has.

    That depends on the kind of card alone, so that equal runs take equal chunks of points on it.

    Args:
        least: on other devices and small cards.
        device: such as ``cpu`` or ``cuda:1``.
    """
    return max(least, int(torch.cuda.mem_get_info(device)[1]) // 8) if device.startswith("cuda") else least


def check_fits(size: float, key: str, device: str = "cpu") -> None:
    """Turn down what would take more bytes than there are.

    Raises:
        ConfigError: naming the key, what it would take and what there is.
    """
    if size > (room := available(device)):
        raise ConfigError(f"{key}: takes about {size / 1e9:.3g} GB of memory; {room / 1e9:.3g} GB are free")


def limit_memory() -> None:
    """Let requests beyond the memory that there is fail, instead of having this process killed for them.

    Linux promises more memory than it has. A limit on what a process may write to makes an allocation that
    cannot be kept an error in its place, which a run reports like any other.
    """
    if not sys.platform.startswith("linux"):
        return
    import resource

    used = sum(int(size) for size in re.findall(r"^VmData:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.M))
    limit = available() + 1024 * used
    _, highest = resource.getrlimit(resource.RLIMIT_DATA)
    if highest == resource.RLIM_INFINITY or limit < highest:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, highest))


def shortage(error: BaseException) -> str | None:
    """One line where an error says that memory has run out, else nothing."""
    text = message(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in text:
        asked = re.search(r"tried to allocate (\d+) bytes|[Uu]nable to allocate ([\d.]+ \w+)", text)
        return "out of memory" + (f", {_size(asked)} were asked for at once" if asked else "")
    return None


def _size(asked: re.Match[str]) -> str:
    return asked[2] or f"{int(asked[1]) / 1e9:.3g} GB"
