"""How long the threads of a computation wait busily for each other."""

from __future__ import annotations

import os

SPINS = 1000  # some microseconds


def wait_briefly() -> None:
    """Let threads that wait for work give up their core soon; call it before torch is loaded.

    By default those of GNU OpenMP, which torch uses on Linux, hold on to their cores for a while. Where another
    program needs one of the cores too, the thread that is waited for then does not get it: beside one busy program,
    small steps on two threads took 13 ms each by default, and 2 ms with this.

    What the environment says, by ``OMP_WAIT_POLICY`` or ``GOMP_SPINCOUNT``, holds.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
