"""Point weights that bound how much of a term's kernel trace single points hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ntkrun.objective import Objective
from ntkrun.objective.batch import Batch
from ntkrun.point_weights.base import PointWeights, fill_up

LARGE = 10  # times the median of a term's rows, in squares, from which on they count less


@dataclass(kw_only=True, eq=False)
class Capped(PointWeights):
    """No weights but where a few points hold most of a term's trace, as they do next to a pole of a coefficient.

    In the terms named to ``cap``, point k has the weight

        w_k = min(1, ``LARGE`` median_j K_jj / K_kk)

    at the present parameters, so that sum_k w_k K_kk is at most N ``LARGE`` median_k K_kk. Next to r = 0, rows with the
    coefficient 2/r are as if multiplied by r. Rows of layers, which are large as well, count nearly in full: at the
    median itself, half of all points counted less, and what they had to say of a layer went unheard.

    Attributes:
        weights: of the points of the capped terms, ``[N_i, 1]``; empty before the first ``update``.
    """

    varying = False

    def start(self, objective: Objective, fixed_points: bool) -> None:
        self._names = objective.names
        self._capped = torch.zeros(len(self._names), dtype=torch.bool)
        self.weights: dict[str, Tensor] = {}

    def cap(self, terms: Iterable[str]) -> None:
        """Cap the rows of some terms from now on."""
        chosen = set(terms)
        self._set(torch.tensor([name in chosen for name in self._names]))

    def _set(self, capped: Tensor) -> None:
        self._capped = capped
        self.varying = bool(capped.any())

    def update(self, objective: Objective, batch: Batch) -> None:
        self.weights = self._weights(objective, batch) if self.varying else {}

    def apply(self, objective: Objective, batch: Batch) -> Batch:
        return objective.weigh_points(batch, fill_up(objective, batch, self.weights)) if self.weights else batch

    def elsewhere(self, objective: Objective, batch: Batch) -> Batch:
        if not self.varying:
            return batch
        return objective.weigh_points(batch, fill_up(objective, batch, self._weights(objective, batch)))

    def _weights(self, objective: Objective, batch: Batch) -> dict[str, Tensor]:
        diagonals = zip(self._names, objective.diagonals(batch), self._capped.tolist(), strict=True)
        return {name: capped_by_median(diagonal.detach())[:, None] for name, diagonal, capped in diagonals if capped}

    def state_dict(self) -> dict[str, Any]:
        return {"capped": self._capped}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._set(state["capped"].clone())


def capped_by_median(diagonal: Tensor) -> Tensor:
    """min(1, LARGE median / K_kk) of every point; 1 where the median is 0: nothing is known of the size of rows then.

    Args:
        diagonal: K_kk, ``[N]``.
    """
    most = LARGE * diagonal.median()
    return torch.where((most > 0) & (diagonal > most), most / diagonal, torch.ones_like(diagonal))
