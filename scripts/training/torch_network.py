"""The network of a case for programs on torch."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from training.cases import Array, Case


def put_layers(linear: Iterable[nn.Module], case: Case) -> None:
    """Give linear layers the initial values of a case."""
    with torch.no_grad():
        for module, (weight, bias) in zip(linear, case.draw_layers(), strict=True):
            module.weight.copy_(torch.from_numpy(weight))
            module.bias.copy_(torch.from_numpy(bias))


def take_layers(linear: Iterable[nn.Module]) -> list[tuple[Array, Array]]:
    """The present values of linear layers."""
    return [(_values(m.weight), _values(m.bias)) for m in linear]


def _values(tensor: torch.Tensor) -> Array:
    """A copy on the host, in single precision."""
    values: Array = tensor.detach().cpu().float().numpy().copy()
    return values


def linear_layers(network: nn.Module) -> list[nn.Module]:
    """The linear layers of a network in their order."""
    return [module for module in network.modules() if isinstance(module, nn.Linear)]
