"""Run directories written by hand."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

DEFAULTS: dict[str, Any] = {
    "pde": {"_target_": "ntkrun.pde.Poisson", "a": 4},
    "network": {"_target_": "ntkrun.network.MLP", "width": 64},
    "weights": {"_target_": "ntkrun.weights.Exact", "update_every": 100},
    "iterations": 20,
    "seed": 0,
    "plots": True,
}
CHOICES = {"pde": "poisson", "network": "mlp", "weights": "exact"}
METRICS = ["step", "seconds", "loss", "loss/residual", "loss/boundary", "weight/residual", "weight/boundary"]
METRICS += ["error/rel_l2", "lr"]
UPDATES = ["step", "seconds", "update_seconds", "weight/residual", "weight/boundary"]


def make_run(
    directory: Path,
    overrides: Sequence[str] = (),
    *,
    error: float | None = 0.5,
    best: float | None = 0.25,
    training: float = 2.0,
    updates: float = 0.5,
    loss: float = 3.0,
    status: str = "completed",
    message: str = "",
    targets: Mapping[str, Mapping[str, Any]] | None = None,
) -> Path:
    """A run of 20 steps; ``targets`` gives the configurations of choices that are not the default."""
    values, choices = copy.deepcopy(DEFAULTS), dict(CHOICES)
    for override in overrides:
        key, _, value = override.partition("=")
        if key in choices:
            choices[key] = value
            if value != CHOICES[key]:
                values[key] = dict((targets or {}).get(value, {"_target_": f"own.{value}"}))
            continue
        node = values
        *groups, name = key.split(".")
        for group in groups:
            node = node[group]
        node[name] = yaml.safe_load(value)
    hydra = directory / ".hydra"
    hydra.mkdir(parents=True)
    (hydra / "config.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    (hydra / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
    chosen = {**choices, "tuned/weights": f"adam/{choices['weights']}", "hydra/launcher": "basic"}
    (hydra / "hydra.yaml").write_text(yaml.safe_dump({"hydra": {"runtime": {"choices": chosen}}}))
    summary = {
        "status": status,
        "message": message,
        "step": 20,
        "iterations": values["iterations"],
        "rel_l2": {"final": error, "final_step": 20, "best": best, "best_step": 10},
        "seconds": {"training": training, "weight_updates": updates, "evaluation": 7.0, "total": 20.0},
    }
    (directory / "summary.json").write_text(json.dumps(summary))
    shown = "" if error is None else error
    rows = [
        [0, 0.5, 99, 10, 20, 1, 5, "" if error is None else 1.5, 0.1],
        [10, 1.5, 98, 5, 2, 1, 6, shown, 0.1],
        [20, 2.5, 97, loss - 1, 1, 1, 7, shown, 0.0],
    ]
    write_csv(directory / "metrics.csv", METRICS, rows)
    write_csv(directory / "weights.csv", UPDATES, [[0, 0.1, 0.2, 1, 5], [10, 1.1, 0.3, 1, 6], [15, 1.9, 0.3, 1, 7]])
    return directory


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in [columns, *rows]))
