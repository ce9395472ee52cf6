"""Schemas of saved states, which may come from anybody, and their reading: checked and copied into fresh memory.

A part of a run states what its state looks like as a schema: a tensor stands for tensors of its shape and dtype, a
number for numbers of its kind, a dictionary for one with the same keys, a list for one as long, and a ``Schema`` for
what it says. Mostly the state of the part itself, just started, serves, by ``schema_of``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

LARGEST = 2**53  # of whole numbers; beyond it, floats do not count one by one
DEPTH = 20  # of what has no schema
LEFT_OUT = object()


class StateError(ValueError):
    """A state that does not fit; the message is one line that begins with the place."""


class Schema(ABC):
    """What a saved value must look like."""

    @abstractmethod
    def read(self, value: Any, place: str) -> Any:
        """The value, tensors copied.

        Args:
            value: plain values and tensors, of any kind.
            place: where it stands, for messages.

        Raises:
            StateError: the value is another one.
        """


def read_state(schema: Any, value: Any, place: str) -> Any:
    """Compare a saved value with its schema; returns it with all tensors in fresh memory of their own.

    Args:
        schema: see the module.
        value: plain values and tensors, of any kind.
        place: where it stands, for messages.

    Raises:
        StateError: something is missing, superfluous, or of another kind, shape, dtype or range.
    """
    if isinstance(schema, Schema):
        return schema.read(value, place)
    if isinstance(schema, Tensor):
        return Like(schema).read(value, place)
    if isinstance(schema, Mapping):
        return _read_mapping(schema, value, place)
    if isinstance(schema, list | tuple):
        items = _expect(value, list, place)
        if len(items) != len(schema):
            raise StateError(f"{place}: {len(items)} items where {len(schema)} are expected")
        return [
            read_state(each, item, f"{place}.{k}") for k, (each, item) in enumerate(zip(schema, items, strict=True))
        ]
    if isinstance(schema, float):
        return Real().read(value, place)
    if isinstance(schema, int) and not isinstance(schema, bool):
        return Whole(-LARGEST).read(value, place)
    return _expect(value, type(schema), place)


def schema_of(state: Any) -> Any:
    """The schema of a state as it stands; what is still ``None`` or empty in it may become anything plain."""
    if state is None or (isinstance(state, dict | list | tuple) and not state):
        return Anything()
    if isinstance(state, Mapping):
        return {key: schema_of(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [schema_of(value) for value in state]
    return state


@dataclass(frozen=True)
class Like(Schema):
    """A tensor of the same shape and dtype, which is copied to the same device.

    Attributes:
        tensor: the example.
        any_order: its elements may lie in memory in any order, without gaps and overlaps; else in that of the indices.
    """

    tensor: Tensor
    any_order: bool = False

    def read(self, value: Any, place: str) -> Tensor:
        return _copy(value, tuple(self.tensor.shape), self.tensor, place, self.any_order)


@dataclass(frozen=True)
class Shaped(Schema):
    """A tensor of a given shape, with the dtype and device of an example.

    Attributes:
        shape: ``None`` for any length up to ``most``.
        like: the example.
        finite: whether all elements must be.
    """

    shape: tuple[int | None, ...]
    like: Tensor
    most: int = 2**40
    finite: bool = False

    def read(self, value: Any, place: str) -> Tensor:
        found = tuple(value.shape) if isinstance(value, Tensor) else ()
        shape = tuple(
            n if n is not None else found[k] if k < len(found) and 0 < found[k] <= self.most else 1
            for k, n in enumerate(self.shape)
        )
        copy = _copy(value, shape, self.like, place)
        if self.finite and not torch.isfinite(copy).all():
            raise StateError(f"{place}: numbers that are not finite")
        return copy


@dataclass(frozen=True)
class Count(Schema):
    """A whole number that is kept as a tensor without dimensions."""

    like: Tensor
    most: int = 2**24  # beyond it, a float32 does not count one by one

    def read(self, value: Any, place: str) -> Tensor:
        copy = _copy(value, (), self.like, place)
        number = float(copy)
        if not (0 <= number <= self.most and number == int(number)):
            raise StateError(f"{place}: {number:g} is not a number of steps")
        return copy


@dataclass(frozen=True)
class Generator(Schema):
    """The state of a random number generator on the processor."""

    def read(self, value: Any, place: str) -> Tensor:
        like = torch.Generator().get_state()
        copy = _copy(value, tuple(like.shape), like, place)
        # The Mersenne twister reads its 624 numbers from position ``next`` on until ``left`` are used up. torch looks
        # at each of the two alone, so that it would read beyond the end.
        left, following = copy[8:12].view(torch.int32).item(), copy[16:24].view(torch.int64).item()
        try:
            torch.Generator().set_state(copy)
        except RuntimeError:
            raise StateError(f"{place}: not the state of a random number generator") from None
        if not (following >= 0 and left + following <= 625):
            raise StateError(f"{place}: not the state of a random number generator")
        return copy


@dataclass(frozen=True)
class Whole(Schema):
    """A whole number from ``low`` to ``high``."""

    low: int = 0
    high: int = LARGEST

    def read(self, value: Any, place: str) -> int:
        number: int = _expect(value, int, place)
        if not self.low <= number <= self.high:
            raise StateError(f"{place}: {_short(number)} is not between {self.low} and {self.high}")
        return number


@dataclass(frozen=True)
class Real(Schema):
    """A number; a finite one where there is a least one."""

    least: float | None = None

    def read(self, value: Any, place: str) -> float:
        if type(value) not in (int, float):
            raise StateError(f"{place}: {_kind(value)} where a number is expected")
        if type(value) is int and abs(value) > LARGEST:
            raise StateError(f"{place}: {_short(value)} is too large")
        if self.least is not None and not (math.isfinite(value) and value >= self.least):
            raise StateError(f"{place}: {value} is not a finite number of at least {self.least:g}")
        return value  # type: ignore[no-any-return]


@dataclass(frozen=True)
class NoneOr(Schema):
    """``None``, or what another schema says."""

    schema: Any

    def read(self, value: Any, place: str) -> Any:
        return None if value is None else read_state(self.schema, value, place)


@dataclass(frozen=True)
class EmptyOr(Schema):
    """An empty dictionary, or what another schema says."""

    schema: Any

    def read(self, value: Any, place: str) -> Any:
        return {} if isinstance(value, dict) and not value else read_state(self.schema, value, place)


@dataclass(frozen=True)
class OneOf(Schema):
    """What one of several schemas says; messages are of the last."""

    schemas: tuple[Any, ...]

    def read(self, value: Any, place: str) -> Any:
        for schema in self.schemas[:-1]:
            try:
                return read_state(schema, value, place)
            except StateError:  # the next may fit
                continue
        return read_state(self.schemas[-1], value, place)


@dataclass(frozen=True)
class ListOf(Schema):
    """A list of at most so many values of one schema."""

    schema: Any
    most: int

    def read(self, value: Any, place: str) -> list[Any]:
        items = _expect(value, list, place)
        if len(items) > self.most:
            raise StateError(f"{place}: {len(items)} items where at most {self.most} are expected")
        return [read_state(self.schema, item, f"{place}.{k}") for k, item in enumerate(items)]


@dataclass(frozen=True)
class Added(Schema):
    """A value of a dictionary that states of earlier versions lack.

    Attributes:
        schema: of the value.
        default: what it is then; without one it stays out.
    """

    schema: Any
    default: Any = LEFT_OUT

    def read(self, value: Any, place: str) -> Any:
        return read_state(self.schema, value, place)


@dataclass(frozen=True)
class Own(Schema):
    """A value that is the run's own whatever was saved: it follows from the configuration."""

    value: Any

    def read(self, value: Any, place: str) -> Any:
        return self.value


