"""What every program trains: problem, network, points, initial values. Needs NumPy alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

RATE = 1e-3  # of Adam; the moments decay by 0.9 and 0.999, epsilon is 1e-8
WAVE_SPEED, HELMHOLTZ_K = 2.0, 1.0

# Taylor streams that the residual of a term needs: the value, every derivative below the highest ones, and their sum.
STREAMS = {
    "poisson": {"residual": 3, "boundary": 1},
    "wave": {"residual": 4, "boundary": 1, "initial": 1, "initial_velocity": 2},
    "helmholtz": {"residual": 4, "boundary": 1},
}


@dataclass(frozen=True)
class Case:
    """A problem, a tanh network and the number of points of each term.

    Attributes:
        name: in tables and on the command line.
        pde: one of ``STREAMS``.
        width, depth: of the hidden layers.
        counts: points by term.
        series: what grows from case to case, for those of a growth curve.
    """

    name: str
    pde: str
    width: int
    depth: int
    counts: Mapping[str, int]
    series: str = ""

    @property
    def sizes(self) -> list[int]:
        """Units of all layers, inputs and output included."""
        return [1 if self.pde == "poisson" else 2, *[self.width] * self.depth, 1]

    @property
    def points(self) -> int:
        """Points of all terms."""
        return sum(self.counts.values())

    def draw_points(self) -> dict[str, Array]:
        """Uniform points of every term, ``[N_i, d]``, the same in every program."""
        random = np.random.default_rng(1)
        low = -1.0 if self.pde == "helmholtz" else 0.0
        drawn = {}
        for term, n in self.counts.items():
            x = random.uniform(low, 1.0, (n, self.sizes[0]))
            if term == "boundary" and self.pde == "helmholtz":
                edge = np.arange(n) % 4
                x[np.arange(n), edge // 2] = np.where(edge % 2, 1.0, -1.0)
            elif term == "boundary":
                x[:, 0] = np.arange(n) % 2
            elif term.startswith("initial"):
                x[:, 1] = 0
            drawn[term] = x.astype(np.float32)
        return drawn

    def draw_layers(self) -> list[tuple[Array, Array]]:
        """Glorot's normal weights, ``[out, in]``, and zero biases."""
        random = np.random.default_rng(2)
        layers = []
        for a, b in pairwise(self.sizes):
            weight = random.normal(0, math.sqrt(2 / (a + b)), (b, a)).astype(np.float32)
            layers.append((weight, np.zeros(b, dtype=np.float32)))
        return layers

    def products(self) -> Iterator[tuple[int, int, int]]:
        """Shapes (m, k, n) of the matrix products ``[m, k] [k, n]`` that a step in Taylor mode cannot do without.

        Every layer has one in the forward pass and one for its weight gradient, and all but the first one for the
        gradient of its inputs. Derivatives of the coordinates themselves are constants, so the first layer has the
        rows of the values only.
        """
        streams = STREAMS[self.pde]
        for term, n in self.counts.items():
            for layer, (a, b) in enumerate(pairwise(self.sizes)):
                rows = n * (streams[term] if layer else 1)
                yield rows, a, b
                yield b, rows, a
                if layer:
                    yield rows, b, a


def wave_counts(points: int) -> dict[str, int]:
    """Points of the wave problem: so many, and six tenths of that on boundary and initial line."""
    ends, start = max(2, round(0.3 * points)), max(1, round(0.15 * points))
    return {"residual": points, "boundary": ends, "initial": start, "initial_velocity": start}


MAIN = (
    Case("poisson 1-512-1", "poisson", 512, 1, {"residual": 100, "boundary": 100}),
    Case("wave 2-50x4-1", "wave", 50, 4, {"residual": 1000, "boundary": 100, "initial": 50, "initial_velocity": 50}),
    Case("wave 2-500x3-1", "wave", 500, 3, {"residual": 300, "boundary": 200, "initial": 100, "initial_velocity": 100}),
    Case("helmholtz 2-128x4-1", "helmholtz", 128, 4, {"residual": 5000, "boundary": 400}),
)
WEIGHED = (  # under several weightings alone; names and points of scripts/benchmark_kernel.py
    Case("wave 2-128x4-1, 2,000", "wave", 128, 4, dict(zip(STREAMS["wave"], (2000, 200, 200, 200), strict=True))),
    Case("wave 2-256x4-1, 10,000", "wave", 256, 4, dict(zip(STREAMS["wave"], (10_000, 500, 500, 500), strict=True))),
)
POINTS = tuple(
    Case(f"points {n}", "wave", 50, 4, wave_counts(n), "points")
    for n in (100, 300, 1000, 3000, 10_000, 30_000, 100_000)
)
WIDTHS = tuple(
    Case(f"width {width}", "wave", width, 3, wave_counts(1000), "width") for width in (32, 64, 128, 256, 512, 1024)
)
LARGE = tuple(
    Case(f"wave 2-{width}x{depth}-1, 100,000 points", "wave", width, depth, wave_counts(62_500))
    for width, depth in ((500, 3), (256, 4))
)
SMALL = (Case("wave 2-16x2-1", "wave", 16, 2, wave_counts(64)),)
CASES = {case.name: case for case in (*MAIN, *WEIGHED, *POINTS, *WIDTHS)}
EVERY = {**CASES, **{case.name: case for case in (*LARGE, *SMALL)}}  # those of a card as well
