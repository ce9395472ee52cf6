"""Weights of single collocation points within their loss terms."""

from ntkrun.point_weights.base import PointWeights, Uniform
from ntkrun.point_weights.capped import Capped
from ntkrun.point_weights.causal import Causal
from ntkrun.point_weights.residual_attention import ResidualAttention

__all__ = ["Capped", "Causal", "PointWeights", "ResidualAttention", "Uniform"]
