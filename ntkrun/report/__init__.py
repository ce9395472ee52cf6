"""Reports: several runs side by side.

Heavy imports come late: the command's help must answer at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class ReportError(ValueError):
    """There is nothing to report on, or no place for it."""


def write_report(directories: Sequence[Path], output: Path) -> Path:
    """Gather runs into tables, figures and one self-contained page.

    Args:
        directories: searched for run directories, themselves included; broken runs are listed in the report.
        output: receives ``index.html``, ``runs.csv``, ``groups.csv`` and ``figures/``; made where it is missing.

    Returns:
        The path of ``index.html``.

    Raises:
        ReportError: there are no run directories.
        WriteError: the report cannot be written.
    """
    from ntkrun.common.matplotlib_settings import import_matplotlib

    import_matplotlib()  # before anything imports it by itself
    from ntkrun.report.write import write

    return write(directories, output)
