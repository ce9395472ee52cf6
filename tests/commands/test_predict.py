"""Predictions at points of a table and on grids, against what the runs themselves have saved."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import ntkrun
from ntkrun.commands import export, predict, watch

TINY = [
    *("optimizer=adam", "network.width=6", "network.depth=2", "plots=false", "progress=false", "iterations=5"),
    *("pde.grid=7", "log_every=5"),
]
RUNS = {
    "wave": ["pde=wave", "dtype=float64", "pde.hard_boundary=true"],
    "windows": ["pde=diffusion", "dtype=float64", "time_windows=3"],
    "system": ["pde=cavity", "dtype=float32"],
}


def command(main: Callable[[list[str]], NoReturn], *arguments: object) -> tuple[object, str, str]:
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr), pytest.raises(SystemExit) as leaving:
        main([str(argument) for argument in arguments])
    return leaving.value.code, stdout.getvalue(), stderr.getvalue()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    top = tmp_path_factory.mktemp("runs")
    return {name: ntkrun.train([*own, *TINY, f"hydra.run.dir={top / name}"]).directory for name, own in RUNS.items()}


def saved(run: Path) -> dict[str, np.ndarray]:
    with np.load(run / "solution.npz") as file:
        return dict(file)


def nodes(solution: dict[str, np.ndarray]) -> pd.DataFrame:
    axes = {name.removeprefix("axis_"): axis for name, axis in solution.items() if name.startswith("axis_")}
    grid = np.meshgrid(*axes.values(), indexing="ij")
    return pd.DataFrame({c: values.ravel() for c, values in zip(axes, grid, strict=True)})


@pytest.mark.parametrize("name", RUNS)
def test_values_at_the_nodes_are_those_of_the_run(name: str, runs: dict[str, Path], tmp_path: Path) -> None:
    """Hard constraints, time windows, several fields and both precisions, through text and back."""
    solution = saved(runs[name])
    points = nodes(solution)[::-1]  # the order is that of the file
    points["note"] = "any"
    points.to_csv(tmp_path / "points.csv", index=False)
    status, stdout, stderr = command(predict.main, runs[name], "--points", tmp_path / "points.csv")
    assert (status, stderr) == (0, "")
    header, *rows = stdout.splitlines()
    values = pd.DataFrame([list(map(float, row.split(","))) for row in rows], columns=header.split(","))
    fields = [str(field) for field in solution["fields"]]
    assert list(values) == [*points.columns[:-1], *fields]
    np.testing.assert_array_equal(values[points.columns[:-1]], points.iloc[:, :-1])
    expected = solution["prediction"].reshape(-1, len(fields))[::-1]
    np.testing.assert_allclose(values[fields], expected, rtol=1e-13 if name != "system" else 1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["wave", "windows"])
def test_grid_as_arrays(name: str, runs: dict[str, Path], tmp_path: Path) -> None:
    solution, path = saved(runs[name]), tmp_path / "out.npz"
    assert command(predict.main, runs[name], "--grid", 7, "--output", path) == (0, f"{path}\n", "")
    with np.load(path) as found:
        assert set(found) == {"axis_x", "axis_t", "u"}
        np.testing.assert_allclose(found["axis_t"], solution["axis_t"])
        np.testing.assert_allclose(found["u"], solution["prediction"][..., 0], rtol=1e-12)
    wanted = ["--at", "t=0.5", "--derivatives", "u_x,u_tt"]
    assert command(predict.main, runs[name], "--grid", 7, *wanted, "--output", path)[0] == 0
    run, x = ntkrun.load(runs[name]), solution["axis_x"]
    expected = run.predict(np.stack([x, np.full_like(x, 0.5)], axis=1), derivatives=["u_x", "u_tt"])
    with np.load(path) as found:
        assert found["axis_t"].tolist() == [0.5]
        np.testing.assert_allclose(np.stack([found["u_x"], found["u_tt"]], axis=-1)[:, 0], expected, rtol=1e-12)


def test_coordinates_held_fixed_need_no_column(runs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("x\n0.25\n0.5\n")
    status, stdout, _ = command(predict.main, runs["wave"], "--points", tmp_path / "points.csv", "--at", "t=0.5")
    assert status == 0
    expected = ntkrun.load(runs["wave"]).predict(np.array([[0.25, 0.5], [0.5, 0.5]]))[:, 0].tolist()
    assert stdout == "x,t,u\n" + "".join(
        f"{x},0.5,{value:.17g}\n" for x, value in zip((0.25, 0.5), expected, strict=True)
    )


def test_meshes_for_paraview(runs: dict[str, Path], tmp_path: Path) -> None:
    meshio = pytest.importorskip("meshio", reason="the extra vtk is not installed")
    path = tmp_path / "out.vtu"
    assert command(predict.main, runs["system"], "--grid", 4, "--output", path)[0] == 0
    mesh = meshio.read(path)
    (cells,) = mesh.cells
    assert (cells.type, cells.data.shape, mesh.points.shape) == ("quad", (9, 4), (16, 3))
    assert set(mesh.point_data) == {"u", "v", "p"}
    corners = mesh.points[cells.data][:, :, :2]
    following = np.roll(corners, -1, axis=1)
    areas = 0.5 * (corners[..., 0] * following[..., 1] - corners[..., 1] * following[..., 0]).sum(1)
    np.testing.assert_allclose(areas, 1 / 9)  # by the shoelace formula: none is folded or upside down
    (tmp_path / "points.csv").write_text("x,y\n0.25,0.5\n")
    assert command(predict.main, runs["system"], "--points", tmp_path / "points.csv", "--output", path)[0] == 0
    assert meshio.read(path).cells[0].type == "vertex"


def test_corners_of_hexahedra() -> None:
    from ntkrun.commands.formats import _cells

    kind, cells = _cells([2, 3, 4])
    assert (kind, cells.shape) == ("hexahedron", (6, 8))
    places = np.stack(np.meshgrid(range(2), range(3), range(4), indexing="ij"), axis=-1).reshape(-1, 3)[cells]
    edges = [places[:, k] - places[:, 0] for k in (1, 3, 4)]
    assert (np.linalg.det(np.stack(edges, axis=1)) == 1).all()
    assert (places[:, 6] - places[:, 0] == 1).all()  # the opposite corner


def test_sizes_of_residuals_are_those_of_the_equations(runs: dict[str, Path]) -> None:
    """From predicted derivatives at the points in use; of two equations per point together."""
    with np.load(runs["wave"] / "points.npz") as points, np.load(runs["wave"] / "residuals.npz") as sizes:
        assert set(sizes) == {"residual", "initial", "initial_velocity"}  # the boundary is a hard constraint
        u_tt, u_xx = ntkrun.load(runs["wave"]).predict(points["residual"], derivatives=["u_tt", "u_xx"]).T
        np.testing.assert_allclose(sizes["residual"], np.abs(u_tt - 4 * u_xx), rtol=1e-10)
    with np.load(runs["system"] / "points.npz") as points, np.load(runs["system"] / "residuals.npz") as sizes:
        u, v = ntkrun.load(runs["system"]).predict(points["lid"].astype(np.float32), derivatives=["u", "v"]).T
        np.testing.assert_allclose(sizes["lid"], np.hypot(u - 1, v), rtol=1e-4)


WRONG = {
    "nothing": ([], "either --points FILE or --grid N"),
    "both": (["--points", "p.csv", "--grid", "3"], "either --points FILE or --grid N"),
    "no file": (["--points", "nowhere.csv"], "no such file"),
    "column": (["--points", "p.csv"], "no column t; the first line names the columns, here x, y"),
    "text": (["--points", "text.csv"], "line 3: t is 'later', not a number"),
    "bytes": (["--points", "bytes.csv"], "not a table"),
    "empty": (["--points", "empty.csv"], "not a table"),
    "outside": (["--points", "outside.csv"], "point 1 has t=2, outside of the domain"),
    "one node": (["--grid", "1"], "2 or more"),
    "many": (["--grid", "100000"], "hold coordinates fixed"),
    "at": (["--grid", "3", "--at", "z=1"], "one of x, t"),
    "at a text": (["--grid", "3", "--at", "t=now"], "no number"),
    "at outside": (["--grid", "3", "--at", "t=9"], "t from 0 to 1"),
    "derivative": (["--grid", "3", "--derivatives", "u_z"], "no coordinate 'z'"),
    "field": (["--grid", "3", "--derivatives", "v"], "no field 'v'"),
    "suffix": (["--grid", "3", "--output", "a.png"], ".csv, .npz, .vtu"),
    "folder": (["--grid", "3", "--output", "nowhere/a.csv"], "no such directory"),
    "option": (["--gird", "3"], "--gird"),
    "picture": (["--animate", "a.avi"], ".gif, .mp4"),
    "landscape": (["--landscape", "a.txt"], ".png, .pdf, .npz"),
    "landscape of points": (["--landscape", "a.png", "--grid", "3"], "--landscape takes no points"),
    "radius": (["--landscape", "a.png", "--radius", "0"], "expected a positive number"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_refused_in_one_line(
    name: str, runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.csv").write_text("x,y\n0,0\n")
    Path("text.csv").write_text("x,t\n0,0\n0,later\n")
    Path("outside.csv").write_text("x,t\n0,0\n0,2\n")
    Path("bytes.csv").write_bytes(b"x,t\n\xff\xfe\x00,1\n")
    Path("empty.csv").touch()
    before = sorted(tmp_path.iterdir())
    arguments, words = WRONG[name]
    status, stdout, stderr = command(predict.main, runs["wave"], *arguments)
    assert (status, stdout) == (2, "")
    assert stderr.startswith("ntkrun: ")
    assert stderr.count("\n") == 1
    assert words in stderr
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("main", [predict.main, export.main], ids=["predict", "export"])
def test_no_run_is_refused(main: Callable[[list[str]], NoReturn], tmp_path: Path) -> None:
    given = {"predict": ["--grid", "3"], "export": ["--output", tmp_path / "a.pt2"]}
    for place, words in (("nowhere", "no such directory"), (tmp_path, "not a run directory")):
        status, _, stderr = command(main, place, *given[main.__module__.rpartition(".")[2]])
        assert (status, stderr.count("\n")) == (2, 1)
        assert words in stderr


@pytest.mark.parametrize("name", ["predict", "export", "watch"])
def test_help_loads_nothing_heavy(name: str) -> None:
    code = (
        f"import sys\nfrom ntkrun.commands.{name} import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as leaving: assert leaving.code == 0\n"
        "print(sorted({'torch', 'pandas', 'matplotlib', 'numpy', 'hydra'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert f"ntkrun-{name} RUN" in done.stdout


def test_watching_a_run(runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    status, stdout, stderr = command(watch.main, runs["wave"].parent, "--once")
    assert (status, stderr) == (0, "")
    status, stdout, _ = command(watch.main, runs["wave"])  # ends, because the run has
    assert status == 0
    head, *lines = stdout.splitlines()
    assert head.startswith(f"{runs['wave']}: completed, step 5 of 5, relative L2 error ")
    final = ntkrun.load(runs["wave"]).summary["rel_l2"]["final"]
    assert float(re.findall(r"error (\S+)$", head)[0]) == pytest.approx(final, rel=1e-2)
    assert max(map(len, lines)) < 70
    assert "residual" in stdout
    assert "\x1b" not in stdout
    for place, words in ((tmp_path, "no run here"), ("nowhere", "no such directory")):
        status, _, stderr = command(watch.main, place)
        assert (status, stderr.count("\n")) == (2, 1)
        assert words in stderr


def test_the_loss_around_a_run(runs: dict[str, Path], tmp_path: Path) -> None:
    status, stdout, stderr = command(predict.main, runs["wave"], "--landscape", tmp_path / "a.npz", "--radius", "0.5")
    assert (status, stdout, stderr) == (0, f"{tmp_path / 'a.npz'}\n", "")
    with np.load(tmp_path / "a.npz") as file:
        found = dict(file)
    last = ntkrun.load(runs["wave"]).metrics.iloc[-1]
    middle = len(found["a"]) // 2
    assert (found["a"][0], found["a"][middle]) == (-0.5, 0)
    for name in ("loss", "loss/residual", "loss/initial", "loss/initial_velocity"):
        assert found[name][middle, middle] == pytest.approx(last[name], rel=1e-9)
    assert found["loss"].std() > 0.1 * found["loss"].mean()
    status, _, stderr = command(predict.main, runs["windows"], "--landscape", tmp_path / "b.npz")
    assert (status, stderr.count("\n")) == (2, 1)
    assert "several time windows" in stderr


def test_the_loss_around_a_run_as_a_picture(runs: dict[str, Path], tmp_path: Path) -> None:
    place = tmp_path / "a.png"
    status, _, stderr = command(
        predict.main, runs["wave"], "--landscape", place, "--directions", "steepest", "--radius", "0.1"
    )
    assert (status, stderr) == (0, "")
    with Image.open(place) as picture:
        assert len(picture.convert("RGB").getcolors(2**24)) > 100
