"""Levenberg-Marquardt of optimistix on the residual rows of a JAX network, float64, ``jit``."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import torch

from accuracy.cases import Case, Watch

jax.config.update("jax_enable_x64", True)
WEIGHT = 100.0  # of conditions in the loss
NU = 0.01 / math.pi


def train(case: Case, seed: int, limit: float) -> Watch:
    """Train until the time is up, or until it stops by itself."""
    points = {name: jnp.asarray(x.numpy()) for name, x in case.points(seed).items()}
    parameters = draw(case, np.random.default_rng(seed))
    activation = jnp.sin if case.sine else jnp.tanh
    features = jax.vmap(lambda z: case.features(z, jnp, jnp.stack))(jnp.concatenate(list(points.values())))
    mean, deviation = features.mean(0), features.std(0)  # inputs as ntkrun has them: standardised

    def u(p: Any, z: Any) -> Any:
        h = (case.features(z, jnp, jnp.stack) - mean) / deviation
        for w, b in p[:-1]:
            h = activation(w @ h + b)
        w, b = p[-1]
        return (w @ h + b)[0]

    def rows(p: Any, _: Any) -> Any:
        out = []
        for name, x in points.items():
            weight = math.sqrt((1.0 if name == "residual" else WEIGHT) / len(x))
            own = jax.vmap(lambda z, name=name: RESIDUALS[type(case.pde).__name__](name, lambda y: u(p, y), z))(x)
            out.append(weight * own)
        return jnp.concatenate(out)

    solver = optx.LevenbergMarquardt(rtol=1e-15, atol=1e-30)
    struct = jax.eval_shape(lambda: (rows(parameters, None), None))
    function = lambda p, args: (rows(p, args), None)  # noqa: E731
    tags: frozenset[object] = frozenset()
    watch = Watch(case, limit)  # compilation counts, as it does for everybody
    state = solver.init(function, parameters, None, {}, *struct, tags)
    step = eqx.filter_jit(lambda p, s: solver.step(function, p, None, {}, s, tags))
    values = jax.jit(jax.vmap(u, in_axes=(None, 0)))

    def predict(x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.array(values(parameters, jnp.asarray(x.numpy()))))

    while not watch.over(predict):
        parameters, state, _ = step(parameters, state)
        jax.block_until_ready(parameters)
        if not all(bool(jnp.isfinite(part).all()) for part in jax.tree.leaves(parameters)):
            break
    return watch


def draw(case: Case, random: np.random.Generator) -> Any:
    """Glorot's normal weights and zero biases."""
    sizes = [case.inputs, *[case.width] * case.depth, 1]
    return [(jnp.asarray(random.normal(0, math.sqrt(2 / (a + b)), (b, a))), jnp.zeros(b)) for a, b in pairwise(sizes)]


def along(f: Callable[[Any], Any], z: Any, axis: int, order: int) -> Any:
    """A derivative along a coordinate, by nested forward mode."""
    direction = jnp.zeros_like(z).at[axis].set(1.0)
    for _ in range(order):
        f = lambda y, f=f: jax.jvp(f, (y,), (direction,))[1]  # noqa: E731
    return f(z)


def poisson(term: str, u: Any, z: Any) -> Any:
    """See ``ntkrun.pde.Poisson``."""
    k = 4 * math.pi
    return u(z) if term == "boundary" else along(u, z, 0, 2) + k**2 * jnp.sin(k * z[0])


def wave(term: str, u: Any, z: Any) -> Any:
    """See ``ntkrun.pde.Wave``."""
    if term == "residual":
        return along(u, z, 1, 2) - 4 * along(u, z, 0, 2)
    if term == "initial_velocity":
        return along(u, z, 1, 1)
    return u(z) - (jnp.sin(math.pi * z[0]) + 0.5 * jnp.sin(4 * math.pi * z[0]) if term == "initial" else 0.0)


def helmholtz(term: str, u: Any, z: Any) -> Any:
    """See ``ntkrun.pde.Helmholtz``."""
    if term == "boundary":
        return u(z)
    exact = jnp.sin(math.pi * z[0]) * jnp.sin(4 * math.pi * z[1])
    return along(u, z, 0, 2) + along(u, z, 1, 2) + u(z) - (1 - 17 * math.pi**2) * exact


def klein_gordon(term: str, u: Any, z: Any) -> Any:
    """See ``ntkrun.pde.KleinGordon``."""
    w, (x, t) = 5 * math.pi, z
    exact = x * jnp.cos(w * t) + (x * t) ** 3
    if term == "residual":
        source = -(w**2) * x * jnp.cos(w * t) + 6 * x**3 * t - 6 * x * t**3 + exact**3
        return along(u, z, 1, 2) - along(u, z, 0, 2) + u(z) ** 3 - source
    return along(u, z, 1, 1) if term == "initial_velocity" else u(z) - exact


def burgers(term: str, u: Any, z: Any) -> Any:
    """See ``ntkrun.pde.Burgers``."""
    if term == "residual":
        return along(u, z, 1, 1) + u(z) * along(u, z, 0, 1) - NU * along(u, z, 0, 2)
    return u(z) + (jnp.sin(math.pi * z[0]) if term == "initial" else 0.0)


def allen_cahn(term: str, u: Any, z: Any) -> Any:
    """See ``ntkrun.pde.AllenCahn``."""
    if term == "residual":
        return along(u, z, 1, 1) - 1e-4 * along(u, z, 0, 2) + 5 * (u(z) ** 3 - u(z))
    return u(z) - z[0] ** 2 * jnp.cos(math.pi * z[0])


RESIDUALS = {
    "Poisson": poisson,
    "Wave": wave,
    "Helmholtz": helmholtz,
    "KleinGordon": klein_gordon,
    "Burgers": burgers,
    "AllenCahn": allen_cahn,
}
