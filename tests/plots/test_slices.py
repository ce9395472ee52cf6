"""Cuts and curves over time, points with residuals and moving pictures, read back from what is drawn."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ntkrun.plots.animation import write_animation
from ntkrun.plots.residuals import plot_residuals
from ntkrun.plots.slices import plot_slices
from tests.plots.test_plots import image, solution


def test_curves_at_several_times() -> None:
    arrays = solution("xt", ("u", "v"))
    figure = plot_slices(arrays)["profiles"]
    left, right = figure.axes
    lines = {line.get_label(): line.get_ydata() for line in right.lines}
    assert np.array_equal(lines["$t = 0.333$"], arrays["prediction"][:, 1, 1])
    assert np.array_equal(lines["solution"], arrays["exact"][:, 0, 1])
    assert len(left.lines) == 2 * 4  # of all four nodes
    assert np.array_equal(plot_slices(solution("tx", ("u",)))["profiles"].axes[0].lines[1].get_ydata(), range(4))


def test_moments_of_a_plane() -> None:
    arrays = solution("xyt", ("u",))
    figure = plot_slices(arrays)["slices"]
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert len(panels) == 3 * 4  # prediction, solution, error
    last = panels[3]
    assert last.get_title() == "$t = 1$"
    assert (last.get_xlabel(), last.get_ylabel()) == ("$x$", "$y$")
    assert np.array_equal(image(last), arrays["prediction"][:, :, -1, 0].T)
    assert np.array_equal(image(panels[4]), arrays["exact"][:, :, 0, 0].T)
    limits = {axes.collections[0].get_clim() for axes in panels[:8]}
    assert limits == {(arrays["exact"].min(), arrays["exact"].max())}


def test_three_planes_without_time_one_figure_per_field() -> None:
    arrays = solution("xyz", ("u", "p"), known=False)
    figures = plot_slices(arrays)
    assert list(figures) == ["slices_u", "slices_p"]
    panels = [axes for axes in figures["slices_p"].axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == ["$z = 0.5$", "$y = 0.667$", "$x = 0.5$"]
    assert np.array_equal(image(panels[1]), arrays["prediction"][:, 2, :, 1].T)
    assert (panels[2].get_xlabel(), panels[2].get_ylabel()) == ("$y$", "$z$")


def test_nothing_more_to_show_of_one_or_two_space_dimensions() -> None:
    assert plot_slices(solution("x", ("u",))) == {}
    assert plot_slices(solution("xy", ("u",))) == {}


def test_points_are_coloured_by_their_residuals() -> None:
    generator = np.random.default_rng(0)
    points = {"residual": generator.random((40, 2)), "edge": np.stack([np.ones(5), np.arange(5)], axis=1)}
    sizes = {"residual": np.geomspace(1e-8, 1, 40), "edge": np.zeros(5)}
    panels = [axes for axes in plot_residuals(points, sizes, "xt").axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == ["$|r|$ of residual", "$|r|$ of edge"]
    marks = panels[0].collections[0]
    assert np.array_equal(marks.get_offsets(), points["residual"][:, ::-1])  # time runs to the right
    assert np.array_equal(marks.get_array(), sizes["residual"])
    assert marks.get_clim() == (1e-4, 1)
    (line,) = plot_residuals({"residual": points["residual"][:, :1]}, sizes, "x").axes[0].lines
    assert np.array_equal(line.get_ydata(), sizes["residual"])


@pytest.mark.parametrize(("coordinates", "width"), [("xt", 500), ("xyt", 1053)])
def test_moving_pictures(coordinates: str, width: int, tmp_path: Path) -> None:
    arrays: dict[str, Any] = solution(coordinates, ("u",))
    write_animation(tmp_path / "a.gif", arrays, frames=3)
    with Image.open(tmp_path / "a.gif") as picture:
        assert (picture.n_frames, picture.info["loop"], picture.size[0]) == (3, 0, width)
        frames = []
        for k in range(3):
            picture.seek(k)
            frames.append(np.asarray(picture.convert("RGB"), dtype=int))
    assert np.abs(frames[0] - frames[2]).max() > 100
    with pytest.raises(ValueError, match="no grid over space and time"):
        write_animation(tmp_path / "b.gif", solution("xy", ("u",)))


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="needs ffmpeg")
def test_moving_pictures_by_ffmpeg(tmp_path: Path) -> None:
    write_animation(tmp_path / "a.mp4", solution("xt", ("u",)), frames=3)
    asked = ["-count_frames", "-show_entries", "stream=codec_name,nb_read_frames,width,height", "-of", "json"]
    done = subprocess.run(["ffprobe", *asked, tmp_path / "a.mp4"], capture_output=True, text=True, check=True)
    (stream,) = json.loads(done.stdout)["streams"]
    assert stream == {"codec_name": "h264", "nb_read_frames": "3", "width": 500, "height": 360}


def test_without_ffmpeg_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="made by ffmpeg, which is not installed"):
        write_animation(tmp_path / "a.mp4", solution("xt", ("u",)))
    assert list(tmp_path.iterdir()) == []
