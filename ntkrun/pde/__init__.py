"""Problems: an equation with its conditions, as loss terms."""

from ntkrun.pde.base import PDE, Columns, ProblemError, Term
from ntkrun.pde.poisson import Poisson
from ntkrun.pde.wave import Wave

__all__ = ["PDE", "Columns", "Poisson", "ProblemError", "Term", "Wave"]
