"""Problems and networks written once more in JAX, from their formulas, with derivatives by nested forward mode.

Nothing here is taken from ntkrun but the values of parameters: what both agree in, both have right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = Any
Function = Callable[[Array], Array]
"""Maps one point ``[d]`` to the fields ``[fields]``."""
Residuals = dict[str, Function]
"""For every term, what maps one point to its residuals, ``[m]``."""

PI = np.pi


def d(function: Function, coordinates: str, letters: str) -> Function:
    """A partial derivative, as a function of the point."""
    for letter in letters:
        function = _along(function, np.eye(len(coordinates))[coordinates.index(letter)])
    return function


def _along(function: Function, direction: Array) -> Function:
    return lambda z: jax.jvp(function, (z,), (jnp.asarray(direction),))[1]


def _laplacian(u: Function, coordinates: str) -> Function:
    return lambda z: sum(d(u, coordinates, 2 * c)(z) for c in coordinates)


# Problems: residuals of a network u, by term


def poisson(u: Function) -> Residuals:
    return {"residual": lambda z: d(u, "x", "xx")(z) + (4 * PI) ** 2 * jnp.sin(4 * PI * z[0]), "boundary": u}


def poisson2d(u: Function) -> Residuals:
    def exact(z: Array) -> Array:
        return jnp.sin(2 * PI * z[:1]) * jnp.sin(2 * PI * z[1:])

    return {"residual": lambda z: _laplacian(u, "xy")(z) - _laplacian(exact, "xy")(z), "boundary": u}


def helmholtz(u: Function) -> Residuals:
    def operator(f: Function) -> Function:
        return lambda z: _laplacian(f, "xy")(z) + f(z)

    def exact(z: Array) -> Array:
        return jnp.sin(PI * z[:1]) * jnp.sin(4 * PI * z[1:])

    return {"residual": lambda z: operator(u)(z) - operator(exact)(z), "boundary": u}


def wave(u: Function) -> Residuals:
    return {
        "residual": lambda z: d(u, "xt", "tt")(z) - 4 * d(u, "xt", "xx")(z),
        "boundary": u,
        "initial": lambda z: u(z) - jnp.sin(PI * z[0]) - 0.5 * jnp.sin(4 * PI * z[0]),
        "initial_velocity": d(u, "xt", "t"),
    }


def diffusion(u: Function) -> Residuals:
    return {
        "residual": lambda z: d(u, "xt", "t")(z) - 0.05 * d(u, "xt", "xx")(z),
        "boundary": u,
        "initial": lambda z: u(z) - jnp.sin(2 * PI * z[0]),
    }


def _shifted(z: Array, period: float) -> Array:
    return z + jnp.array([period, 0.0])


def advection(u: Function) -> Residuals:
    return {
        "residual": lambda z: d(u, "xt", "t")(z) + 10 * d(u, "xt", "x")(z),
        "initial": lambda z: u(z) - jnp.sin(z[0]),
        "periodic": lambda z: u(z) - u(_shifted(z, 2 * PI)),
    }


def burgers(u: Function) -> Residuals:
    return {
        "residual": lambda z: d(u, "xt", "t")(z) + u(z) * d(u, "xt", "x")(z) - 0.01 / PI * d(u, "xt", "xx")(z),
        "boundary": u,
        "initial": lambda z: u(z) + jnp.sin(PI * z[0]),
    }


def allen_cahn(u: Function) -> Residuals:
    ux = d(u, "xt", "x")
    return {
        "residual": lambda z: d(u, "xt", "t")(z) - 1e-4 * d(u, "xt", "xx")(z) + 5 * (u(z) ** 3 - u(z)),
        "initial": lambda z: u(z) - z[0] ** 2 * jnp.cos(PI * z[0]),
        "periodic": lambda z: jnp.concatenate([u(z) - u(_shifted(z, 2.0)), ux(z) - ux(_shifted(z, 2.0))]),
    }


def klein_gordon(u: Function) -> Residuals:
    def operator(f: Function) -> Function:
        return lambda z: d(f, "xt", "tt")(z) - d(f, "xt", "xx")(z) + f(z) ** 3

    def exact(z: Array) -> Array:
        return z[:1] * jnp.cos(5 * PI * z[1]) + (z[:1] * z[1]) ** 3

    return {
        "residual": lambda z: operator(u)(z) - operator(exact)(z),
        "boundary": lambda z: u(z) - exact(z),
        "initial": lambda z: u(z) - z[0],
        "initial_velocity": d(u, "xt", "t"),
    }


def beam(u: Function) -> Residuals:
    def operator(f: Function) -> Function:
        return lambda z: d(f, "xt", "tt")(z) + d(f, "xt", "xxxx")(z)

    def exact(z: Array) -> Array:
        return jnp.sin(z[:1]) * jnp.cos(4 * PI * z[1])

    return {
        "residual": lambda z: operator(u)(z) - operator(exact)(z),
        "boundary": u,
        "moment": d(u, "xt", "xx"),
        "initial": lambda z: u(z) - jnp.sin(z[0]),
        "initial_velocity": d(u, "xt", "t"),
    }


def regression(u: Function) -> Residuals:
    return {"data": lambda z: u(z) - sum(jnp.sin(2 * PI * f * z[0]) for f in (1, 2, 4, 8))}


def cavity(u: Function) -> Residuals:
    def momentum(z: Array) -> Array:
        value, x, y = u(z), d(u, "xy", "x")(z), d(u, "xy", "y")(z)
        viscous = _laplacian(u, "xy")(z) / 100
        along_x = value[0] * x[0] + value[1] * y[0] + x[2] - viscous[0]
        along_y = value[0] * x[1] + value[1] * y[1] + y[2] - viscous[1]
        return jnp.stack([along_x, along_y, x[0] + y[1]])

    return {
        "residual": momentum,
        "lid": lambda z: u(z)[:2] - jnp.array([1.0, 0.0]),
        "walls": lambda z: u(z)[:2],
        "pressure": lambda z: u(z)[2:],
    }


# Networks: from parameters and buffers by name to a function of the point, given ``scaled`` coordinates

Parameters = Mapping[str, Array]


def _affine(p: Parameters, name: str, h: Array) -> Array:
    return p[f"{name}.weight"] @ h + p[f"{name}.bias"]


def _count(p: Parameters, name: str) -> int:
    return len({key.split(".")[1] for key in p if key.startswith(f"{name}.")})


def mlp(p: Parameters, h: Array) -> Array:
    last = _count(p, "layers") - 1
    for k in range(last):
        h = jnp.tanh(_affine(p, f"layers.{k}", h))
    return _affine(p, f"layers.{last}", h)


def modified_mlp(p: Parameters, h: Array) -> Array:
    u, v = (jnp.tanh(_affine(p, name, h)) for name in "uv")
    last = _count(p, "layers") - 1
    for k in range(last):
        z = jnp.tanh(_affine(p, f"layers.{k}", h))
        h = z * u + (1 - z) * v
    return _affine(p, f"layers.{last}", h)


def _features(frequencies: Array, h: Array) -> Array:
    angles = 2 * PI * frequencies @ h
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)])


def fourier(p: Parameters, h: Array) -> Array:
    results = []
    for i in range(_count(p, "features")):
        g = _features(p[f"features.{i}.frequencies"], h)
        for k in range(_count(p, "hidden")):
            g = jnp.tanh(_affine(p, f"hidden.{k}", g))
        results.append(g)
    return _affine(p, "last", jnp.concatenate(results))


def cpikan(p: Parameters, h: Array) -> Array:
    for k in range(_count(p, "layers")):
        c = p[f"layers.{k}.coefficients"].reshape(-1, len(h), p[f"layers.{k}.coefficients"].shape[1] // len(h))
        t = jnp.tanh(h)
        chebyshev = [jnp.ones_like(t), t]
        while len(chebyshev) < c.shape[2]:
            chebyshev.append(2 * t * chebyshev[-1] - chebyshev[-2])
        h = jnp.einsum("oik,ki->o", c, jnp.stack(chebyshev))
    return h


def ecrn(p: Parameters, h: Array) -> Array:
    h = _features(p["features.frequencies"], h)
    for k in range(_count(p, "layers")):
        h = h + p[f"alphas.{k}"] * jnp.tanh(_affine(p, f"layers.{k}", h))
    return _affine(p, "last", h)


def losses_and_traces(
    problem: Callable[[Function], Residuals],
    network: Callable[[Parameters, Array], Array],
    parameters: Parameters,
    buffers: Parameters,
    standardize: Function,
    points: Mapping[str, Array],
) -> dict[str, tuple[float, float]]:
    """Of every term, the mean squared residual and the trace of its kernel.

    Args:
        problem: gives the residuals of a network.
        network: see above.
        parameters: trained ones by name.
        buffers: others by name.
        standardize: what the network does with a point first.
        points: by term, ``[N, d]``.
    """

    def residual(name: str, p: Parameters, z: Array) -> Array:
        return problem(lambda x: network({**p, **buffers}, standardize(x)))[name](z)

    found = {}
    for name, x in points.items():
        rows = jax.jit(jax.vmap(lambda z, name=name: residual(name, parameters, z)))(x)

        def square(z: Array, name: str = name) -> Array:
            gradients = jax.jacrev(lambda p: residual(name, p, z))(dict(parameters))
            return sum(jnp.sum(g**2) for g in gradients.values())

        found[name] = float(jnp.mean(rows**2)), float(jnp.sum(jax.jit(jax.vmap(square))(x)))
    return found
