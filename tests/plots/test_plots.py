"""What the figures show, read back from their axes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from ntkrun.plots.labels import Powers
from ntkrun.plots.residuals import plot_residuals
from ntkrun.plots.run import (
    plot_coefficients,
    plot_damping,
    plot_error,
    plot_losses,
    plot_run,
    plot_scattered,
    plot_solution,
    plot_weights,
)
from ntkrun.plots.slices import plot_slices


def solution(coordinates: str, fields: tuple[str, ...], known: bool = True) -> dict[str, Any]:
    """Axes of different lengths; every field is the sum of its coordinates' indices, times 1, 2, ..."""
    shape = [3 + i for i in range(len(coordinates))]
    arrays: dict[str, Any] = {f"axis_{c}": np.linspace(0, 1, n) for c, n in zip(coordinates, shape, strict=True)}
    values = np.indices(shape).sum(0)[..., None] * np.arange(1.0, len(fields) + 1)
    arrays |= {"fields": np.array(fields), "prediction": values}
    if known:
        arrays |= {"exact": values - 1, "error": np.ones_like(values)}
    return arrays


def image(axes: Any) -> Any:
    return np.ma.filled(axes.collections[0].get_array(), np.nan)


@pytest.mark.parametrize(("coordinates", "right", "up"), [("xt", "t", "x"), ("xy", "x", "y")])
def test_time_runs_to_the_right(coordinates: str, right: str, up: str) -> None:
    arrays = solution(coordinates, ("u",))
    figure = plot_solution(arrays)
    panel = figure.axes[0]
    assert (panel.get_xlabel(), panel.get_ylabel()) == (f"${right}$", f"${up}$")
    values = arrays["prediction"][..., 0]
    assert np.array_equal(image(panel), values if right == "t" else values.T)


def test_fields_that_are_not_known_are_named() -> None:
    arrays = solution("xy", ("u", "p"))
    arrays["exact"][0, 0, 0] = np.nan
    arrays["exact"][..., 1] = np.nan
    figure = plot_solution(arrays)
    panels = {axes.get_title(): axes for axes in figure.axes}
    assert panels["Solution $u$"].collections[0].get_clim() == (0.0, arrays["exact"][..., 0][1:].max())
    assert panels["Prediction $p$"].collections[0].get_clim() == (0.0, 2 * 5.0)
    for title in ("Solution $p$", "Absolute error $p$"):
        assert not panels[title].collections
        assert [text.get_text() for text in panels[title].texts] == ["not known"]


def test_more_dimensions_are_cut() -> None:
    arrays = solution("xyzt", ("u",), known=False)
    figure = plot_solution(arrays)
    assert np.array_equal(image(figure.axes[0]), arrays["prediction"][:, :, 2, 5, 0].T)
    assert figure.get_suptitle() == "at $z = 0.5$, $t = 1$"


def test_curves_in_one_dimension() -> None:
    arrays = solution("x", ("u", "v"))
    figure = plot_solution(arrays)
    exact, prediction = figure.axes[0].lines
    assert np.array_equal(exact.get_ydata(), arrays["exact"][:, 0])
    assert np.array_equal(prediction.get_ydata(), arrays["prediction"][:, 0])


def test_heat_maps_have_no_more_cells_than_can_be_seen() -> None:
    arrays: dict[str, Any] = {"axis_x": np.linspace(0, 1, 1200), "axis_y": np.linspace(0, 1, 5)}
    arrays |= {"fields": np.array(["u"]), "prediction": np.arange(6000.0).reshape(1200, 5, 1)}
    shown = image(plot_solution(arrays).axes[0])
    assert np.array_equal(shown, arrays["prediction"][::3, :, 0].T)


@pytest.mark.parametrize(("coordinates", "wide"), [("xy", 2.0), ("xy", 9.0), ("xt", 2.0), ("xyt", 2.0)])
@pytest.mark.parametrize("holes", [True, False], ids=["shape", "box"])
def test_shapes_are_drawn_to_scale(coordinates: str, wide: float, holes: bool) -> None:
    """A round hole is round; boxes, whose coordinates may be of any kind, times and slim channels fill their panels."""
    arrays = solution(coordinates, ("u",))
    arrays["axis_x"] = wide * arrays["axis_x"]
    for name in ("prediction", "exact", "error") if holes else ():
        arrays[name][1, 1] = np.nan
    corners = np.array([[0.0, 0.0, 0.0], [wide, 1.0, 1.0]])[:, : len(coordinates)]
    rim = np.concatenate([corners[:1], np.full((1, 2), 50.0)], axis=1)  # with normals
    points, sizes = {"inside": corners, "flat": rim}, {"inside": np.ones(2), "flat": np.ones(1)}
    figures = [plot_solution(arrays), plot_residuals(points, sizes, list(coordinates), shape=holes)]
    figures += [plot_slices(arrays)["slices"]] if coordinates == "xyt" else []
    for figure in figures:
        panels = [axes for axes in figure.axes if axes.get_xlabel() in ("$x$", "$y$") and axes.collections]
        scaled = holes and coordinates != "xt" and wide < 8
        assert {axes.get_aspect() for axes in panels} <= {1.0 if scaled else "auto"}
        assert panels or coordinates == "xt"


