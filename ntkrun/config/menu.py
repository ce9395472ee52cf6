"""What the menu's list of defaults asks of the package."""

from __future__ import annotations

from importlib.resources import files

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

OTHER = "other"
"""Stands in the name of a tuned file for problems that are not on the menu; there is no such file."""


def of_menu(optimizer: str, pde: str) -> str:
    """The optimiser, whose tuned settings of the menu's problems apply, or ``OTHER`` for a problem of the user's own.

    Files of the menu say how often first-order optimisers want other points; what a user's file says is meant for any.

    Args:
        optimizer: the choice of that group.
        pde: likewise; a name of the menu is the menu's, whatever directories are searched besides.
    """
    return optimizer if (files("ntkrun.conf") / "pde" / f"{pde}.yaml").is_file() else OTHER


def open_mappings() -> DictConfig:
    """Mappings whose keys are the user's own: Hydra takes new ones of these without a plus before them.

    Misspelt names of loss terms and references to no value are found where they are used.
    """
    node = OmegaConf.create({"pde": {"points": {}}, "let": {}})
    for mapping in (node.pde.points, node.let):
        OmegaConf.set_struct(mapping, False)
    return node


OmegaConf.register_new_resolver("ntkrun.of_menu", of_menu, replace=True)
ConfigStore.instance().store("open", open_mappings())
