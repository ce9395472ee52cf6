"""The sharing out of points among processes, as far as an objective needs to know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Sharding(Protocol):
    """This process among those that share the points out."""

    @property
    def rank(self) -> int:
        """The number of this process, from 0."""
        ...

    @property
    def count(self) -> int:
        """How many processes there are."""
        ...

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place of ``tensor``; the same bits for all of them."""
        ...


@dataclass(frozen=True)
class Alone:
    """A process with all points to itself."""

    rank: int = 0
    count: int = 1

    def sum(self, tensor: Tensor) -> Tensor:
        """The tensor itself."""
        return tensor


ALONE = Alone()
