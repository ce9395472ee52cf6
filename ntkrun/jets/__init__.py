"""Taylor-mode derivatives: input derivatives of a network carried forward as streams."""

from ntkrun.jets.functions import ACTIVATIONS, Activation
from ntkrun.jets.jet import Jet, LinearUse
from ntkrun.jets.nested import nested_streams
from ntkrun.jets.plan import MAX_ORDER, StreamPlan, UnknownDerivativeError, parse_derivative, plan_streams

__all__ = [
    "ACTIVATIONS",
    "MAX_ORDER",
    "Activation",
    "Jet",
    "LinearUse",
    "StreamPlan",
    "UnknownDerivativeError",
    "nested_streams",
    "parse_derivative",
    "plan_streams",
]
