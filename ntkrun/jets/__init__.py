"""Taylor-mode derivatives: input derivatives of a network carried forward as streams."""

from ntkrun.jets.functions import ACTIVATIONS, Activation
from ntkrun.jets.jet import GainUse, Jet, LinearUse, MatrixUse
from ntkrun.jets.nested import nested_streams
from ntkrun.jets.plan import MAX_ORDER, StreamPlan, UnknownDerivativeError, parse_derivative, plan_streams

__all__ = [
    "ACTIVATIONS",
    "MAX_ORDER",
    "Activation",
    "GainUse",
    "Jet",
    "LinearUse",
    "MatrixUse",
    "StreamPlan",
    "UnknownDerivativeError",
    "nested_streams",
    "parse_derivative",
    "plan_streams",
]
