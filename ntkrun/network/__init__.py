"""Networks, and the layers that carry streams."""

from ntkrun.network.base import JetNetwork, Linear, output_streams
from ntkrun.network.mlp import MLP

__all__ = ["MLP", "JetNetwork", "Linear", "output_streams"]
