"""Residuals that are no functions: what they change is named, and what only looks like it is not."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ntkrun.network import with_coefficients
from ntkrun.objective import Objective
from ntkrun.objective.state import changed_by
from ntkrun.pde import PDE, Columns, Term
from tests.pde.test_problems import ALL
from tests.problems import ONE, mlp

calls = 0
history: list[float] = []


class Stateful(PDE):
    """One residual of many kinds."""

    domain = ONE

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.calls, self.factor, self.table = 0, torch.ones(2), np.ones(2)
        self.inner = SimpleNamespace(seen={"residual": 0})
        self.generator = torch.Generator().manual_seed(0)
        self.cache: dict[str, torch.Tensor] = {}

    def terms(self) -> tuple[Term, ...]:
        def count(x: Columns, d: Columns) -> Any:
            nonlocal number
            number += 1
            return d.u * number

        number = 0
        residual = count if self.kind == "closure" else lambda x, d: getattr(self, f"_{self.kind}")(x, d)
        residual = getattr(self, f"_{self.kind}", residual)
        return (Term("residual", (self.domain,), ("u",), residual),)

    def _attribute(self, x: Columns, d: Columns) -> Any:
        self.calls += 1
        return d.u

    def _tensor(self, x: Columns, d: Columns) -> Any:
        self.factor += 1
        return d.u * self.factor[0]

    def _array(self, x: Columns, d: Columns) -> Any:
        self.table[0] *= 2
        return d.u * self.table[0]

    def _nested(self, x: Columns, d: Columns) -> Any:
        self.inner.seen["residual"] += 1
        return d.u

    def _generator(self, x: Columns, d: Columns) -> Any:
        return d.u + torch.rand((), generator=self.generator)

    def _random(self, x: Columns, d: Columns) -> Any:
        return d.u + torch.rand(())

    def _globals(self, x: Columns, d: Columns) -> Any:
        global calls
        calls += 1
        history.append(0.0)
        return d.u

    def _cached(self, x: Columns, d: Columns) -> Any:
        if "weight" not in self.cache:
            self.cache["weight"] = torch.ones(1)
        self.last = d.u
        return d.u * self.cache["weight"]


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("attribute", "self.calls"),
        ("tensor", "self.factor"),
        ("array", "self.table"),
        ("nested", "self.inner"),
        ("generator", "self.generator"),
        ("random", "torch's random numbers"),
        ("globals", "calls, history"),
        ("closure", "number"),
        ("cached", None),
    ],
)
def test_what_a_residual_changes_is_named(kind: str, names: str | None) -> None:
    objective = Objective(Stateful(kind), mlp(ONE), route="dense")
    assert objective.changing == ({} if names is None else {"residual": tuple(names.split(", "))})


class Counter:
    """A callable object."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: Any, d: Any) -> None:
        self.calls += 1


def test_callable_objects_and_nested_functions() -> None:
    counter = Counter()
    assert changed_by(partial(counter, 0, 0), counter) == ("Counter.calls",)

    def outer(x: Any, d: Any) -> None:
        counter(x, d)

    assert changed_by(partial(outer, 0, 0), outer) == ("counter",)
    assert changed_by(lambda: None, outer) == ()


@pytest.mark.parametrize("pde", ALL.values(), ids=ALL)
def test_the_problems_here_change_nothing(pde: PDE) -> None:
    network = with_coefficients(mlp(pde.domain, len(pde.fields)), pde.coefficients)
    assert Objective(pde, network, route="dense").changing == {}
