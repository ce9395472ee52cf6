"""The closing table of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ntkrun.experiment.results import Outcome
from ntkrun.storage.summary import read_summary

KINDS = ("final", "best")


def print_closing(directory: Path, outcome: Outcome) -> None:
    """Print the table to standard output, with the run directory as the last line.

    Args:
        directory: the run directory, with its ``summary.json``.
        outcome: how the run ended.
    """
    summary = read_summary(directory)
    status = outcome.status + (f": {outcome.message}" if outcome.message else "")
    if summary.get("status") != outcome.status:  # it could not be written
        print(f"status  {status}\n{directory}")
        return
    seconds = summary["seconds"]
    updates = summary["weight_updates"]
    rows = [
        ("status", status),
        ("steps", f"{summary['step']} of {summary['iterations']}"),
        *_error_rows(summary["rel_l2"], "final"),
        *(_error_rows(summary["rel_l2"], "best") if summary["rel_l2"]["best"] else []),
        *_held_out_rows(summary.get("held_out_loss")),
        *((f"coefficient {name}", _coefficient(**each)) for name, each in summary.get("coefficients", {}).items()),
        *([("compilation", f"{seconds['compilation']:.2f} s")] if seconds["compilation"] else []),
        ("training", f"{seconds['training']:.2f} s"),
        ("weight updates", _updates(updates, seconds["weight_updates"])),
        *([("diagnostics", f"{seconds['diagnostics']:.2f} s")] if seconds["diagnostics"] >= 0.005 else []),
        ("evaluation", f"{seconds['evaluation']:.2f} s"),
        ("logging", f"{seconds['logging']:.2f} s"),
        ("saving", f"{seconds['saving']:.2f} s"),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")
    print(directory)


def print_line(number: int, directory: Path, outcome: Outcome) -> None:
    """Print one line about a job of a sweep to standard output."""
    summary = read_summary(directory)
    error = summary.get("rel_l2", {}).get("final")
    about = [outcome.message] if outcome.message else []
    if error is not None and summary["status"] == outcome.status:  # else it is what an earlier run has left
        about.insert(0, f"relative L2 error {error:.3e}")
    print(f"job {number} {outcome.status}: {', '.join([*about, str(directory)])}", flush=True)


def _updates(count: int, seconds: float) -> str:
    number = f"{count} update{'s' * (count != 1)}"
    return f"{number}, within compiled steps" if count and not seconds else f"{seconds:.2f} s ({number})"


def _error_rows(errors: Mapping[str, Any], which: str) -> list[tuple[str, str]]:
    """The final or best error, and those of single fields where there are several."""
    each = {field: values[which] for field, values in errors.get("fields", {}).items()}
    rows = [(f"relative L2 error, {which}", _error(errors[which], errors[f"{which}_step"]))]
    return rows + [(f"  of {field}", f"{value:.3e}") for field, value in each.items() if value is not None]


def _held_out_rows(losses: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Losses at held-out points, where they stand for errors."""
    return (
        [(f"held-out loss, {which}", _error(losses[which], losses[f"{which}_step"])) for which in KINDS]
        if losses
        else []
    )


def _coefficient(value: float | None, standard_error: float | None, true: float | None) -> str:
    if value is None:
        return "not finite"
    error = "" if standard_error is None else f" ± {standard_error:.1e}"
    return f"{value:.6g}{error}" + ("" if true is None else f" (true {true:.6g})")


def _error(value: float | None, step: int | None) -> str:
    return "unknown" if value is None else f"{value:.3e} at step {step}"
