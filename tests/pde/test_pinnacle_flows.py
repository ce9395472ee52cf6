"""The flows, waves and reactions under ``scripts/pinnacle``: solutions satisfy what their problems ask for."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from ntkrun.network import MLP
from ntkrun.objective import Objective
from ntkrun.pde import PDE, Columns
from tests.oracle import draw_points, term_columns


def posed(name: str) -> PDE:
    module = importlib.import_module(f"scripts.pinnacle.{name}")
    pde: PDE = getattr(module, "".join(part.capitalize() for part in name.split("_")))()
    return pde


@pytest.mark.parametrize(("name", "size"), [("burgers1d_c", 1.0), ("wave1d_c", 1.0), ("wave2d_ms", 6.2e3)])
def test_closed_forms_have_no_residual(name: str, size: float) -> None:
    pde = posed(name)
    objective = Objective(pde, MLP(4, 1, domain=pde.domain).double())

    def solution(x: torch.Tensor) -> torch.Tensor:
        u = pde.exact(pde.columns(x[:, : len(pde.coordinates)]))
        assert u is not None
        return u[:, None]

    points = draw_points(objective, [15] * len(objective.terms))
    for i, term in enumerate(objective.terms):
        x = points[term.name]
        residual = term.residual(pde.columns(x, further=term.columns), term_columns(solution, x, objective, i))
        assert residual.abs().max() < 1e-8 * size, term.name


def on_face(letter: str, value: float) -> Callable[[Any], Any]:
    return lambda x: abs(x[letter] - value) < 1e-12


CONDITIONS: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("burgers2d_c", "initial"): on_face("t", 0),
    ("ks", "initial"): on_face("t", 0),
    ("gs", "initial"): on_face("t", 0),
    ("wave2d_cg", "initial"): on_face("t", 0),
    ("ns2d_c", "lid"): on_face("y", 1),
    ("ns2d_c", "walls"): lambda x: (x["y"] == 0) | (x["x"] == 0) | (x["x"] == 1),
    ("ns2d_lt", "inlet"): on_face("x", 0),
    ("ns2d_lt", "walls"): lambda x: (x["y"] == 0) | (x["y"] == 1),
    ("ns2d_lt", "initial"): on_face("t", 0),
    ("ns2d_cg", "inlet"): lambda x: (x["x"] == 0) & (x["y"] <= 1),
    ("ns2d_cg", "walls"): lambda x: (x["y"] == 0) | (x["y"] == 2) | ((x["x"] <= 2) & (x["y"] == 1)),
}


@pytest.mark.parametrize(("name", "term"), CONDITIONS)
def test_references_have_the_given_values(name: str, term: str) -> None:
    """At nodes of their grid; elements of second order follow a sine between theirs to 6e-5."""
    pde = posed(name)
    reference = pde.reference()
    assert reference is not None
    grid = np.meshgrid(*reference.axes.values(), indexing="ij")
    places = dict(zip(reference.axes, grid, strict=True))
    (found,) = [each for each in pde.terms() if each.name == term]
    read = [pde.fields.index(each) for each in found.derivatives]
    chosen = CONDITIONS[name, term](places) & np.isfinite(reference.values[..., read]).all(-1)
    assert chosen.sum() >= 20
    values = {f: torch.from_numpy(reference.values[chosen][:, i]).double() for i, f in enumerate(pde.fields)}
    x = Columns({c: torch.from_numpy(each[chosen]) for c, each in places.items()}, "the grid")
    assert found.residual(x, Columns(values, "the reference")).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["ks", "gs", "burgers2d_c"])
def test_references_are_periodic(name: str) -> None:
    reference = posed(name).reference()
    assert reference is not None
    for axis, letter in enumerate(reference.axes):
        if letter != "t":
            ends = np.take(reference.values, [0, -1], axis=axis)
            np.testing.assert_allclose(*np.moveaxis(ends, axis, 0), atol=2e-6)


def test_the_solution_of_ks_satisfies_its_equation_before_it_is_chaotic() -> None:
    """By Fourier series in x and differences of fourth order in t, of the file itself."""
    reference = posed("ks").reference()
    assert reference is not None
    u, t = reference.values[:-1, :, 0].astype(float), reference.axes["t"]
    k = np.fft.fftfreq(len(u), 1 / len(u))[:, None]
    slope = [np.fft.ifft((1j * k) ** order * np.fft.fft(u, axis=0), axis=0).real for order in (1, 2, 4)]
    rate = (8 * (u[:, 3:-1] - u[:, 1:-3]) - (u[:, 4:] - u[:, :-4])) / (12 * (t[1] - t[0]))
    right = 100 / 16 * u * slope[0] + 100 / 16**2 * slope[1] + 100 / 16**4 * slope[2]
    quiet = slice(40, 80)  # t from 0.2 to 0.4: after the layer has formed, and before waves are short
    difference = (rate + right[:, 2:-2])[:, quiet]
    assert math.sqrt((difference**2).mean() / (rate[:, quiet] ** 2).mean()) < 0.02
