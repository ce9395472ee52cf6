"""Exported networks, in a graph of their own, against their runs and nested autograd."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import ntkrun
from ntkrun.commands import export as export_command
from ntkrun.experiment import export
from ntkrun.jets import plan_streams
from tests.commands.test_predict import TINY, command, runs
from tests.test_api import nested, points_of

__all__ = ["runs"]

NAMES = ["u", "u_x", "u_tt", "u_xt"]


@pytest.mark.parametrize("name", ["wave", "windows"])
def test_derivatives_of_an_exported_network(name: str, runs: dict[str, Path], tmp_path: Path) -> None:
    """Hard constraints and time windows among them; any number of points; in place of the package torch alone."""
    path = tmp_path / "network.pt2"
    status, stdout, stderr = command(
        export_command.main, runs[name], "--derivatives", ",".join(NAMES), "--output", path
    )
    assert (status, stderr) == (0, "")
    assert stdout.splitlines()[-1] == str(path)
    files = {export.ABOUT: ""}
    function = torch.export.load(path, extra_files=files).module()
    about = json.loads(files[export.ABOUT])
    assert (about["coordinates"], about["derivatives"], about["dtype"]) == ("x,t", ",".join(NAMES), "float64")
    run = ntkrun.load(runs[name])
    for count in (1, 7, 333):
        points = points_of(run, count)
        values = function(torch.tensor(points)).detach()
        expected = torch.stack([nested(run, points, each.partition("_")[2]) for each in NAMES], dim=1)
        torch.testing.assert_close(values, expected, rtol=1e-10, atol=1e-10)


def test_fields_of_a_system_as_onnx(runs: dict[str, Path], tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    from onnx.reference import ReferenceEvaluator

    run, path = ntkrun.load(runs["system"]), tmp_path / "network.onnx"
    assert run.export(path) < 1e-4
    model = onnx.load(path)
    onnx.checker.check_model(model)
    assert {entry.key: entry.value for entry in model.metadata_props}["derivatives"] == "u,v,p"
    points = points_of(run, 50).astype(np.float32)
    (values,) = ReferenceEvaluator(model).run(None, {"points": points})
    np.testing.assert_allclose(values, run.predict(points), rtol=1e-4, atol=1e-6)


def test_what_computes_something_else_is_not_written(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ntkrun.load(runs["wave"])
    monkeypatch.setattr(type(run), "predict", lambda self, points, derivatives: torch.ones(len(points), 1).double())
    with pytest.raises(export.ExportError, match="differs from the run by"):
        run.export(tmp_path / "network.pt2")
    assert not list(tmp_path.iterdir())


def test_other_formats_are_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(export.ExportError, match=r"\.pt2, \.onnx"):
        ntkrun.load(runs["wave"]).export(tmp_path / "network.pth")
    status, _, stderr = command(export_command.main, runs["wave"], "--output", tmp_path / "a.pth")
    assert (status, stderr.count("\n")) == (2, 1)


MODULE = """
import torch
class Ridges(torch.nn.Module):
    def __init__(self, *, domain, outputs):
        super().__init__()
        self.first = torch.nn.Linear(len(domain.coordinates), 8)
        self.last = torch.nn.Linear(8, outputs)
    def forward(self, x):
        return self.last(torch.exp(-(self.first(x) ** 2)))
"""


def test_networks_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Derivatives of any module take nested transforms, which are written out."""
    monkeypatch.chdir(tmp_path)
    Path("ridges.py").write_text(MODULE)
    Path("conf/network").mkdir(parents=True)
    Path("conf/network/ridges.yaml").write_text("_target_: ridges.Ridges\n")
    small = [each for each in TINY if not each.startswith("network.")]
    run = ntkrun.train(["pde=poisson", "network=ridges", "dtype=float64", *small], config_dir="conf")
    points = points_of(run, 20)
    run.export("values.pt2")
    values = torch.export.load("values.pt2").module()(torch.tensor(points)).detach()
    np.testing.assert_allclose(values, run.predict(points), rtol=1e-12)
    run.export("derivatives.pt2", ["u", "u_xx"])
    loaded = torch.export.load("derivatives.pt2").module()
    for n in (1, 20):  # any number of points
        found = loaded(torch.tensor(points[:n])).detach()
        np.testing.assert_allclose(found, run.predict(points[:n], ["u", "u_xx"]), rtol=1e-12)


class Branching(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize("names", [[""], ["0"]], ids=["values", "derivatives"])
def test_what_cannot_be_traced_is_named(names: list[str]) -> None:
    module = export.Prediction([Branching()], (), 0, plan_streams(names, ["0"]), [])
    with pytest.raises(export.ExportError, match=r"u, v cannot be exported by torch\.export: \w+"):
        export._program(module, torch.rand(5, 1), ["u", "v"])
