"""How the loss terms are weighted."""

from ntkrun.weights.base import Unweighted, Weighting, WeightUpdate
from ntkrun.weights.exact import Exact
from ntkrun.weights.policy import NTKWeighting
from ntkrun.weights.sketched import Sketched

__all__ = ["Exact", "NTKWeighting", "Sketched", "Unweighted", "WeightUpdate", "Weighting"]
