"""States of every part, changed in every way, are refused in one line or are what they were; memory stays whole."""

from __future__ import annotations

import copy
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module
from torch import Tensor

from ntkrun.cli.preflight import own_values
from ntkrun.common.state_schema import Anything, Generator, StateError, read_state
from ntkrun.config.assembly import Parts, assemble
from ntkrun.config.configuration import read_configuration
from ntkrun.experiment.run import _restore, execute
from ntkrun.storage.checkpoint import CheckpointError, load_checkpoint

SMALL = [
    *("network=mlp", "network.width=3", "network.depth=2", "pde.grid=4", "plots=false", "progress=false"),
    "optimizer=adam",
    *("pde.points.residual=6", "iterations=4", "trainer.compile=false"),
]
WAVE = ["pde=wave", "pde.points.boundary=4", "pde.points.initial=5"]
LBFGS = ["weights=none", "optimizer.history=3"]
RECURSIVE = ["weights=sketched", "weights.corrector=recursive", "weights.update_every=1", "weights.sketch_size=3"]
CASES = {
    "everything": ("", ["diagnostics=spectrum", "diagnostics.steps=[2]", "diagnostics.points=3"]),
    "gradient_descent": ("optimizer", ["optimizer=gradient_descent"]),
    "adamw": ("optimizer", ["optimizer=adamw", "dtype=float64"]),
    "soap": ("optimizer", ["optimizer=soap"]),
    "lbfgs": ("optimizer", ["optimizer=lbfgs", *LBFGS]),
    "gauss_newton": ("optimizer", ["optimizer=gauss_newton"]),
    "before-gauss_newton": ("optimizer", ["optimizer=adam_gauss_newton", "optimizer.switch_at=9"]),
    "adam_gauss_newton": ("optimizer", ["optimizer=adam_gauss_newton", "optimizer.switch_at=1"]),
    "before-lbfgs": ("optimizer", ["optimizer=adam_lbfgs", "optimizer.switch_at=9", *LBFGS]),
    "adam_lbfgs": ("optimizer", ["optimizer=adam_lbfgs", "optimizer.switch_at=1", *LBFGS]),
    "sketched": ("weighting", ["weights=sketched"]),
    "recursive": ("weighting", [*RECURSIVE]),
    **{w: ("weighting", [f"weights={w}"]) for w in ("none", "fixed", "gradient_norm", "softadapt", "relobralo")},
    "uncertainty": ("weighting", ["weights=uncertainty"]),
    "causal": ("point_weights", [*WAVE, "point_weights=causal", "point_weights.chunks=3"]),
    "residual_attention": ("point_weights", [*WAVE, "point_weights=residual_attention", "pde.resample_every=null"]),
    "fresh-points": ("points", [*WAVE, "pde.sampling=sobol", "pde.resample_every=1"]),
}


def configuration(*overrides: str) -> dict[str, Any]:
    with initialize_config_module("ntkrun.conf", version_base="1.3"):
        return own_values(compose("config", overrides=[*SMALL, *overrides]))


def trained(folder: Path, *overrides: str) -> tuple[Parts, dict[str, Any]]:
    """The parts of a configuration, and the state of such after some steps."""
    values = configuration(*overrides)
    assert execute(read_configuration(values), folder).status == "completed"
    return assemble(read_configuration(values)), load_checkpoint(folder).state


