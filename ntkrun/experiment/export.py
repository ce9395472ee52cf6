"""Networks of runs as programs that need nothing of ntkrun: by ``torch.export``, or as ONNX."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental.proxy_tensor import make_fx

from ntkrun.geometry import Sampler
from ntkrun.jets import Index, StreamPlan
from ntkrun.network import JetNetwork, output_streams
from ntkrun.storage.atomic import write_atomically
from ntkrun.training.time_marching import joined

if TYPE_CHECKING:
    from ntkrun.experiment.trained import TrainedRun

SUFFIXES = (".pt2", ".onnx")
PROBES = 100  # points of the domain at which an export is compared with its run
TOLERANCE = 1e3  # round-off errors of the largest value that they may differ by; kernels differ between the two
ABOUT = "ntkrun.json"  # what is known of an export, within a .pt2 file


class ExportError(ValueError):
    """A network that cannot be exported in the way asked for; the message is one line."""


class Prediction(nn.Module):
    """Fields, or derivatives of them, as one function of points, ``[N, d]`` to ``[N, k]``.

    Args:
        networks: of the time windows, or the one.
        starts: of the time windows but the first.
        time: the column of time; of no meaning without windows.
        plan: the streams that the derivatives need.
        columns: index and output of every derivative.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        starts: Sequence[float],
        time: int,
        plan: StreamPlan,
        columns: Sequence[tuple[Index, int]],
    ) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self._starts = tuple(starts)
        self._time = time
        self._plan = plan
        self._columns = tuple(columns)

    @property
    def nested(self) -> bool:
        """Whether derivatives are made by transforms within each other, which ``torch.export`` does not know."""
        return self._plan.streams > 1 and not all(isinstance(network, JetNetwork) for network in self.networks)

    def forward(self, points: Tensor) -> Tensor:
        return joined([self._of(network, points) for network in self.networks], points[:, self._time], self._starts)

    def _of(self, network: nn.Module, points: Tensor) -> Tensor:
        read = self._plan.read(output_streams(network, points, self._plan))
        return torch.stack([read[index][:, output] for index, output in self._columns], dim=1)


def export(run: TrainedRun, path: Path, derivatives: Sequence[str] | None = None) -> float:
    """Write the network of a run as a program of its own, and compare what was written with the run.

    Args:
        run: the run.
        path: ``.pt2`` for ``torch.export.load``, or ``.onnx``.
        derivatives: names such as ``u`` and ``u_xx``, the columns of the result; the fields if not given.

    Returns:
        The largest difference between the file and the run, relative to the largest value of each derivative.

    Raises:
        ExportError: the network cannot be exported, a package is missing, or the file computes something else.
        WriteError: the file cannot be written.
    """
    if path.suffix not in SUFFIXES:
        raise ExportError(f"{path}: the suffix says the format; it may be {', '.join(SUFFIXES)}")
    names = tuple(run.pde.fields if derivatives is None else derivatives)
    about = {
        "coordinates": ",".join(run.pde.coordinates),
        "derivatives": ",".join(names),
        "domain": json.dumps({c: [run.pde.domain.low[c], run.pde.domain.high[c]] for c in run.pde.coordinates}),
        "dtype": str(run.config["dtype"]),
    }
    module = run.prediction(names).cpu()
    like = next(module.parameters())
    points = Sampler((run.pde.domain,), PROBES, "uniform", 0).draw().to(like)
    program = _program(module, points, names)
    if path.suffix == ".onnx":
        content = _onnx(program, about)
        found = _evaluate_onnx(content, points)
    else:
        file = io.BytesIO()
        torch.export.save(program, file, extra_files={ABOUT: json.dumps(about)})
        content = file.getvalue()
        loaded = torch.export.load(io.BytesIO(content)).module()
        found = loaded(points).detach()
    elsewhere = run.beyond_supports(points, names)
    expected = run.predict(points, names).cpu()
    difference = _difference(found.masked_fill(elsewhere, 0.0), expected.masked_fill(elsewhere, 0.0))
    if not difference <= TOLERANCE * torch.finfo(like.dtype).eps:
        raise ExportError(
            f"{path.name} differs from the run by {difference:.1e} of the largest value; it is not written"
        )
    write_atomically(path, lambda out: out.write(content))
    return difference


def _program(module: Prediction, points: Tensor, names: Sequence[str]) -> ExportedProgram:
    """The module as a graph for any number of points."""
    try:
        traced: nn.Module = module
        if module.nested:  # as single operations, with the parameters as they are
            traced = make_fx(module, tracing_mode="symbolic", _allow_non_fake_inputs=True)(points)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch about its own tracing
            return torch.export.export(traced, (points,), dynamic_shapes=({0: Dim("points")},), strict=False)
    except Exception as error:  # whatever tracing of users' modules raises
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ExportError(f"{', '.join(names)} cannot be exported by torch.export: {reason}") from error


def _onnx(program: ExportedProgram, about: Mapping[str, str]) -> bytes:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise ExportError("ONNX needs the packages onnx and onnxscript: pip install 'ntkrun[onnx]'") from None
    about_torch = logging.getLogger("torch.onnx")  # tells of packages that it could do with
    level = about_torch.level
    about_torch.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = torch.onnx.export(
                program, (), input_names=["points"], output_names=["values"], dynamo=True, verbose=False
            )
    except Exception as error:  # there is an operator that it does not know, say
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ExportError(f"the network cannot be written as ONNX: {reason}") from error
    finally:
        about_torch.setLevel(level)
    assert made is not None
    model: Any = made.model_proto
    for key, value in about.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    content: bytes = model.SerializeToString()
    return content


def _evaluate_onnx(content: bytes, points: Tensor) -> Tensor:
    """The values of a model by ONNX's own reference implementation."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    (values,) = ReferenceEvaluator(onnx.load_model_from_string(content)).run(None, {"points": points.numpy()})
    return torch.from_numpy(np.asarray(values))


def _difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference, by columns relative to the largest value."""
    if found.shape != expected.shape:
        return float("inf")
    scale = expected.abs().amax(0).clamp_min(torch.finfo(expected.dtype).tiny)
    return float(((found - expected).abs() / scale).max())
