"""Loggers: copies of the numbers of a run for other programs."""

from ntkrun.loggers.base import Guarded, Logger, TablesOnly
from ntkrun.loggers.mlflow import MLflow
from ntkrun.loggers.tensorboard import TensorBoard

__all__ = ["Guarded", "Logger", "MLflow", "TablesOnly", "TensorBoard"]
