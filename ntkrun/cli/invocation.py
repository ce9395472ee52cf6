"""What one invocation of the command line has begun.

Hydra calls first the callbacks and then the job, and hands nothing from one to the other or back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import NamedTuple

from ntkrun.cli.sweep import Sweep
from ntkrun.config.assembly import Parts
from ntkrun.config.configuration import Configuration


class Assembled(NamedTuple):
    """A run whose parts are there already."""

    configuration: Configuration
    parts: Parts


@dataclass
class Invocation:
    """One invocation.

    Attributes:
        sweep: that has begun.
        assembled: the single run that is about to start.
    """

    sweep: Sweep | None = None
    assembled: Assembled | None = None

    def take_assembled(self) -> Assembled | None:
        """The single run, which belongs to the caller from now on."""
        taken, self.assembled = self.assembled, None
        return taken


_current: ContextVar[Invocation] = ContextVar("invocation")


@contextmanager
def invocation() -> Iterator[Invocation]:
    """One invocation, which is the present one inside."""
    own = Invocation()
    token = _current.set(own)
    try:
        yield own
    finally:
        _current.reset(token)


def present_invocation() -> Invocation:
    """The one that this is part of; where Hydra has been started by something else, one of its own."""
    return _current.get(Invocation())
