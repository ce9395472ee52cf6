"""Regression of a function of one variable."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from ntkrun.common.types import Positive
from ntkrun.geometry import Box
from ntkrun.pde.base import PDE, Columns, Term


class Regression(PDE):
    """u = y on [0, 1] with y = sum_k sin(2 pi f_k x) over the frequencies f_k: a supervised term alone.

    Low frequencies are learnt first (spectral bias): the residual's kernel is that of the network itself.
    Source: Rahaman et al., arXiv 1806.08734, who use such sums of sines.

    Args:
        frequencies: waves per unit length.
    """

    def __init__(
        self, frequencies: Annotated[Sequence[Positive[float]], Field(min_length=1)] = (1.0, 2.0, 4.0, 8.0)
    ) -> None:
        self.frequencies = tuple(frequencies)
        self.domain = Box.of(x=(0.0, 1.0))

    def terms(self) -> tuple[Term, ...]:
        return (Term("data", (self.domain,), ("u",), lambda x, d: d.u - self.exact(x)),)

    def exact(self, x: Columns) -> Tensor:
        return torch.stack([torch.sin(2 * math.pi * f * x.x) for f in self.frequencies]).sum(0)
