"""Optimisers and learning rate schedules."""

from ntkrun.optimizer.base import GraphUpdate, Optimizer, Reevaluate, ResidualSystem, TorchOptimizer
from ntkrun.optimizer.first_order import SOAP, Adam, AdamW, GradientDescent
from ntkrun.optimizer.gauss_newton import AdamGaussNewton, GaussNewton
from ntkrun.optimizer.lbfgs import LBFGS, AdamLBFGS
from ntkrun.optimizer.schedule import Constant, Cosine, Exponential, Schedule

__all__ = [
    "LBFGS",
    "SOAP",
    "Adam",
    "AdamGaussNewton",
    "AdamLBFGS",
    "AdamW",
    "Constant",
    "Cosine",
    "Exponential",
    "GaussNewton",
    "GradientDescent",
    "GraphUpdate",
    "Optimizer",
    "Reevaluate",
    "ResidualSystem",
    "Schedule",
    "TorchOptimizer",
]
