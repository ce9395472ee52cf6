"""Learning rate schedules: factors of the learning rate as functions of the step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from ntkrun.common.types import Positive


class Schedule(ABC):
    """A factor of the learning rate, a function of the step alone, so that it holds no state."""

    @abstractmethod
    def factor(self, step: int, iterations: int) -> float:
        """The factor at ``step`` of a run of ``iterations`` steps."""


@dataclass(kw_only=True)
class Constant(Schedule):
    """The learning rate as it is."""

    def factor(self, step: int, iterations: int) -> float:
        return 1.0


@dataclass(kw_only=True)
class Exponential(Schedule):
    """rate^(step / every), continuously.

    Args:
        rate: the factor reached after ``every`` steps.
        every: steps.
    """

    rate: Annotated[float, Field(gt=0, le=1)] = 0.9
    every: Positive[int] = 1000

    def factor(self, step: int, iterations: int) -> float:
        return math.pow(self.rate, step / self.every)


@dataclass(kw_only=True)
class Cosine(Schedule):
    """Half a cosine from 1 at the first step to ``final`` at the last (Loshchilov, Hutter, arXiv 1608.03983).

    Args:
        final: the factor at the end of the run.
    """

    final: Annotated[float, Field(ge=0, le=1)] = 0.0

    def factor(self, step: int, iterations: int) -> float:
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * step / max(1, iterations)))
