"""How long threads of OpenMP wait for each other before they let others have their core."""

from __future__ import annotations

import os
import sys

SPIN = "4000"
"""Rounds of waiting, some 10 microseconds.

GNU's own choice is a hundred times as long where a process has no more threads than there are cores. Two runs on two
cores then wait for threads that cannot run because those of the other run wait: 15 steps of Gauss-Newton on ``wave``
took 4.8 s each side by side and 0.9 s alone; with this, 2.4 and 1.0 s. Longer runs were seen to take fourteen times as
long. Small steps of Adam with two threads take 8 % longer than with GNU's choice.
"""


def wait_briefly() -> None:
    """Set that for this process and those it starts, unless the user has said how to wait; before torch is loaded."""
    if "torch" not in sys.modules and not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = SPIN
