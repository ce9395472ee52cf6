"""How the program ends with one line. Imports nothing heavy: the command line needs it early."""

from __future__ import annotations

import sys
from typing import NoReturn


def refuse(reason: object) -> NoReturn:
    """Print one line to standard error and leave with exit status 2."""
    print(f"ntkrun: {reason}", file=sys.stderr)
    sys.exit(2)


def fail(reason: object) -> NoReturn:
    """Print one line to standard error and leave with exit status 1, for what is not the input's fault."""
    print(f"ntkrun: {reason}", file=sys.stderr)
    sys.exit(1)
