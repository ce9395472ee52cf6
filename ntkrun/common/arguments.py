"""What the commands beside ``ntkrun`` itself have in common. Imports nothing heavy: their help must answer at once."""

from __future__ import annotations

import argparse
from typing import NoReturn

from ntkrun.common.errors import refuse


class Parser(argparse.ArgumentParser):
    """A parser of a command's arguments that complains in one line.

    Args:
        prog: name of the command.
        description: shown as it is by ``--help``.
    """

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Complain, and leave with exit status 2."""
        refuse(f"{message}; {self.prog} --help shows the usage")
