"""Train physics-informed neural networks whose loss terms are weighted by the neural tangent kernel.

From Python:

    run = ntkrun.train(["pde=wave", "weights=exact"])   # what the command line does
    run = ntkrun.load("outputs/...")                    # a run that is there
    run.predict(points, derivatives=["u_x", "u_tt"])

The names below are loaded when they are first used, so that the command line answers at once.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location

__version__ = "0.1.0"

# Not from typing: with ``python -m ntkrun`` a file of that name in the working directory would be imported here.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from ntkrun.api import RunError, load, train
    from ntkrun.common.errors import ConfigError
    from ntkrun.experiment.trained import TrainedRun
    from ntkrun.geometry import Box
    from ntkrun.jacobian import DenseJacobian, Jacobian, PerPointJacobian, StackedJacobian, StructuredJacobian
    from ntkrun.objective import Objective
    from ntkrun.pde import PDE, Columns, Reference, Term

__all__ = [
    "PDE",
    "Box",
    "Columns",
    "ConfigError",
    "DenseJacobian",
    "Jacobian",
    "Objective",
    "PerPointJacobian",
    "Reference",
    "RunError",
    "StackedJacobian",
    "StructuredJacobian",
    "Term",
    "TrainedRun",
    "load",
    "train",
]

_HOMES = {
    **dict.fromkeys(("train", "load", "RunError"), "ntkrun.api"),
    "TrainedRun": "ntkrun.experiment.trained",
    "ConfigError": "ntkrun.common.errors",
    "Box": "ntkrun.geometry",
    **dict.fromkeys(("PDE", "Columns", "Reference", "Term"), "ntkrun.pde"),
    "Objective": "ntkrun.objective",
    **dict.fromkeys(
        ("Jacobian", "DenseJacobian", "PerPointJacobian", "StackedJacobian", "StructuredJacobian"), "ntkrun.jacobian"
    ),
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _find_menu() -> None:
    """Make the folder beside this one the package ``ntkrun.conf``, which it is once installed."""
    here = os.path.dirname(os.path.abspath(__file__))
    folder = os.path.join(os.path.dirname(here), "conf")
    if os.path.isdir(os.path.join(here, "conf")) or not os.path.isfile(os.path.join(folder, "config.yaml")):
        return
    place = os.path.join(folder, "__init__.py")
    spec = spec_from_file_location("ntkrun.conf", place, submodule_search_locations=[folder])
    assert spec is not None
    assert spec.loader is not None
    sys.modules["ntkrun.conf"] = module = module_from_spec(spec)
    spec.loader.exec_module(module)


_find_menu()
