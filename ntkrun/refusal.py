"""How the program ends with one line. Imports nothing heavy: the command line needs it early."""

from __future__ import annotations

import sys
from typing import NoReturn

from ntkrun.launched import leads, local_rank


def refuse(reason: object) -> NoReturn:
    """Print one line to standard error and leave with exit status 2.

    Of processes that train together, one on each machine prints it, and the status is that of the one that leads:
    torchrun ends all others as soon as one has failed, and that might be before they have spoken.
    """
    if local_rank() == 0:
        print(f"ntkrun: {reason}", file=sys.stderr)
    sys.exit(2 if leads() else 0)


def fail(reason: object) -> NoReturn:
    """Print one line to standard error and leave with exit status 1, for what is not the input's fault."""
    print(f"ntkrun: {reason}", file=sys.stderr)
    sys.exit(1)
