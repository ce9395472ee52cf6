"""The arithmetic floor: the matrix products that a step cannot do without, and nothing else."""

from __future__ import annotations

import torch

from training.cases import Case
from training.turns import Turns


def train(case: Case) -> None:
    """Multiply until told to stop."""
    work = [
        (torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)) for m, k, n in case.products() if min(m, k, n) > 0
    ]
    turns = Turns(list)
    while turns():
        for a, b, out in work:
            torch.mm(a, b, out=out)
