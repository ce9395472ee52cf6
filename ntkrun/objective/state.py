"""Detection of residuals with state: they are no functions of points and derivatives."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator, Mapping
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

DEPTH = 4  # of objects within objects that are looked at
LENGTH = 1000  # of containers
LARGE = 2**20  # bytes of arrays that are not looked at
PLAIN = (int, float, complex, str, bytes, type(None))


def changed_by(act: Callable[[], object], function: object) -> tuple[str, ...]:
    """What a function can reach that changes while something is done, by name; values that are new to a name included.

    Looked at are the attributes of the object that a method belongs to, variables of enclosing functions, and global
    variables that the function names: numbers, texts, tensors, arrays, random generators, and containers and objects
    of these, but not the values of networks.

    Args:
        act: what is done.
        function: a function, method or callable object.
    """
    before = dict(_reached(function))
    act()
    after = dict(_reached(function))
    return tuple(name for name in {**before, **after} if before.get(name) != after.get(name))


def _reached(function: object) -> Iterator[tuple[str, Hashable]]:
    """Everything that a function can reach, by name, each with what tells whether it is the same as before."""
    yield "torch's random numbers", _mark(torch.get_rng_state(), 0)
    yield from _of(function, "", 0)


def _of(function: object, prefix: str, depth: int) -> Iterator[tuple[str, Hashable]]:
    if isinstance(function, MethodType):
        yield from _attributes(function.__self__, prefix or "self.")
        function = function.__func__
    elif not isinstance(function, FunctionType):
        yield from _attributes(function, f"{prefix}{type(function).__name__}.")
        function = vars(type(function)).get("__call__")
    if not isinstance(function, FunctionType):
        return
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            value = cell.cell_contents
        except ValueError:  # a variable without a value yet
            continue
        if name == "self":
            yield from _attributes(value, "self.")
        elif isinstance(value, FunctionType | MethodType) and depth < DEPTH:
            yield from _of(value, f"{prefix}{name}.", depth + 1)
        else:
            yield prefix + name, _mark(value, 0)
    for name in sorted(_names(function.__code__) & function.__globals__.keys()):
        yield prefix + name, _mark(function.__globals__[name], 0)


def _names(code: CodeType) -> set[str]:
    """Names that a function and those within it look up."""
    inner = [_names(each) for each in code.co_consts if isinstance(each, CodeType)]
    return set(code.co_names).union(*inner)


def _attributes(owner: object, prefix: str) -> Iterator[tuple[str, Hashable]]:
    for name, value in getattr(owner, "__dict__", {}).items():
        yield prefix + name, _mark(value, 0)


def _mark(value: Any, depth: int) -> Hashable:
    """Something that is the same as long as a value is."""
    if isinstance(value, PLAIN):
        return type(value).__name__, repr(value)
    if isinstance(value, Tensor):
        return "tensor", value.shape, _digest(value.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy())
    if isinstance(value, np.ndarray):
        return "array", value.shape, _digest(value)
    if isinstance(value, torch.Generator):
        return "generator", value.get_state().numpy().tobytes()
    if isinstance(value, np.random.Generator):
        return "generator", repr(value.bit_generator.state)
    if isinstance(value, nn.Module | ModuleType | type | FunctionType | MethodType) or depth == DEPTH:
        return "object", id(value)
    if isinstance(value, Mapping) and len(value) <= LENGTH:
        return tuple((repr(key), _mark(each, depth + 1)) for key, each in value.items())
    if isinstance(value, list | tuple | set | frozenset) and len(value) <= LENGTH:
        return tuple(_mark(each, depth + 1) for each in value)
    attributes = getattr(value, "__dict__", None)
    if isinstance(attributes, dict) and len(attributes) <= LENGTH:
        return "object", id(value), tuple((name, _mark(each, depth + 1)) for name, each in attributes.items())
    return "object", id(value)


def _digest(array: np.ndarray[Any, Any]) -> Hashable:
    """Of what an array holds; nothing of those that are very large."""
    if array.nbytes > LARGE or array.dtype.hasobject:
        return None
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).digest()
