"""Weights of the loss terms."""

from ntkrun.weights.base import Request, Unweighted, Weighting, WeightUpdate
from ntkrun.weights.exact import Exact
from ntkrun.weights.fixed import Fixed
from ntkrun.weights.gradient_norm import GradientNorm
from ntkrun.weights.policy import NTKWeighting
from ntkrun.weights.relobralo import ReLoBRaLo
from ntkrun.weights.sketched import Sketched
from ntkrun.weights.softadapt import SoftAdapt
from ntkrun.weights.uncertainty import Uncertainty

__all__ = [
    "Exact",
    "Fixed",
    "GradientNorm",
    "NTKWeighting",
    "ReLoBRaLo",
    "Request",
    "Sketched",
    "SoftAdapt",
    "Uncertainty",
    "Unweighted",
    "WeightUpdate",
    "Weighting",
]
