"""The neural tangent kernel: Jacobian operators, exact traces, sketches."""

from ntkrun.ntk.jacobian import DenseJacobian, Jacobian, ParameterLayout, ScaledJacobian, StackedJacobian
from ntkrun.ntk.structured import RowBlock, StructuredJacobian

__all__ = [
    "DenseJacobian",
    "Jacobian",
    "ParameterLayout",
    "RowBlock",
    "ScaledJacobian",
    "StackedJacobian",
    "StructuredJacobian",
]