@dataclass(frozen=True)
class Unread(Schema):
    """A value that is looked at elsewhere, as it is."""

    def read(self, value: Any, place: str) -> Any:
        return value


@dataclass(frozen=True)
class Anything(Schema):
    """Any plain values and tensors in dictionaries and lists."""

    depth: int = DEPTH

    def read(self, value: Any, place: str) -> Any:
        inner = Anything(self.depth - 1)
        if value is None or type(value) in (bool, int, float, str):
            return value
        if isinstance(value, Tensor):
            return _copy(value, tuple(value.shape), value, place, any_order=True)
        if self.depth and isinstance(value, dict) and all(type(key) in (int, str) for key in value):
            return {key: inner.read(each, f"{place}.{key}") for key, each in value.items()}
        if self.depth and type(value) in (list, tuple):
            return type(value)(inner.read(each, f"{place}.{k}") for k, each in enumerate(value))
        raise StateError(f"{place}: {_kind(value)} has no place there")


def _read_mapping(schema: Mapping[Any, Any], value: Any, place: str) -> dict[Any, Any]:
    """The values by key, in the schema's order."""
    if not isinstance(value, dict):
        raise StateError(f"{place}: {_kind(value)} where named values are expected")
    _check_names(value, schema, place)
    read = {}
    for key, each in schema.items():
        if key in value:
            read[key] = read_state(each, value[key], f"{place}.{key}")
        elif not isinstance(each, Added):
            raise StateError(f"{place}.{key} is missing")
        elif each.default is not LEFT_OUT:
            read[key] = each.default
    return read


