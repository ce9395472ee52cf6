"""Devices without a card: what a step asks of a device, counted, and a device that holds no values at all.

Tensors on ``meta`` have shapes and no values. Whoever reads one of them, which on a CUDA device means waiting for it,
gets an error, and so does an operation on tensors of two devices where torch looks at that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ntkrun.cli.preflight import own_values
from ntkrun.config.assembly import Parts, assemble
from ntkrun.config.configuration import read_configuration
from ntkrun.network import JetNetwork
from ntkrun.objective import Evaluation, Objective
from ntkrun.steps.eager import Stepper

aten = torch.ops.aten
READING = (
    aten._local_scalar_dense,
    aten.item,
    aten.is_nonzero,
    aten.equal,
    aten.nonzero,
    aten.nonzero_numpy,
    aten.masked_select,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
)
"""Operations whose answer, or its shape, the host waits for."""
MAKING = (torch.tensor, torch.as_tensor, Tensor.new_tensor, Tensor.new, torch.asarray)
READERS = (Tensor.tolist, Tensor.numpy, Tensor.cpu)
COPYING = (aten._to_copy, aten.copy_, aten.copy, aten._copy_from, aten.clone)


class Reads(TorchDispatchMode):
    """Counts what would make the host wait for a CUDA device, on whatever device the tensors are.

    Attributes:
        counts: by name of the operation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self._methods = _Methods(self.counts)

    def __enter__(self) -> Reads:
        super().__enter__()
        self._methods.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._methods.__exit__(*error)
        super().__exit__(*error)

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = func.overloadpacket
        masks = packet in (aten.index, aten.index_put, aten.index_put_) and any(
            isinstance(each, Tensor) and each.dtype in (torch.bool, torch.uint8) for each in args[1]
        )
        if packet in READING or masks:
            self.counts[packet.__name__] += 1
        return func(*args, **kwargs)


class _Methods(TorchFunctionMode):
    """Counts methods that read a whole tensor, which on the host are no operations."""

    def __init__(self, counts: Counter[str]) -> None:
        super().__init__()
        self._counts = counts

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in READERS:
            self._counts[func.__name__] += 1
        return func(*args, **(kwargs or {}))


class Apart(TorchDispatchMode):
    """Keeps the host and a device apart.

    Numbers in tensors without dimensions may be used anywhere, as on CUDA devices. Copies from the host must not be
    waited for: they are made with ``non_blocking``.

    Attributes:
        copies: from the host to the device, that were not waited for.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device
        self.copies = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        here = [each for each in tensors if each.device.type == self.device]
        there = [each for each in tensors if each.device.type != self.device]
        target = kwargs.get("device")
        arrives = there and func.overloadpacket is aten._to_copy and torch.device(target or "cpu").type == self.device
        if arrives or (here and there and func.overloadpacket in COPYING):
            waits = not (kwargs.get("non_blocking") or (len(args) > 2 and args[2]))
            if waits:
                raise AssertionError(f"{func}: a copy between host and device that is waited for")
            self.copies += 1
        elif here and any(each.dim() for each in there):
            raise AssertionError(f"{func}: tensors on {', '.join(str(each.device) for each in tensors)}")
        return func(*args, **kwargs)


class Made(TorchFunctionMode):
    """Turns down tensors that are made on a device from numbers of the host, which is a copy that is waited for."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in MAKING and isinstance(result, Tensor) and result.device.type == self.device:
            raise AssertionError(f"{func.__name__}: numbers of the host put on {self.device} one by one")
        return result


@contextmanager
def apart(device: str) -> Iterator[Apart]:
    """Within it, tensors of the host and of a device meet in copies alone that nobody waits for."""
    mode = Apart(device)
    with mode, Made(device):
        yield mode


SMALL = ("pde.grid=3", "network.depth=2", "plots=false", "progress=false")


def parts(*overrides: str) -> Parts:
    """The parts of a small run."""
    width = () if "network=ecrn" in overrides else ("network.width=4",)
    with initialize_config_module("ntkrun.conf", version_base="1.3"):
        config = compose("config", overrides=[*SMALL, *width, *overrides])
    return assemble(read_configuration(own_values(config)))


def parts_on_meta(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> Parts:
    """The parts of a run on a device without values; what is tried out before a run is known from the host."""
    known = parts(*overrides).objective
    probed = (known.components, known.changing, known.mixing)

    def route(objective: Objective, wanted: str, probe: object) -> None:
        objective.route, objective.pointwise = known.route, known.pointwise

    monkeypatch.setattr("ntkrun.objective.residuals.probe", lambda *_: probed)
    monkeypatch.setattr(Objective, "_choose_route", route)
    monkeypatch.setattr("ntkrun.config.assembly._device", lambda name: "meta")
    monkeypatch.setattr("ntkrun.config.assembly.Evaluator", _Blind)
    monkeypatch.setattr("ntkrun.config.assembly.HeldOut", lambda *_: None)
    return parts(*overrides)


class _Blind:
    """Takes the place of an evaluator, whose errors are values."""

    knows = False

    def __init__(self, *_: object) -> None:
        pass


def walk(built: Parts, stepper: Stepper, steps: range) -> Iterator[Evaluation]:
    """Steps as the training loop makes them between two rows of its table."""
    for step in steps:
        built.objective.progress.fill_(step / 100)
        if isinstance(built.objective.network, JetNetwork):
            built.objective.network.start_step(step)
        plain = built.points.at(step, built.weighting.weights)
        built.point_weights.update(built.objective, plain)
        batch = built.point_weights.apply(built.objective, plain)
        built.weighting.rows_at_hand = built.optimizer.wants_rows
        request = built.weighting.request(step, built.objective, batch)
        changed = bool(request.update or request.rule) or built.points.drawn_at == step
        evaluation = stepper.step(request, batch, 0.9**step, changed)
        built.weighting.take(request, evaluation)
        yield evaluation
