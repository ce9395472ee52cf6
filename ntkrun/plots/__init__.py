"""Figures of runs, drawn from the files in their directories."""

from ntkrun.common.matplotlib_settings import import_matplotlib

import_matplotlib()
