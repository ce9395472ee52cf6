"""The weighted loss of a problem and a network: residuals, gradients and kernel rows."""

from ntkrun.objective.batch import Batch
from ntkrun.objective.chunked import ChunkedObjective
from ntkrun.objective.objective import Evaluation, Objective, Route, RouteError, Weigh

__all__ = ["Batch", "ChunkedObjective", "Evaluation", "Objective", "Route", "RouteError", "Weigh"]
