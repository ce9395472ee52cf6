"""The dtype and the device of a network's tensors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}


def convert(network: nn.Module, dtype: torch.dtype, device: str | torch.device | None = None) -> nn.Module:
    """Bring all parameters and buffers of a network to one precision, in place; complex ones stay complex.

    ``Module.to`` casts complex tensors to a real dtype as well, which drops their imaginary parts.

    Args:
        network: the network.
        dtype: of its real tensors, float32 or float64; complex ones get the complex dtype of that precision.
        device: where to, if anywhere.
    """

    def converted(tensor: Tensor) -> Tensor:
        if tensor.is_complex():
            return tensor.to(device=device, dtype=COMPLEX[dtype])
        return tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)

    converted_network: nn.Module = network._apply(converted)
    return converted_network
