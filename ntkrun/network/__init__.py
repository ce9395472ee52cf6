"""Networks, and the layers that carry streams."""

from ntkrun.network.base import JetNetwork, Linear, output_streams
from ntkrun.network.coefficients import coefficient_values, with_coefficients
from ntkrun.network.constrained import constrained
from ntkrun.network.cpikan import ChebyshevKAN
from ntkrun.network.ecrn import ECRN
from ntkrun.network.features import feature_count, featured_domain, with_features
from ntkrun.network.fourier import FourierNetwork
from ntkrun.network.inputs import InputNetwork
from ntkrun.network.mlp import MLP
from ntkrun.network.modified_mlp import ModifiedMLP
from ntkrun.network.precision import convert

__all__ = [
    "ECRN",
    "MLP",
    "ChebyshevKAN",
    "FourierNetwork",
    "InputNetwork",
    "JetNetwork",
    "Linear",
    "ModifiedMLP",
    "coefficient_values",
    "constrained",
    "convert",
    "feature_count",
    "featured_domain",
    "output_streams",
    "with_coefficients",
    "with_features",
]
