"""Plain JAX: derivatives by nested ``jax.grad``, vectorised over points, and Adam, in one ``jit`` per step."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from training.cases import HELMHOLTZ_K, RATE, WAVE_SPEED, Case
from training.turns import Turns


def train(case: Case, *overrides: str) -> None:
    """Train until told to stop; ``dtype=float64`` and ``device=`` are read, the latter by what JAX finds."""
    dtype = jnp.float64 if "dtype=float64" in overrides else jnp.float32
    jax.config.update("jax_enable_x64", dtype == jnp.float64)
    jax.config.update("jax_default_matmul_precision", "highest")  # on a card its own choice has fewer digits
    parameters = [(jnp.asarray(w, dtype), jnp.asarray(b, dtype)) for w, b in case.draw_layers()]
    state = (parameters, *(jax.tree.map(jnp.zeros_like, parameters) for _ in range(2)), jnp.zeros(()))
    points = {term: jnp.asarray(x, dtype) for term, x in case.draw_points().items()}
    step = jax.jit(lambda state, points: adam(state, jax.grad(lambda p: loss(case, p, points))(state[0])))

    def layers() -> list[Any]:
        return [(np.asarray(w), np.asarray(b)) for w, b in state[0]]

    def memory() -> int:
        statistics = jax.devices()[0].memory_stats() or {}
        return int(statistics.get("peak_bytes_in_use", 0))

    turns = Turns(layers, lambda: jax.block_until_ready(state), memory)
    while turns():
        state = step(state, points)


def network(parameters: Any, *coordinates: Any) -> Any:
    """U at one point."""
    h = jnp.stack(coordinates)
    for w, b in parameters[:-1]:
        h = jnp.tanh(w @ h + b)
    w, b = parameters[-1]
    return (w @ h + b)[0]


def loss(case: Case, parameters: Any, points: Any) -> Any:
    """The sum of the mean squares of all terms."""
    total = 0.0
    for term, x in points.items():
        residual = jax.vmap(lambda *z, term=term: residual_at(case, term, parameters, *z))
        total = total + jnp.mean(residual(*x.T) ** 2)
    return total


def residual_at(case: Case, term: str, parameters: Any, *z: Any) -> Any:
    """The residual of a term at one point."""

    def second(i: int) -> Any:
        return jax.grad(jax.grad(network, i + 1), i + 1)(parameters, *z)

    if term == "boundary":
        return network(parameters, *z)
    if term == "initial":
        return network(parameters, *z) - jnp.sin(math.pi * z[0]) - 0.5 * jnp.sin(4 * math.pi * z[0])
    if term == "initial_velocity":
        return jax.grad(network, 2)(parameters, *z)
    if case.pde == "poisson":
        return second(0) + (4 * math.pi) ** 2 * jnp.sin(4 * math.pi * z[0])
    if case.pde == "wave":
        return second(1) - WAVE_SPEED**2 * second(0)
    forcing = (HELMHOLTZ_K**2 - 17 * math.pi**2) * jnp.sin(math.pi * z[0]) * jnp.sin(4 * math.pi * z[1])
    return second(0) + second(1) + HELMHOLTZ_K**2 * network(parameters, *z) - forcing


def adam(state: Any, gradient: Any) -> Any:
    """One step of Adam (Kingma, Ba, arXiv 1412.6980)."""
    parameters, first, second, count = state
    count = count + 1
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradient)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradient)
    a, b = 1 - 0.9**count, 1 - 0.999**count
    parameters = jax.tree.map(lambda p, m, v: p - RATE * (m / a) / (jnp.sqrt(v / b) + 1e-8), parameters, first, second)
    return parameters, first, second, count
