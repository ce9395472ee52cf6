"""The sharing out of points among processes, as far as an objective needs to know."""

from __future__ import annotations

from collections.abc import Sequence
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

    def exchange(self, parts: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
        """Hand every process its part; returns what all of them had for this one.

        Args:
            parts: vectors, one for every process.
            sizes: how long the vectors are that come from every process.
        """
        ...


@dataclass(frozen=True)
class Alone:
    """A process with all points to itself."""

    rank: int = 0
    count: int = 1

    def sum(self, tensor: Tensor) -> Tensor:
        """The tensor itself."""
        return tensor

    def exchange(self, parts: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
        """The part itself."""
        return list(parts)


ALONE = Alone()
