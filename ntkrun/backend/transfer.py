"""Tensors of the host on the device of another, without waiting for that device.

A copy from ordinary memory to a CUDA device waits until all that was asked of the device before is done. From pinned
memory it takes its place among that, and Python goes on at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ntkrun.backend.tracing import tracing


def moved(tensor: Tensor, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor of the host on the device of ``like``.

    Args:
        tensor: on the host, of any shape.
        like: of the device and, without ``dtype``, of the dtype wanted.
        dtype: of the result.
    """
    host = tensor.to(like.dtype if dtype is None else dtype)
    if like.device.type == "cpu":
        return host
    if like.device.type == "cuda":
        host = host.pin_memory()
    return host.to(like.device, non_blocking=True)


def constant(numbers: Sequence[Any] | float, like: Tensor) -> Tensor:
    """Numbers, nested as ``torch.tensor`` takes them, as a tensor of the dtype and device of ``like``.

    In a traced pass they become a constant of the graph on that device.
    """
    if tracing():
        return like.new_tensor(numbers)
    return moved(torch.tensor(numbers, dtype=like.dtype), like)
