"""Every public name of the package is documented, methods at least where they are first declared.

The linter holds modules, classes and functions to it, but cannot see what a method overrides.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

import ntkrun


def modules() -> Iterator[ModuleType]:
    yield ntkrun
    for found in pkgutil.walk_packages(ntkrun.__path__, "ntkrun."):
        if not found.name.endswith(".__main__"):
            yield importlib.import_module(found.name)


def members(owner: ModuleType | type) -> Iterator[tuple[str, object]]:
    """The functions and classes of a module with its methods, properties and inner classes, of public names."""
    for name, value in vars(owner).items():
        own = getattr(value, "__module__", owner.__name__) == owner.__name__ or isinstance(owner, type)
        known = inspect.isroutine(value) or isinstance(value, property | type)
        if name.startswith("_") or not own or not known:
            continue
        yield f"{owner.__name__}.{name}", getattr(owner, name)
        if isinstance(value, type):
            yield from members(value)


def undocumented(module: ModuleType) -> list[str]:
    everything = [(module.__name__, module), *members(module)]
    return [name for name, value in everything if not inspect.getdoc(value)]


def test_every_public_name_is_documented() -> None:
    everything = list(modules())
    assert {"ntkrun.cli.main", "ntkrun.ntk.sketch", "ntkrun.report.page"} <= {module.__name__ for module in everything}
    assert [name for module in everything for name in undocumented(module)] == []


EXAMPLE = """
class Base:
    "A base."
    def act(self):
        "Act."
class Child(Base):
    "A child."
    def act(self): ...
    def more(self): ...
    @property
    def size(self): ...
    def _hidden(self): ...
def function(): ...
def _hidden(): ...
"""


def test_what_is_not_documented_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("example", "A module.")
    monkeypatch.setitem(sys.modules, "example", module)
    exec(EXAMPLE, vars(module))
    assert undocumented(module) == ["Child.more", "Child.size", "example.function"]
