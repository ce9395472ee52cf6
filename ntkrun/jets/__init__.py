"""Taylor-mode derivatives: Taylor coefficients (streams) of a network carried forward."""

from ntkrun.jets.functions import ACTIVATIONS, Activation
from ntkrun.jets.jet import GainUse, Jet, LinearUse, MatrixUse
from ntkrun.jets.nested import nested_streams
from ntkrun.jets.plan import (
    MAX_ORDER,
    Index,
    StreamPlan,
    UnknownDerivativeError,
    parse_derivative,
    parse_operator,
    plan_streams,
)

__all__ = [
    "ACTIVATIONS",
    "MAX_ORDER",
    "Activation",
    "GainUse",
    "Index",
    "Jet",
    "LinearUse",
    "MatrixUse",
    "StreamPlan",
    "UnknownDerivativeError",
    "nested_streams",
    "parse_derivative",
    "parse_operator",
    "plan_streams",
]
