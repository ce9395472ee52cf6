"""Copies for Weights & Biases."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from ntkrun.common.types import NonNegative
from ntkrun.loggers.base import Logger, flatten
from ntkrun.storage.atomic import write_text_atomically
from ntkrun.storage.reader import UnreadableError, read_text

NONCE = "wandb_run"


@dataclass(kw_only=True, eq=False)
class WandB(Logger):
    """Metrics, configuration and figures in Weights & Biases, by its own client.

    The run has the name of the run directory and a link to it in its configuration; a resumed run has the same
    identifier, which is made from the place of its directory, so that no received file can name another one.

    Args:
        project: the name under which runs are gathered.
        entity: the user or team; by default that of the login.
        mode: ``offline`` keeps all on this machine, for ``wandb sync``; ``online`` needs ``wandb login``.
        folder: where W&B makes its own folder ``wandb``.
        pictures: how many of the solution along the run (or time window), at equal intervals, as ``training/solution``;
            those of its end come besides.
    """

    project: str = "ntkrun"
    entity: str | None = None
    mode: Literal["offline", "online"] = "offline"
    folder: str = "outputs"
    pictures: NonNegative[int] = 10

    def check(self) -> None:
        if importlib.util.find_spec("wandb") is None:
            raise ValueError("needs the package wandb: pip install 'ntkrun[wandb]'")

    def addresses(self) -> list[str]:
        return ["wandb"] if self.mode == "online" else []

    def start(self, directory: Path, values: Mapping[str, Any], step: int) -> None:
        import wandb

        # Else W&B obeys the working directory's wandb/settings, which may name a server and have come with a run.
        wandb.setup(wandb.Settings(root_dir=str(Path.home()), silent=True))
        Path(self.folder).mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=self.project,
            entity=self.entity,
            mode=self.mode,
            dir=self.folder,
            name=directory.name,
            id=_identifier(directory, step > 0),
            config={"run_directory": directory.resolve().as_uri(), **dict(flatten(values))},
            resume="allow" if self.mode == "online" and step else None,
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._last = step

    def log(self, step: int, row: Mapping[str, float]) -> None:
        self._run.log(dict(row), step=step)
        self._last = step

    def picture(self, step: int, solution: Mapping[str, NDArray[Any]]) -> None:
        import wandb

        from ntkrun.plots.picture import solution_picture

        self._run.log({"training/solution": wandb.Image(solution_picture(solution))}, step=step)

    def finish(self, directory: Path, status: str) -> None:
        import wandb

        figures = {f"plots/{path.stem}": wandb.Image(str(path)) for path in sorted((directory / "plots").glob("*.png"))}
        self._run.log(figures, step=self._last)
        self._run.summary["status"] = status
        self._run.finish(exit_code=int(status != "completed"))


def _identifier(directory: Path, goes_on: bool) -> str:
    """An identifier for the run of a directory: the same as before where it goes on, else a new one."""
    try:
        nonce = read_text(directory / NONCE).strip() if goes_on else ""
    except UnreadableError:
        nonce = ""
    if not nonce:
        nonce = os.urandom(8).hex()
        write_text_atomically(directory / NONCE, nonce + "\n")
    return hashlib.sha256(f"{nonce} {directory.resolve().as_uri()}".encode()).hexdigest()[:16]
