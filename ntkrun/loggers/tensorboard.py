"""Copies for TensorBoard."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ntkrun.common.matplotlib_settings import import_matplotlib
from ntkrun.common.types import NonNegative
from ntkrun.loggers.base import Logger, flatten

FOLDER = "tensorboard"


@dataclass(kw_only=True, eq=False)
class TensorBoard(Logger):
    """Event files in the run directory, by ``torch.utils.tensorboard``.

    Scalars have the names of the columns; the configuration is a text, the figures are images. Look at them with
    ``tensorboard --logdir outputs``.

    Args:
        pictures: how many of the solution along the run (or time window), at equal intervals, as ``training/solution``;
            those of its end come besides.
    """

    pictures: NonNegative[int] = 10

    def check(self) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise ValueError("needs the package tensorboard: pip install 'ntkrun[tensorboard]'")

    def start(self, directory: Path, values: Mapping[str, Any], step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # Rows after the checkpoint that a run resumes from are hidden by purge_step.
        self._writer: Any = SummaryWriter(str(directory / FOLDER), purge_step=step or None)
        if not step:
            lines = [f"run directory: {directory}", "", *(f"    {key}: {text}" for key, text in flatten(values))]
            self._writer.add_text("configuration", "\n".join(lines))

    def log(self, step: int, row: Mapping[str, float]) -> None:
        for name, value in row.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, step: int, solution: Mapping[str, NDArray[Any]]) -> None:
        from ntkrun.plots.picture import solution_picture

        self._writer.add_image("training/solution", solution_picture(solution), step, dataformats="HWC")

    def flush(self) -> None:
        self._writer.flush()

    def finish(self, directory: Path, status: str) -> None:
        import_matplotlib()
        from matplotlib import image

        for path in sorted((directory / "plots").glob("*.png")):
            self._writer.add_image(path.stem, image.imread(path)[..., :3], dataformats="HWC")
        self._writer.add_text("status", status)
        self._writer.close()
