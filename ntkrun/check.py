"""Checking a configuration before its run directory is made."""

from __future__ import annotations

from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from ntkrun.config import ConfigError, plain
from ntkrun.refusal import refuse
from ntkrun.run import assemble


class CheckBeforeStart(Callback):
    """Hydra callback that refuses what cannot run; Hydra calls it before it makes the run directory."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Leave with exit status 2 where the configuration cannot be used."""
        try:
            assemble(own_values(config))
        except ConfigError as error:
            refuse(error)
        except (RuntimeError, MemoryError, OverflowError) as error:
            refuse(f"the run cannot be set up: {str(error).splitlines()[0]}")


def own_values(config: DictConfig) -> dict[str, Any]:
    """The configuration without Hydra's own node, as plain values."""
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    assert isinstance(own, DictConfig)
    return plain(own)
