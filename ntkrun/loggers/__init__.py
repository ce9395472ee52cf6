"""Loggers: copies of the numbers of a run for other programs."""

from ntkrun.loggers.base import Guarded, Logger, TablesOnly
from ntkrun.loggers.mlflow import MLflow
from ntkrun.loggers.several import Several
from ntkrun.loggers.tensorboard import TensorBoard
from ntkrun.loggers.wandb import WandB

__all__ = ["Guarded", "Logger", "MLflow", "Several", "TablesOnly", "TensorBoard", "WandB"]
