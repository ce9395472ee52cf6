"""Where torch's compiler keeps what it has compiled. Imports nothing heavy: it has to come before torch."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

VARIABLE = "TORCHINDUCTOR_CACHE_DIR"

_replaced: list[str] = []


def make_cache_usable() -> None:
    """See that the directory which the environment names can be used, for torch cannot even be imported otherwise.

    One that cannot is replaced by one that goes with this process; ``cache_trouble`` tells.
    """
    given = os.environ.get(VARIABLE)
    if not given:
        return
    try:
        os.makedirs(given, exist_ok=True)
        with tempfile.TemporaryFile(dir=given):
            return
    except OSError as error:
        _replaced.append(f"{VARIABLE}={given} cannot be used, {error.strerror}: what is compiled is kept until the end")
    os.environ[VARIABLE] = tempfile.mkdtemp(prefix="ntkrun-compiled-")
    atexit.register(shutil.rmtree, os.environ[VARIABLE], ignore_errors=True)


def cache_trouble() -> str:
    """Why the directory that the environment names is not used, if it is not; said once."""
    return _replaced.pop() if _replaced else ""
