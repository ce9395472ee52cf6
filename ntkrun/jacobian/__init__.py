"""Jacobians of residual rows as linear operators."""

from ntkrun.jacobian.operators import DenseJacobian, Jacobian, ParameterLayout, ScaledJacobian, StackedJacobian
from ntkrun.jacobian.structured import RowBlock, StructuredJacobian

__all__ = [
    "DenseJacobian",
    "Jacobian",
    "ParameterLayout",
    "RowBlock",
    "ScaledJacobian",
    "StackedJacobian",
    "StructuredJacobian",
]
