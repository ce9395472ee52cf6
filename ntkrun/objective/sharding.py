"""The sharing out of points among processes, as far as an objective needs to know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Sharding(Protocol):
    """This process among those that share the points out.

    Attributes:
        rank: its number, from 0.
        count: how many there are.
    """

    @property
    def rank(self) -> int: ...

    @property
    def count(self) -> int: ...

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place of ``tensor``; the same bits for all of them."""
        ...


@dataclass(frozen=True)
class Alone:
    """A process with all points to itself."""

    rank: int = 0
    count: int = 1

    def sum(self, tensor: Tensor) -> Tensor:
        return tensor


ALONE = Alone()
