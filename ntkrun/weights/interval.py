"""When weights are updated: as often as they change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ntkrun.common.state_schema import Whole

LONGEST = 100
"""Steps between two updates, at the most."""
CHANGE = 0.2
"""The relative change of a weight between two updates that is thought neither small nor large, to a factor of two."""
AVERAGE = 50
"""Steps per update on the long-term average, at the least; an update in a gradient's pass takes up to 0.4 of a step."""
AHEAD = 45
"""Updates by which the average may be exceeded at the start, when weights change fastest."""


@dataclass
class Interval:
    """Steps from one update to the next.

    It is halved where a weight has changed by more than ``CHANGE`` since the last update, and doubled where all have
    changed by less than half as much.

    Attributes:
        length: the present interval.
        due: the step of the next update.
        updates: so far.
    """

    length: int = 1
    due: int = 0
    updates: int = 0

    def updated(self, change: float) -> None:
        """Take note of the update that was due.

        Args:
            change: the largest change of a weight's logarithm by it; NaN at the first one.
        """
        step = self.due
        self.updates += 1
        if change > CHANGE:
            self.length = max(1, self.length // 2)
        elif change < CHANGE / 2:
            self.length = min(LONGEST, 2 * self.length)
        self.due = max(step + self.length, min(step + LONGEST, AVERAGE * (self.updates - AHEAD)))

    def state_dict(self) -> dict[str, int]:
        """Everything needed to resume."""
        return dict(vars(self))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.length, self.due, self.updates = state["length"], state["due"], state["updates"]

    @staticmethod
    def state_schema() -> dict[str, Whole]:
        """What a saved state must look like."""
        return {"length": Whole(1, LONGEST), "due": Whole(), "updates": Whole()}
