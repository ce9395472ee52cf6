"""Solutions as moving pictures over time, from the arrays of ``solution.npz``."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib
import numpy as np
from matplotlib.animation import FFMpegWriter
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from ntkrun.plots.labels import to_scale
from ntkrun.plots.run import STYLE
from ntkrun.plots.saved import axes_of, of_a_shape
from ntkrun.plots.slices import TITLES, limits
from ntkrun.storage.atomic import write_atomically

FRAMES = 60  # the most
SECONDS = 6.0  # of the whole
CELLS = 128  # the most along an axis of a heat map
COLOURS = 128  # of the palette

Draw = Callable[[int], object]
"""Shows the node of the time axis with this number."""


def write_animation(path: Path, solution: Mapping[str, NDArray[Any]], frames: int = FRAMES) -> None:
    """Write a moving picture of prediction and solution over time: a GIF, which starts anew at its end, or an MP4.

    Curves with one space dimension; with more, heat maps over the first two, in the middle of the others.

    Args:
        path: the file; with the suffix ``.mp4`` it is made by ffmpeg, else it is a GIF.
        solution: the arrays of ``solution.npz``.
        frames: the most pictures.

    Raises:
        ValueError: there is no time, no space, or no grid; or no ffmpeg where that is needed, or it fails.
        WriteError: the file cannot be written.
    """
    coordinates = axes_of(solution)
    if "t" not in coordinates or len(coordinates) < 2:
        raise ValueError("there is no grid over space and time t to animate")
    encode = _mp4 if path.suffix == ".mp4" else _gif
    if encode is _mp4 and not FFMpegWriter.isAvailable():
        raise ValueError(f"{path.name}: MP4 files are made by ffmpeg, which is not installed; .gif needs nothing")
    times = solution["axis_t"]
    chosen = np.unique(np.linspace(0, len(times) - 1, frames).round().astype(int))
    values = {name: _by_time(solution[name], coordinates) for name in TITLES if name in solution}
    with matplotlib.rc_context(STYLE):
        figure, draw = (_curves if len(coordinates) == 2 else _maps)(solution, coordinates, values)
        title = figure.suptitle("")

        def show(k: int) -> None:
            draw(k)
            title.set_text(f"$t = {times[k]:.3f}$")

        content = encode(figure, show, chosen.tolist())
    write_atomically(path, lambda file: file.write(content))


def _gif(figure: Figure, show: Draw, moments: Sequence[int]) -> bytes:
    pictures = []
    for k in moments:
        show(k)
        pictures.append(_picture(figure))
    first, *others = pictures
    content = io.BytesIO()
    duration = max(20, round(1000 * SECONDS / len(pictures)))  # milliseconds of each
    first.save(content, format="GIF", save_all=True, append_images=others, duration=duration, loop=0)
    return content.getvalue()


def _mp4(figure: Figure, show: Draw, moments: Sequence[int]) -> bytes:
    writer = FFMpegWriter(fps=max(1, round(len(moments) / SECONDS)))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "animation.mp4"
        try:
            with writer.saving(figure, str(path), dpi=figure.dpi):
                for k in moments:
                    show(k)
                    writer.grab_frame()
            return path.read_bytes()
        except (subprocess.CalledProcessError, OSError) as error:
            raise ValueError(f"ffmpeg fails to make the MP4: {error}") from None


def _by_time(values: NDArray[Any], coordinates: list[str]) -> NDArray[Any]:
    """Values over time and at most two space coordinates, ``[times, ..., fields]``."""
    moved = np.moveaxis(values, coordinates.index("t"), 0)
    for _ in coordinates[3:]:
        moved = moved.take(moved.shape[3] // 2, axis=3)
    return moved


def _curves(solution: Mapping[str, NDArray[Any]], coordinates: list[str], values: Mapping[str, NDArray[Any]]) -> Any:
    (space,) = (c for c in coordinates if c != "t")
    x, fields = solution[f"axis_{space}"], [str(field) for field in solution["fields"]]
    figure = Figure(figsize=(5 * len(fields), 3.6), dpi=100)
    lines = []
    for i, (axes, field) in enumerate(zip(figure.subplots(1, len(fields), squeeze=False)[0], fields, strict=True)):
        for name, style in (("exact", {"color": "0.75", "linewidth": 4}), ("prediction", {"color": "C0"})):
            if name in values and np.isfinite(values[name][..., i]).any():
                (line,) = axes.plot(x, values[name][0, :, i], label=TITLES[name].lower(), **style)
                lines.append((line, values[name][..., i]))
        axes.set(xlabel=f"${space}$", ylabel=f"${field}$", ylim=limits([values["prediction"][..., i]], margin=0.05))
        axes.legend(loc="upper right")

    def draw(k: int) -> None:
        for line, table in lines:
            line.set_ydata(table[k])

    return figure, draw


def _maps(solution: Mapping[str, NDArray[Any]], coordinates: list[str], values: Mapping[str, NDArray[Any]]) -> Any:
    right, up = [c for c in coordinates if c != "t"][:2]
    x, y = solution[f"axis_{right}"], solution[f"axis_{up}"]
    fields = [str(field) for field in solution["fields"]]
    across, along = (slice(None, None, -(-len(axis) // CELLS)) for axis in (x, y))
    figure = Figure(figsize=(3.9 * len(values), 3.3 * len(fields)), dpi=90)
    images = []
    for line, field, i in zip(
        figure.subplots(len(fields), len(values), squeeze=False), fields, range(len(fields)), strict=True
    ):
        for axes, (name, table) in zip(line, values.items(), strict=True):
            part = table[:, across, along, i].swapaxes(1, 2)
            part = np.abs(part) if name == "error" else part
            low, high = limits([part if name == "error" else values["prediction"][..., i]])
            image = _map(axes, x[across], y[along], part[0], 0.0 if name == "error" else low, high, name == "error")
            if of_a_shape(part[0], right + up):
                to_scale(axes, x, y)
            axes.set(title=f"{TITLES[name]} ${field}$", xlabel=f"${right}$", ylabel=f"${up}$")
            figure.colorbar(image, ax=axes)
            images.append((image, part))

    def draw(k: int) -> None:
        for image, part in images:
            image.set_array(part[k])

    return figure, draw


def _map(
    axes: Axes, x: NDArray[Any], y: NDArray[Any], values: NDArray[Any], low: float, high: float, error: bool
) -> Any:
    axes.grid(False)
    return axes.pcolormesh(x, y, values, cmap="magma" if error else "RdBu_r", vmin=low, vmax=high)


def _picture(figure: Figure) -> Image.Image:
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return Image.open(content).convert("RGB").quantize(COLOURS)
