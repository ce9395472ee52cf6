"""Jacobians of residual rows as linear operators."""

from ntkrun.jacobian.operators import DenseJacobian, Jacobian, ParameterLayout, ScaledJacobian, StackedJacobian
from ntkrun.jacobian.per_point import PerPointJacobian
from ntkrun.jacobian.structured import RowBlock, StructuredJacobian

__all__ = [
    "DenseJacobian",
    "Jacobian",
    "ParameterLayout",
    "PerPointJacobian",
    "RowBlock",
    "ScaledJacobian",
    "StackedJacobian",
    "StructuredJacobian",
]
