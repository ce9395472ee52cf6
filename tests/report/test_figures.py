"""What the figures show, read back from their axes."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from ntkrun.report.aggregate import Sweep, sweeps, swept_keys
from ntkrun.report.arrange import LINES, arrange
from ntkrun.report.figures import Drawing, draw
from ntkrun.report.gather import gather
from tests.report.folder import make_run


def only_sweep(directory: Path) -> Sweep:
    runs = gather([directory])
    (sweep,) = sweeps(runs, swept_keys(runs))
    return sweep


def drawings(directory: Path) -> dict[str, Drawing]:
    return {drawing.name: drawing for drawing in draw(only_sweep(directory))}


def lines(axes: Any) -> dict[str, list[tuple[float, float]]]:
    """Labelled lines as pairs of coordinates; dashed lines across keep their own ends."""
    return {
        line.get_label(): list(zip(line.get_xdata(), line.get_ydata(), strict=True))
        for line in axes.lines
        if not line.get_label().startswith("_")
    }


def panels(figure: Figure) -> list[Any]:
    return [axes for axes in figure.axes if axes.get_visible()]


def legend(figure: Figure) -> tuple[str, list[str]]:
    (found,) = figure.legends
    return found.get_title().get_text(), [entry.get_text() for entry in found.get_texts()]


def test_error_against_numbers(tmp_path: Path) -> None:
    errors = {64: (0.01, 0.02), 1: (1.0, 4.0), 8: (0.1, 0.3)}
    for width, values in errors.items():
        for seed, error in enumerate(values):
            make_run(tmp_path / f"{width}-{seed}", [f"network.width={width}", f"seed={seed}"], error=error)
    drawing = drawings(tmp_path)["poisson_error_against_swept"]
    (axes,) = panels(drawing.figure)
    (line,) = lines(axes).values()
    assert line == [(1, 2.5), (8, pytest.approx(0.2)), (64, pytest.approx(0.015))]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert list(axes.get_xticks()) == [1, 8, 64]
    assert axes.get_xlabel() == "network.width"
    (band,) = axes.collections
    corners = {tuple(point) for point in band.get_paths()[0].vertices.tolist()}
    assert corners == {(w, e) for w, values in errors.items() for e in values}
    assert not drawing.figure.legends
    assert "1: 2.5; 8: 0.2; 64: 0.015" in drawing.description


def test_close_numbers_have_a_linear_axis(tmp_path: Path) -> None:
    for width in (10, 20, 30):
        make_run(tmp_path / str(width), [f"network.width={width}"], error=width / 10)
    (axes,) = panels(drawings(tmp_path)["poisson_error_against_swept"].figure)
    assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "linear")


def test_error_against_categories(tmp_path: Path) -> None:
    for number, (name, error) in enumerate({"none": 3.0, "exact": 1.0, "sketched": 2.0}.items()):
        for seed in (0, 1):
            make_run(tmp_path / f"{number}-{seed}", [f"weights={name}", f"seed={seed}"], error=error + seed)
    (axes,) = panels(drawings(tmp_path)["poisson_error_against_swept"].figure)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["none", "exact", "sketched"]
    assert list(lines(axes).values()) == [[(0, 3.5), (1, 1.5), (2, 2.5)]]


def test_other_keys_are_lines_and_runs_without_the_key_go_across(tmp_path: Path) -> None:
    make_run(tmp_path / "0", ["weights=exact"], error=0.7)
    for size, side in itertools.product((2, 4), ("left", "right")):
        given = ["weights=sketched", f"weights.size={size}", f"weights.side={side}"]
        make_run(tmp_path / f"{size}{side}", given, error=size / 10 + (side == "left"))
    figure = drawings(tmp_path)["poisson_error_against_swept"].figure
    (axes,) = panels(figure)
    assert axes.get_xlabel() == "weights.size"
    assert lines(axes) == {
        "exact, —": [(0, 0.7), (1, 0.7)],
        "sketched, left": [(2, 1.2), (4, 1.4)],
        "sketched, right": [(2, 0.2), (4, 0.4)],
    }
    assert legend(figure) == ("weights,\nweights.side", ["exact, —", "sketched, left", "sketched, right"])


def test_runs_that_differ_in_all_keys_at_once_stand_side_by_side(tmp_path: Path) -> None:
    for width, error in ((8, 0.5), (16, 0.25)):
        make_run(tmp_path / str(width), [f"network.width={width}", f"iterations={10 * width}"], error=error)
    (axes,) = panels(drawings(tmp_path)["poisson_error_against_swept"].figure)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["8, 80", "16, 160"]
    assert list(lines(axes).values()) == [[(0, 0.5), (1, 0.25)]]


def test_curves_and_weights(tmp_path: Path) -> None:
    make_run(tmp_path / "0", ["weights=exact"], error=0.5, loss=3.0)
    make_run(tmp_path / "1", ["weights=none"], error=0.25, loss=5.0)
    (tmp_path / "1" / "weights.csv").write_text("step,seconds,update_seconds,weight/residual,weight/boundary\n")
    drawn = drawings(tmp_path)

    def data(axes: Any) -> list[tuple[list[float], list[float]]]:
        return [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]

    step, seconds = panels(drawn["poisson_loss"].figure)
    assert (step.get_xlabel(), seconds.get_xlabel()) == ("step", "seconds")
    assert data(step) == [([0, 10, 20], [30, 7, 3]), ([0, 10, 20], [30, 7, 5])]  # without the weights
    assert data(seconds) == [([0.5, 1.5, 2.5], [30, 7, 3]), ([0.5, 1.5, 2.5], [30, 7, 5])]
    assert drawn["poisson_loss"].figure.get_supylabel() == "sum of unweighted loss terms"

    step, _ = panels(drawn["poisson_error"].figure)
    assert data(step) == [([0, 10, 20], [1.5, 0.5, 0.5]), ([0, 10, 20], [1.5, 0.25, 0.25])]

    residual, boundary = panels(drawn["poisson_weights"].figure)
    assert (residual.get_title(), boundary.get_title()) == ("residual", "boundary")
    updates = ([0, 10, 15, 20], [5, 6, 7, 7])  # from weights.csv; the last holds to the end
    assert data(boundary) == [updates, ([0, 10, 20, 20], [5, 6, 7, 7])]
    assert boundary.lines[0].get_drawstyle() == "steps-post"

    (cost,) = panels(drawn["poisson_cost"].figure)
    assert lines(cost) == {"exact": [(2.5, 0.5)], "none": [(2.5, 0.25)]}
    assert legend(drawn["poisson_cost"].figure) == ("weights", ["exact", "none"])


def test_without_a_solution_the_unweighted_loss_stands_in(tmp_path: Path) -> None:
    for width, loss in ((8, 3.0), (16, 2.0)):
        make_run(tmp_path / str(width), [f"network.width={width}"], error=None, best=None, loss=loss)
    drawn = drawings(tmp_path)
    assert list(drawn) == ["poisson_loss_against_swept", "poisson_weights", "poisson_loss", "poisson_cost"]
    (axes,) = panels(drawn["poisson_loss_against_swept"].figure)
    assert list(lines(axes).values()) == [[(8, 3), (16, 2)]]


def test_one_run_with_no_error_does_not_hide_the_others(tmp_path: Path) -> None:
    for width, error in ((8, 0.5), (16, None), (32, 0.25)):
        make_run(tmp_path / str(width), [f"network.width={width}"], error=error)
    (axes,) = panels(drawings(tmp_path)["poisson_error_against_swept"].figure)
    assert list(lines(axes).values()) == [[(8, 0.5), (32, 0.25)]]


def test_many_combinations_become_panels(tmp_path: Path) -> None:
    for a, width in itertools.product(range(3), range(1, 5)):
        make_run(tmp_path / f"{a}-{width}", [f"pde.a={a}", f"network.width={width}"], error=a + width)
    figure = drawings(tmp_path)["poisson_cost"].figure
    assert [axes.get_title() for axes in panels(figure)] == ["pde.a = 0", "pde.a = 1", "pde.a = 2"]
    assert lines(panels(figure)[1]) == {str(width): [(2.5, 1 + width)] for width in range(1, 5)}
    assert legend(figure) == ("network.width", ["1", "2", "3", "4"])


def test_too_many_combinations_are_selected_and_the_caption_says_so(tmp_path: Path) -> None:
    for a in range(20):
        make_run(tmp_path / str(a), [f"pde.a={a}"], error=a + 1)
    drawing = drawings(tmp_path)["poisson_cost"]
    (axes,) = panels(drawing.figure)
    assert list(lines(axes)) == ["0", "3", "5", "8", "11", "14", "16", "19"]
    assert "Only 8 of 20 combinations are drawn; the table has all." in drawing.caption


def test_of_categories_the_best_are_selected() -> None:
    combinations = [(chr(ord("a") + k), chr(ord("z") - k)) for k in range(12)]
    arrangement = arrange(combinations, ("p", "q"), lambda values: -ord(values[0]))  # type: ignore[arg-type]
    (panel,) = arrangement.panels
    assert list(panel[1]) == combinations[-LINES:]
    assert arrangement.omitted == 12 - LINES


def test_values_are_never_read_as_formulas(tmp_path: Path) -> None:
    for k in (1, 2):
        make_run(tmp_path / str(k), [f'pde.a="${{x}}_{{{k}$"'], error=k)
    figure = drawings(tmp_path)["poisson_error_against_swept"].figure
    figure.canvas.draw()
    (axes,) = panels(figure)
    assert [label.get_text() for label in axes.get_xticklabels()] == [r"\${x}_{1\$", r"\${x}_{2\$"]


def test_failed_runs_are_missing_and_the_caption_says_so(tmp_path: Path) -> None:
    make_run(tmp_path / "0", ["network.width=8"])
    make_run(tmp_path / "1", ["network.width=16"])
    make_run(tmp_path / "2", ["network.width=32"], status="failed", message="not finite")
    drawing = drawings(tmp_path)["poisson_error_against_swept"]
    assert list(lines(panels(drawing.figure)[0]).values()) == [[(8, 0.5), (16, 0.5)]]
    assert "1 run not completed is missing." in drawing.caption


def test_not_finite_values_do_not_break_a_figure(tmp_path: Path) -> None:
    make_run(tmp_path / "0", ["network.width=8"])
    make_run(tmp_path / "1", ["network.width=16"])
    metrics = tmp_path / "1" / "metrics.csv"
    metrics.write_text(metrics.read_text().replace("20,2.5,97,2.0", "20,2.5,inf,inf"))
    drawn = drawings(tmp_path)
    step, _ = panels(drawn["poisson_loss"].figure)
    assert list(step.lines[1].get_xdata()) == [0, 10]
    for drawing in drawn.values():
        drawing.figure.canvas.draw()
