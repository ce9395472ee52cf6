"""Networks with complex tensors keep them, at the precision of the run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ntkrun.network import convert
from tests.driver import assert_refused, ntkrun

NETWORK = """
import torch
from torch import nn


class Waves(nn.Module):
    def __init__(self, waves: int = 8, trained: bool = False, *, domain: object, outputs: int) -> None:
        super().__init__()
        ik = 1j * torch.linspace(0.5, 14.0, waves)[None]
        if trained:
            self.ik = nn.Parameter(ik)
        else:
            self.register_buffer("ik", ik)
        self.head = nn.Linear(2 * waves, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert self.ik.real.dtype == x.dtype
        return self.head(torch.view_as_real(torch.exp(x[:, :1] * self.ik)).flatten(1))
"""
SMALL = [
    *("optimizer=adam", "network=waves", "pde.grid=30", "pde.points.residual=40", "iterations=6", "evaluate_every=1"),
    "plots=false",
]


class Mixed(nn.Module):
    """Tensors of every kind, one of them used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.real = nn.Parameter(torch.tensor([1 / 3], dtype=torch.float64))
        self.again = self.real
        self.phase = nn.Parameter(torch.tensor([1 / 3 + 2j / 3], dtype=torch.complex128))
        self.ik = nn.Buffer(torch.tensor([2j / 3], dtype=torch.complex128))
        self.index = nn.Buffer(torch.tensor([3]))
        self.flag = nn.Buffer(torch.tensor([True]))


@pytest.mark.parametrize(
    ("real", "complex_"), [(torch.float32, torch.complex64), (torch.float64, torch.complex128)], ids=str
)
def test_tensors_keep_their_kind(real: torch.dtype, complex_: torch.dtype) -> None:
    network = Mixed()
    assert convert(network, real) is network
    kinds = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    expected = {"real": real, "again": real, "phase": complex_, "ik": complex_}
    assert kinds == {**expected, "index": torch.int64, "flag": torch.bool}
    assert network.again is network.real
    rounding = torch.finfo(real).eps
    assert abs(network.ik.item() - 2j / 3) < rounding
    assert abs(network.phase.item() - (1 / 3 + 2j / 3)) < rounding


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "conf" / "network").mkdir(parents=True)
    (tmp_path / "waves_net.py").write_text(NETWORK)
    (tmp_path / "conf" / "network" / "waves.yaml").write_text("_target_: waves_net.Waves\nwaves: 8\ntrained: false\n")
    return tmp_path


@pytest.mark.parametrize(("dtype", "complex_"), [("float32", torch.complex64), ("float64", torch.complex128)])
def test_a_run_keeps_a_complex_buffer(dtype: str, complex_: torch.dtype, folder: Path) -> None:
    """In training, its kernel, the spectrum, checkpoints and on resuming; no warning, for that would be an error."""
    options = [*SMALL, f"dtype={dtype}", "diagnostics=spectrum", "diagnostics.steps=[]", "diagnostics.points=5"]
    result = ntkrun("--config-dir", "conf", *options, "hydra.run.dir=run", cwd=folder)
    assert result.status == 0, result.stderr
    again = ntkrun("resume=run", "iterations=8", "trust=waves_net", cwd=folder)
    assert again.status == 0, again.stderr
    for name in ("checkpoint.pt", "best.pt"):
        buffer: Tensor = torch.load(folder / "run" / name, weights_only=True)["network"]["ik"]
        assert buffer.dtype == complex_
        assert torch.equal(buffer, (1j * torch.linspace(0.5, 14.0, 8)[None]).to(complex_))


def test_a_complex_parameter_is_refused(folder: Path) -> None:
    result = ntkrun("--config-dir", "conf", *SMALL, "network.trained=true", cwd=folder)
    assert_refused(result, folder, "the trainable parameter ik is complex", "real parameter", "torch.view_as_complex")
