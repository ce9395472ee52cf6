"""The arithmetic floor: the matrix products that a step cannot do without, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from ntkrun.runtime.allocator import keep_freed_memory
from training.cases import Case
from training.turns import Turns

TRIES = 5


def train(case: Case) -> None:
    """Multiply until told to stop, every product by the faster of torch's libraries for it."""
    keep_freed_memory()
    work = [_fastest(m, k, n) for m, k, n in case.products() if min(m, k, n) > 0]
    turns = Turns(list)
    while turns():
        for product in work:
            product()


def _fastest(m: int, k: int, n: int) -> Callable[[], Tensor]:
    """A product ``[m, k] [k, n]`` of matrices that lie as suits the library best."""
    a, b, out = torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)
    transposed = b.mT.contiguous()
    options: list[Callable[[], Tensor]] = [lambda: torch.mm(a, b, out=out)]
    if torch.backends.mkldnn.is_available():
        onednn = torch.ops.mkldnn._linear_pointwise.default
        options.append(lambda: onednn(a, transposed, None, "none", [], ""))
    return min(options, key=_seconds)


def _seconds(product: Callable[[], Tensor]) -> float:
    """The shortest time of a few, after a first call."""
    product()
    times = []
    for _ in range(TRIES):
        start = time.perf_counter()
        product()
        times.append(time.perf_counter() - start)
    return min(times)
