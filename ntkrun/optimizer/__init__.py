"""Optimisers and learning rate schedules."""

from ntkrun.optimizer.first_order import Adam, GradientDescent, Optimizer
from ntkrun.optimizer.schedule import Constant, Cosine, Exponential, Schedule

__all__ = ["Adam", "Constant", "Cosine", "Exponential", "GradientDescent", "Optimizer", "Schedule"]
