"""Modules that a network cannot have, or only with care: without shapes, with a memory, or such that points meet."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy

MEETING = (
    *(_NormBase, nn.MultiheadAttention, nn.Transformer, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer),
    *(nn.RNNBase, nn.modules.conv._ConvNd),  # along the points, where these are given as one sequence
)


def shapeless(network: nn.Module) -> str | None:
    """The first module whose parameters have no shapes before it has seen points, in words."""
    for name, module in network.named_modules():
        if any(map(is_lazy, [*module.parameters(recurse=False), *module.buffers(recurse=False)])):
            return _named(name, module)
    return None


def remembering(network: nn.Module) -> str | None:
    """The first module that keeps averages of the points that it has seen, in words."""
    for name, module in network.named_modules():
        if isinstance(module, _NormBase) and module.training and module.track_running_stats:
            return _named(name, module)
    return None


def suspects(network: nn.Module) -> str:
    """Modules that may make an output depend on all points of a pass, and what to take instead; empty without any."""
    found = [(name, module) for name, module in network.named_modules() if isinstance(module, MEETING)][:3]
    if not found:
        return ""
    normed = any(isinstance(module, _NormBase) for _, module in found)
    instead = "LayerNorm" if normed else "points as a batch of sequences of length 1"
    verb = "lets" if len(found) == 1 else "let"
    modules = ", ".join(_named(*each) for each in found)
    return f"{modules} {verb} points meet, where every point must stand alone, as with {instead}"


def _named(name: str, module: nn.Module) -> str:
    return f"{type(module).__name__} ({name or 'the network itself'})"
