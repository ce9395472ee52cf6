"""The neural tangent kernel: Jacobian operators, exact traces, sketches."""

from ntkrun.ntk.jacobian import Jacobian, ParameterLayout
from ntkrun.ntk.structured import RowBlock, StructuredJacobian

__all__ = ["Jacobian", "ParameterLayout", "RowBlock", "StructuredJacobian"]
