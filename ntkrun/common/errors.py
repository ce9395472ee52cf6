"""User-facing errors and exit codes. Imports nothing heavy: the command line needs it early."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable
from typing import NoReturn

from ntkrun.common.torchrun import leads, local_rank


class ConfigError(ValueError):
    """A configuration value that cannot be used; the message is one line for the user."""


def refuse(reason: object) -> NoReturn:
    """Print one line to standard error and leave with exit status 2.

    Of processes that train together, one on each machine prints it, and the status is that of the one that leads:
    torchrun ends all others as soon as one has failed, and that might be before they have spoken.
    """
    if local_rank() == 0:
        print(f"ntkrun: {one_line(reason)}", file=sys.stderr)
    sys.exit(2 if leads() else 0)


def fail(reason: object) -> NoReturn:
    """Print one line to standard error and leave with exit status 1, for what is not the input's fault."""
    print(f"ntkrun: {one_line(reason)}", file=sys.stderr)
    sys.exit(1)


LONGEST = 2000  # characters of a line


def one_line(text: object) -> str:
    """A text as one line; what is not printable in it is escaped, and what is too long left out in the middle."""
    line = str(text).strip()
    if len(line) > LONGEST:
        line = f"{line[: LONGEST // 4]} ... {line[-LONGEST // 4 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def closest(word: str, choices: Iterable[str], prefix: str = "") -> str:
    """``"; did you mean ...?"`` for a near match of a word, shown with the prefix, else nothing."""
    matches = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f"; did you mean {prefix}{matches[0]}?" if matches else ""
