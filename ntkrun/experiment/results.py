"""Results of a run besides its tables and checkpoint."""

from __future__ import annotations

import csv
import json
import math
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ntkrun import __version__
from ntkrun.config.schema import Settings
from ntkrun.network import coefficient_values
from ntkrun.objective import Objective
from ntkrun.objective.uncertainty import coefficient_errors
from ntkrun.pde import PDE
from ntkrun.storage.atomic import write_atomically, write_text_atomically, writing
from ntkrun.storage.summary import SUMMARY, read_summary
from ntkrun.training.collocation import PointSource
from ntkrun.training.evaluation import Evaluator, Interrupted
from ntkrun.training.progress import Progress
from ntkrun.training.time_marching import chosen, growing
from ntkrun.training.trainer import Trainer


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        status: ``completed``, ``failed`` or ``interrupted``, and ``running`` until then.
        exit_status: for the shell.
        message: one line about a failure or an interruption.
    """

    status: str
    exit_status: int = 0
    message: str = ""


def write_points(points: PointSource, directory: Path) -> None:
    """Write ``points.npz``: the points in use, ``[N_i, d + k_i]`` by term."""
    arrays: dict[str, Any] = {name: x.numpy() for name, x in points.points.items()}
    write_atomically(directory / "points.npz", lambda file: np.savez(file, **arrays))


def write_residuals(points: PointSource, objective: Objective, directory: Path) -> None:
    """Write ``residuals.npz``: by term the sizes of the residuals at the points in use, ``[N_i]``.

    Of several residuals per point it is the root of the sum of their squares. Point weights have no part in it. Nothing
    is written where there are no points yet.
    """
    if not points.batch:
        return
    with torch.no_grad():
        rows = objective.alone().residuals(points.batch)
    arrays: dict[str, Any] = {
        name: row.view(-1, len(points.points[name])).norm(dim=0).numpy(force=True)
        for name, row in zip(objective.names, rows, strict=True)
    }
    write_atomically(directory / "residuals.npz", lambda file: np.savez(file, **arrays))


def write_solution(evaluator: Evaluator, pde: PDE, directory: Path, interrupted: Interrupted) -> None:
    """Write ``solution.npz``, the arrays of ``Solution.arrays``.

    Raises:
        EvaluationStopped: it was interrupted; nothing is written.
    """
    arrays: dict[str, Any] = evaluator.solution(interrupted).arrays(pde)
    write_atomically(directory / "solution.npz", lambda file: np.savez_compressed(file, **arrays))


def remove_solution(directory: Path) -> None:
    """Remove ``solution.npz``, where there is one."""
    with writing(directory / "solution.npz"):
        (directory / "solution.npz").unlink(missing_ok=True)


def achieved(directory: Path) -> float:
    """What a completed run has achieved, smaller being better: its relative L2 error at the end.

    Where the solution is not known, the sum of the unweighted losses in the last row of ``metrics.csv``; infinity where
    that is missing, too.
    """
    error = read_summary(directory).get("rel_l2", {}).get("final")
    if error is not None:
        return float(error)
    try:
        with open(directory / "metrics.csv", encoding="utf-8", newline="") as file:
            *_, last = csv.DictReader(file)
        return sum(float(value) for column, value in last.items() if column.startswith("loss/"))
    except (OSError, ValueError):
        return math.inf


def write_failure(directory: Path, outcome: Outcome) -> None:
    """Record a failure in ``summary.json``, for a run that did not come so far as to write one."""
    summary = {**read_summary(directory), "status": outcome.status, "message": outcome.message}
    write_text_atomically(directory / SUMMARY, json.dumps(summary, indent=2) + "\n")


def write_summary(settings: Settings, trainer: Trainer, outcome: Outcome, directory: Path, configuration: str) -> None:
    """Write ``summary.json``; numbers that are not finite become null.

    Args:
        settings: of the run.
        trainer: of the run.
        outcome: how it ended, or that it is ``running``.
        directory: the run directory.
        configuration: the ``fingerprint`` of the configuration.
    """
    progress, objective = trainer.progress, trainer.objective
    summary = {
        "status": outcome.status,
        "message": outcome.message,
        "step": progress.total_steps,
        "iterations": _iterations(settings, trainer),
        "rel_l2": {
            "final": progress.error,
            "final_step": None if progress.error is None else progress.error_step,
            "best": progress.best_error,
            "best_step": None if progress.best_error is None else progress.best_step,
            **_by_field(objective.pde.fields, progress),
        },
        **_held_out(progress),
        **_coefficients(trainer, outcome),
        "seconds": {**progress.seconds, "total": progress.elapsed},
        "weight_updates": progress.updates,
        "parameters": objective.layout.size,
        "kernel_route": objective.route,
        "weights": dict(zip(objective.names, trainer.weighting.weights.tolist(), strict=True)),
        **({} if growing(objective.pde) is None else {"growing_time": growing(objective.pde)}),
        **_windows(trainer),
        "configuration": configuration,
        "seed": settings.seed,
        "threads": torch.get_num_threads(),
        "processes": objective.ranks.count,
        "device": str(objective.like.device),
        "dtype": settings.dtype,
        "versions": {
            "ntkrun": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "numpy", "hydra-core", "omegaconf")},
        },
        "git_commit": _git_commit(),
    }
    write_text_atomically(directory / SUMMARY, json.dumps(_finite(summary), indent=2, allow_nan=False) + "\n")


def _windows(trainer: Trainer) -> dict[str, list[float]]:
    """The ends of time windows that the run has chosen, where there are such."""
    ends = trainer.progress.ends
    return {"window_ends": list(ends)} if chosen(trainer.parts.pde.domain, ends) else {}


def _iterations(settings: Settings, trainer: Trainer) -> int:
    """The length of the run, as far as it is known."""
    if trainer.parts.ends:
        return trainer.progress.first_step + trainer.loop.iterations
    return settings.iterations * settings.equal_windows


def _by_field(fields: Sequence[str], progress: Progress) -> dict[str, Any]:
    """Final and best errors of every field, where there are several."""
    if len(fields) < 2:
        return {}
    final, best = (dict(zip(fields, errors, strict=False)) for errors in (progress.errors, progress.best_errors))
    return {"fields": {field: {"final": final.get(field), "best": best.get(field)} for field in fields}}


def _coefficients(trainer: Trainer, outcome: Outcome) -> dict[str, Any]:
    """The unknown coefficients: value, true value where it is known, and standard error once the run has ended."""
    objective, batch, errors = trainer.objective, trainer.points.batch, dict[str, float | None]()
    values = coefficient_values(objective.network)
    ended = outcome.status in ("completed", "interrupted") and bool(batch)
    if values and ended:
        errors = coefficient_errors(objective.alone(), batch)
    coefficients = {
        c.name: {"value": values[c.name], "standard_error": errors.get(c.name), "true": c.true}
        for c in objective.pde.coefficients
    }
    return {"coefficients": coefficients} if coefficients else {}


def _held_out(progress: Progress) -> dict[str, Any]:
    """Weighted losses at held-out points, where they stand for errors."""
    if progress.held_out is None:
        return {}
    final = {"final": progress.held_out, "final_step": progress.error_step}
    return {"held_out_loss": {**final, "best": progress.best_held_out, "best_step": progress.best_step}}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _git_commit() -> str | None:
    """The commit of the source this program runs from, if it is a checkout; ``-dirty`` with changes."""
    here = Path(__file__).resolve()

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here.parent), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None