def places(state: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the values of a state stand, those that hold others included."""
    yield at
    for key, value in state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else ():
        yield from places(value, (*at, key))


def at(state: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        state = state[key]
    return state


def changed(state: Any, place: tuple[Any, ...], value: Any) -> Any:
    """A copy of a state with another value at one place."""
    if not place:
        return value
    new = copy.copy(state)
    new[place[0]] = changed(state[place[0]], place[1:], value)
    return new


OTHER_KINDS: list[Any] = ["x", [], [[1, [2]]], {"a": {}}, True, -1, -(2.0**60), 10**400, torch.zeros(2, 1, 2), b"x"]
OTHER_KINDS.append(torch.zeros(3).to_sparse())


def other_tensors(x: Tensor) -> Iterator[Any]:
    """Tensors that are not what they seem, and others."""
    yield from ("x", None, [], x.tolist(), {"a": x}, 1.5)
    yield torch.zeros((1,) * x.ndim, dtype=x.dtype).expand(x.shape if x.numel() > 1 else (2, *x.shape))
    yield x.new_empty(0)
    yield x[None]
    yield torch.cat([x, x]) if x.ndim else x.expand(3)
    yield x.to(torch.complex64)
    yield x.to(torch.float64 if x.dtype == torch.float32 else torch.float32 if x.is_floating_point() else torch.int64)
    yield x.to("meta")
    yield x.to_sparse() if x.is_floating_point() else x.bool()
    yield torch.nn.Parameter(x) if x.is_floating_point() else x.bool()
    yield x.new_empty(*x.shape, 2)[..., 0] if x.numel() > 1 else x.expand(2, *x.shape)
    if x.ndim == 2 and min(x.shape) > 1:
        yield x.T.contiguous().T
        yield x.new_zeros(x.shape[::-1]).as_strided(x.shape, (0, 1))


def changes(value: Any) -> Iterator[Any]:
    """Values that may not stand in place of one."""
    if isinstance(value, Tensor):
        yield from other_tensors(value)
        return
    yield from (other for other in OTHER_KINDS if type(other) is not type(value) or other in (-1, 10**400))
    if isinstance(value, dict):
        for key in value:
            yield {k: v for k, v in value.items() if k != key}
        yield {**value, "another": 0}
        yield dict(reversed(value.items()))
    if isinstance(value, list):
        yield [*value, torch.zeros(3)]
        yield value[:-1] if value else {}
    if value is not None:
        yield None


BUFFER = "al"  # where torch's L-BFGS has room for numbers that no step keeps


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num())
    if isinstance(a, dict):
        keys = a.keys() ^ b.keys() if isinstance(b, dict) else {""}
        return keys <= {BUFFER} and all(same(a[key], b[key]) for key in a.keys() - {BUFFER})
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def state_of(parts: Parts) -> dict[str, Any]:
    return {
        "network": parts.objective.network.state_dict(),
        "optimizer": parts.optimizer.state_dict(),
        "weighting": parts.weighting.state_dict(),
        "point_weights": parts.point_weights.state_dict(),
        "points": parts.points.state_dict(),
        "diagnostics": parts.diagnostics.state_dict(),
        "random": torch.get_rng_state(),
    }


# What a run may lack or may not have come to yet: nothing is refused there, and it is no harm.
MAY_BE_MISSING = {("progress",), ("progress", "seconds"), ("diagnostics", "observed")}
MAY_BE_NONE = {"error", "error_step", "best_error", "best_step", "drawn_at", "sum", "mean"}
OF_ANY_LENGTH = {"gains"}  # lists of numbers of any size
NUMBERS = {"error", "best_error", "lr", "prev_loss", "t", "H_diag"}  # of any size and kind
OPTIONS = {"lr", "step", "params"}  # others are not read
ELSEWHERE = {"format", "earlier"}  # looked at before the parts are made


@pytest.mark.parametrize("name", CASES)
def test_a_changed_state_is_refused_or_changes_nothing(name: str, tmp_path: Path) -> None:
    part, overrides = CASES[name]
    parts, state = trained(tmp_path, *overrides)
    _restore(parts, state)
    refused: list[str]
    whole, refused = copy.deepcopy(state_of(parts)), []
    assert all(same(whole[each], state[each]) for each in whole)
    for place in list(places(state[part], (part,)) if part else places(state)):
        if not place or place[0] in ELSEWHERE or ("param_groups" in place[:-2] and place[-1] not in OPTIONS):
            continue
        for value in changes(at(state, place)):
            try:
                _restore(parts, changed(state, place, value))
            except CheckpointError as error:
                refused.append(str(error))
                continue
            if place in MAY_BE_MISSING or place[-1] in MAY_BE_NONE | NUMBERS or OF_ANY_LENGTH & set(place):
                continue
            if isinstance(at(state, place), dict) and value == {}:
                continue
            assert place[0] == "progress" or same(state_of(parts), whole), (place, value)
    assert len(refused) > 20
    for line in refused:
        assert line.startswith("checkpoint.pt does not fit this run: ")
        assert "\n" not in line
        assert len(line) < 250
    _restore(parts, state)
    assert same(state_of(parts), whole)


# What no state of a part has, but some user's part may


def test_what_has_no_schema_is_copied_and_bounded() -> None:
    nested: Any = 1
    for _ in range(50):
        nested = [nested]
    shared = torch.zeros(3)
    read = read_state(Anything(), {"a": [shared, shared, None, "x", 1.5], 3: {}}, "mine")
    assert read["a"][0].data_ptr() != read["a"][1].data_ptr() != shared.data_ptr()
    for bad in (nested, {(1, 2): 3}, {"a": b"x"}, {"a": torch.zeros(1).expand(10**12)}, {1.5: 2}):
        with pytest.raises(StateError, match=r"^mine"):
            read_state(Anything(), bad, "mine")


@pytest.mark.parametrize(("left", "following"), [(624, 624), (2, 624), (1, 2**40), (-1, 0), (625, 0), (600, -8)])
def test_a_generator_that_would_read_beyond_its_numbers_is_refused(left: int, following: int) -> None:
    """torch itself takes the first two and then reads beyond the end of its 624 numbers."""
    state = bytearray(torch.Generator().manual_seed(1).get_state().numpy().tobytes())
    struct.pack_into("<i", state, 8, left)
    struct.pack_into("<q", state, 16, following)
    with pytest.raises(StateError, match="not the state of a random number generator"):
        read_state(Generator(), torch.frombuffer(state, dtype=torch.uint8), "random")


def test_generators_at_any_place_of_their_numbers_go_on() -> None:
    generator, other = torch.Generator().manual_seed(2), torch.Generator()
    for _ in range(700):
        other.set_state(read_state(Generator(), generator.get_state(), "random"))
        assert torch.equal(torch.rand(1, generator=generator), torch.rand(1, generator=other))
