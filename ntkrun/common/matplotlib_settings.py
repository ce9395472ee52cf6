"""The settings that matplotlib starts with."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys


def import_matplotlib() -> None:
    """Import matplotlib without the ``matplotlibrc`` of the working directory, which may be that of a received run.

    Such a file chooses modules and programs to be executed. The user's own, elsewhere, is obeyed.
    """
    if "matplotlib" in sys.modules or not os.path.lexists("matplotlibrc"):
        return
    found = importlib.util.find_spec("matplotlib")
    assert found is not None
    assert found.submodule_search_locations is not None
    with contextlib.chdir(found.submodule_search_locations[0]):
        import matplotlib  # noqa: F401