@pytest.mark.parametrize("known", [True, False])
def test_scattered_points(known: bool) -> None:
    exact = np.random.default_rng(0).standard_normal((50, 2))
    error = np.geomspace(1e-3, 1, 50)[::-1, None] * np.ones(2)
    arrays: dict[str, Any] = {
        "points": np.random.default_rng(1).random((50, 5)),
        "coordinates": np.array(list("abcde")),
    }
    arrays |= {"fields": np.array(["u", "v"]), "prediction": exact + error}
    if known:
        arrays |= {"exact": exact, "error": error}
    panels = plot_scattered(arrays).axes
    if not known:
        assert (panels[0].get_xlabel(), panels[0].get_ylabel()) == ("$a$", "$b$")
        assert np.array_equal(panels[0].collections[0].get_array(), arrays["prediction"][:, 0])
        return
    points = panels[2].lines[0]  # of v
    assert np.array_equal(points.get_xdata(), exact[:, 1])
    assert np.array_equal(points.get_ydata(), arrays["prediction"][:, 1])
    share = panels[3].lines[0]
    assert np.allclose(share.get_xdata(), np.geomspace(1e-3, 1, 50))
    assert share.get_ydata()[[0, -1]].tolist() == [1 / 50, 1]
    assert panels[3].get_xscale() == "log"


def test_errors_of_several_fields_and_losses_at_held_out_points() -> None:
    metrics = pd.DataFrame({"step": [0, 10, 20], "loss": [4.0, 3.0, 2.0], "loss/residual": [2.0, 1.5, 1.0]})
    metrics["held_out_loss"] = [5.0, np.nan, 3.0]
    metrics["error/rel_l2"] = [0.5, np.nan, 0.25]
    metrics["error/p"], metrics["error/v"], metrics["error/w"] = [0.4, np.nan, 0.1], [0.9, np.nan, 0.8], np.nan
    curves = {line.get_label(): line for line in plot_error(metrics).axes[0].lines}
    assert list(curves) == ["$p$", "$v$", "all fields"]
    assert curves["$v$"].get_xydata().tolist() == [[0, 0.9], [20, 0.8]]
    assert curves["all fields"].get_xydata().tolist() == [[0, 0.5], [20, 0.25]]
    (held_out,) = [line for line in plot_losses(metrics).axes[0].lines if "held-out" in str(line.get_label())]
    assert held_out.get_xydata().tolist() == [[0, 5], [20, 3]]
    alone = plot_error(metrics[["step", "error/rel_l2"]]).axes[0]
    assert len(alone.lines) == 1
    assert alone.get_legend() is None


def test_gauss_newton_steps_are_drawn(tmp_path: Path) -> None:
    """Where there is a table of them with rows."""
    (tmp_path / "metrics.csv").write_text(
        "step,seconds,loss,loss/a,weight/a,error/rel_l2,lr\n0,0,4,4,1,,\n2,0,1,1,1,,\n"
    )
    (tmp_path / "weights.csv").write_text("step,seconds,update_seconds,weight/a\n")
    assert "damping.png" not in {path.name for path in plot_run(tmp_path)}
    steps = "step,loss,damping,trials,gain_ratio,step_length\n0,4,1e-2,1,0.9,0.1\n1,2,1e-3,2,0.8,0.2\n"
    (tmp_path / "steps.csv").write_text(steps)
    assert {"damping.png", "damping.pdf"} <= {path.name for path in plot_run(tmp_path)}
    panels = plot_damping(pd.read_csv(tmp_path / "steps.csv")).axes
    assert [axes.get_ylabel() for axes in panels] == ["damping", "step length", "gain ratio"]
    assert panels[2].lines[0].get_ydata().tolist() == [0.9, 0.8]


def test_names_are_never_formulas() -> None:
    """A name with the sign of formulas in it is drawn as it is."""
    table = pd.DataFrame({"step": [0, 1], "loss": [2.0, 1.0], "error/rel_l2": [1.0, 0.5]})
    for kind in ("loss", "weight", "coefficient"):
        table[f"{kind}/cost$_a$"] = [2.0, 1.0]
    figures = [plot_losses(table), plot_weights(table, table), plot_coefficients(table, {})]
    for figure in figures:
        figure.draw_without_rendering()
        said = [text.get_text() for axes in figure.axes for text in axes.get_legend().get_texts()]
        assert r"cost\$_a\$" in [*said, figure.axes[0].get_ylabel()]
    points, sizes = {"cost$_a$": np.array([[0.0], [1.0]])}, {"cost$_a$": np.array([1.0, 2.0])}
    figure = plot_residuals(points, sizes, ["x"])
    figure.draw_without_rendering()
    assert figure.axes[0].get_title() == r"$|r|$ of cost\$_a\$"


@pytest.mark.parametrize(
    ("low", "high", "minor", "labels"),
    [(1e-5, 1e3, False, ["10⁻⁵", "10⁻³", "10⁻¹", "10¹", "10³"]), (1.5e-3, 9e-3, True, ["2\u00d710⁻³", "3\u00d710⁻³"])],
)
def test_powers_of_ten_are_plain_text(low: float, high: float, minor: bool, labels: list[str]) -> None:
    axes = Figure().subplots()
    axes.semilogy([low, high])
    axes.yaxis.set_major_formatter(Powers())
    axes.yaxis.set_minor_formatter(Powers())
    axes.figure.draw_without_rendering()
    shown = [label.get_text() for label in axes.get_yticklabels(minor=minor)]
    assert set(labels) <= set(shown)
    assert not any("$" in label for label in shown)
