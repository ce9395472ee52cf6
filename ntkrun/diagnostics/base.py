"""The interface of diagnostics, and the choice to have none."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ntkrun.common.state_schema import schema_of
from ntkrun.objective import Objective
from ntkrun.objective.batch import Batch


class Diagnostics(ABC):
    """Observations of a run along its way; they change nothing in it."""

    def start(self, objective: Objective, iterations: int) -> None:  # noqa: B027, most need no preparation
        """Prepare for a run.

        Args:
            objective: the problem and network to be trained.
            iterations: length of the run in optimiser steps.
        """

    @abstractmethod
    def observe(self, step: int, objective: Objective, batch: Batch) -> None:
        """Look at the network; called before every optimiser step and once after the last.

        Args:
            step: optimiser steps done.
            objective: the problem and network.
            batch: the points in use.
        """

    @abstractmethod
    def finish(self, directory: Path) -> None:
        """Write what was observed into the run directory; also after a run that was cut short."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything needed to resume, as tensors and plain values."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave, read by ``state_schema``."""

    def state_schema(self) -> Any:
        """What a saved state must look like, see ``ntkrun.common.state_schema``; asked after ``start``."""
        return schema_of(self.state_dict())


class NoDiagnostics(Diagnostics):
    """Nothing is observed and nothing is written."""

    def observe(self, step: int, objective: Objective, batch: Batch) -> None:
        pass

    def finish(self, directory: Path) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass

    def state_schema(self) -> Any:
        return {}
