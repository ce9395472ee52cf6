"""The constructor of a class is the schema of its configuration, also where it takes what others take as well."""

from __future__ import annotations

from typing import Any, Required, TypedDict, Unpack

import pytest

from ntkrun.common.errors import ConfigError
from ntkrun.common.types import Positive
from ntkrun.config.component import read_component


class Shared(TypedDict, total=False):
    rate: Required[Positive[float]]
    name: str
    size: int


class Declared:
    def __init__(self, width: int = 3, **shared: Unpack[Shared]) -> None:
        self.given = {"width": width, **shared}


class Open:
    def __init__(self, width: int = 3, **others: Any) -> None:
        self.given = {"width": width, **others}


class Bare:
    """Takes nothing."""


def read(cls: type, **values: Any) -> Any:
    node = {"_target_": f"{cls.__module__}.{cls.__qualname__}", **values}
    return read_component(node, "part", cls, ("size",)).build(size=7, other=8).given


def test_arguments_that_are_shared_count_as_if_they_stood_in_the_signature() -> None:
    assert read(Declared, width=2, rate=0.5) == {"width": 2, "rate": 0.5, "size": 7}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate": -1.0}, "part.rate=-1.0"),
        ({"rate": 1.0, "name": 3}, "part.name=3"),
        ({}, "part.rate is missing; Declared needs it"),
        ({"rate": 1.0, "nam": "x"}, "did you mean part.name"),
        ({"rate": 1.0, "size": 3}, "part.size"),  # no configuration
    ],
)
def test_they_are_checked(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(Declared, **values)


def test_a_class_may_take_anything() -> None:
    assert read(Open, colour="red") == {"width": 3, "colour": "red"}


def test_a_class_may_take_nothing() -> None:
    with pytest.raises(ConfigError, match=r"unknown key part\.width; Bare takes no arguments$"):
        read(Bare, width=3)