def _check_names(value: Mapping[Any, Any], known: Collection[Any], place: str) -> None:
    for key in value:
        if type(key) not in (int, str) or key not in known:
            raise StateError(f"{place}.{_short(key)} has no place there")


def _copy(value: Any, shape: tuple[int, ...], like: Tensor, place: str, any_order: bool = False) -> Tensor:
    """A tensor in fresh memory of its own, after a look at everything that could make it another one than it seems."""
    if type(value) is not Tensor or value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
        raise StateError(f"{place}: {_kind(value)} where a tensor is expected")
    if tuple(value.shape) != shape:
        raise StateError(f"{place}: shape {_short(list(value.shape))} where {_short(list(shape))} is expected")
    if value.dtype != like.dtype:
        raise StateError(f"{place}: {value.dtype} where {like.dtype} is expected")
    value = value.detach().resolve_conj().resolve_neg()
    if not any_order and not value.is_contiguous():
        raise StateError(f"{place}: a tensor whose elements do not lie one after the other")
    try:
        copy = value.clone()  # keeps the order of the elements, and gives each memory of its own
    except (RuntimeError, MemoryError):
        raise StateError(f"{place}: shape {_short(list(shape))} does not fit into memory") from None
    if copy.stride() != value.stride() and copy.numel():
        raise StateError(f"{place}: a tensor whose elements share memory")
    moved: Tensor = copy.to(like.device)
    return moved


def _expect(value: Any, kind: type, place: str) -> Any:
    if type(value) is not kind:
        raise StateError(f"{place}: {_kind(value)} where {_NAMES.get(kind, kind.__name__)} is expected")
    return value


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return (
            "a tensor" if value.layout == torch.strided and value.device.type == "cpu" else "a tensor of another kind"
        )
    return "None" if value is None else _NAMES.get(type(value), type(value).__name__)


_NAMES: dict[type, str] = {
    int: "a whole number",
    float: "a number",
    bool: "a truth value",
    str: "a text",
    list: "a list",
    tuple: "a list",
    dict: "named values",
    type(None): "nothing",
}


def _short(value: Any) -> str:
    if isinstance(value, int) and abs(value) > LARGEST:
        return "a whole number of many digits"
    text = str(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
