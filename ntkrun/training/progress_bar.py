"""The progress bar of a run: for terminals, or for notebooks."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

from tqdm import tqdm


def bar_class() -> type[tqdm[Any]]:
    """Tqdm's bar for notebooks where the process is a notebook's kernel that can show it, else that for terminals."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if hasattr(shell, "kernel") and importlib.util.find_spec("ipywidgets") is not None:
        from tqdm.notebook import tqdm as notebook_bar

        return notebook_bar
    return tqdm
