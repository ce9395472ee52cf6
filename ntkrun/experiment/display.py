"""A run as a table and a figure, for notebooks."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ntkrun.common.matplotlib_settings import import_matplotlib

STYLE = "text-align:left;padding:0.1em 1em 0.1em 0"


def as_html(directory: Path, problem: str, config: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    """A table of what a run is and how it ended, and its solution where there is one.

    Args:
        directory: the run directory.
        problem: its name.
        config: its configuration.
        summary: the content of its ``summary.json``.
    """
    rows = "".join(
        f'<tr><th scope="row" style="{STYLE}">{html.escape(name)}</th>'
        f'<td style="text-align:left">{html.escape(value)}</td></tr>'
        for name, value in _rows(directory, problem, config, summary)
    )
    picture = _solution(directory)
    figure = f'<img alt="prediction" style="max-width:100%" src="data:image/png;base64,{picture}">' if picture else ""
    return f"<table>{rows}</table>{figure}"


def _rows(
    directory: Path, problem: str, config: Mapping[str, Any], summary: Mapping[str, Any]
) -> list[tuple[str, str]]:
    message = f": {summary['message']}" if summary.get("message") else ""
    rows = [
        ("problem", problem),
        ("network", f"{_kind(config, 'network')}, {summary.get('parameters', 'unknown')} parameters"),
        ("weights", _kind(config, "weights")),
        ("optimizer", _kind(config, "optimizer")),
        ("status", f"{summary.get('status', 'unknown')}{message}"),
        ("steps", f"{summary.get('step', 'unknown')} of {summary.get('iterations', 'unknown')}"),
    ]
    for name, key in (("relative L2 error", "rel_l2"), ("held-out loss", "held_out_loss")):
        known = summary.get(key)
        if isinstance(known, Mapping) and isinstance(known.get("final"), int | float):
            rows.append((name, f"{known['final']:.3e}"))
    seconds = summary.get("seconds")
    if isinstance(seconds, Mapping) and isinstance(seconds.get("training"), int | float):
        rows.append(("training", f"{seconds['training']:.2f} s"))
    return [*rows, ("directory", str(directory))]


def _kind(config: Mapping[str, Any], group: str) -> str:
    return str(config.get(group, {}).get("_target_", "unknown")).rpartition(".")[2]


def _solution(directory: Path) -> str:
    """The figure of ``solution.npz`` as PNG in Base64; empty where there is none that can be drawn."""
    if not (directory / "solution.npz").exists():
        return ""
    import_matplotlib()
    import matplotlib

    from ntkrun.plots.run import STYLE, plot_solution
    from ntkrun.plots.saved import read_solution

    try:
        solution = read_solution(directory)
    except ValueError:
        return ""
    content = io.BytesIO()
    with matplotlib.rc_context({**STYLE, "figure.dpi": 80}):
        figure = plot_solution(solution)
        figure.savefig(content, format="png")
    return base64.b64encode(content.getvalue()).decode()
