"""The page of ``ntkrun-watch``: a file with the curves of a run, which loads itself anew while the run is going."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ntkrun.common.matplotlib_settings import import_matplotlib
from ntkrun.storage.atomic import write_text_atomically

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
{%- if seconds is not none %}
<meta http-equiv="refresh" content="{{ seconds }}">
{%- endif %}
<title>{{ headline }}</title>
<style>body { font: 15px sans-serif; margin: 2em auto; max-width: 60em } svg { max-width: 100%; height: auto }</style>
</head>
<body>
<h1 style="font-size: 1.1em">{{ headline }}</h1>
{%- for figure in figures %}
{{ figure }}
{%- endfor %}
</body>
</html>
"""


def write_page(path: Path, headline: str, table: pd.DataFrame, every: float | None) -> None:
    """Write the page, as a whole, so that a browser never finds half of it.

    Args:
        path: the file.
        headline: a line about the run.
        table: ``metrics.csv`` or a part of it, with ``step``, ``loss`` and perhaps ``error/rel_l2``.
        every: seconds until the browser loads it anew; ``None`` where the run has ended.

    Raises:
        WriteError: it cannot be written.
    """
    import_matplotlib()
    import matplotlib

    from ntkrun.plots.run import STYLE, plot_error, plot_losses

    with matplotlib.rc_context(STYLE):
        figures = [plot_losses(table)] if len(table) else []
        if "error/rel_l2" in table and table["error/rel_l2"].notna().any():
            figures.append(plot_error(table))
        pictures = [_svg(figure) for figure in figures]
    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(PAGE)
    seconds = None if every is None else max(1, round(every))
    write_text_atomically(path, page.render(headline=headline, seconds=seconds, figures=pictures))


def _svg(figure: Figure) -> Markup:
    """A figure as an element of a page; matplotlib escapes the names in it."""
    content = io.StringIO()
    figure.savefig(content, format="svg", metadata={"Date": None})
    text = content.getvalue()
    return Markup(text[text.index("<svg") :])
