"""Losses and kernel traces of all problems and networks against an implementation in JAX, in float64.

JAX is part of the extra ``benchmark``; where it is not installed, nothing of this is run.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import pytest
import torch

from ntkrun import pde as problems
from ntkrun.network import ECRN, MLP, ChebyshevKAN, FourierNetwork, JetNetwork, ModifiedMLP
from ntkrun.objective import Objective
from ntkrun.pde import PDE
from tests.oracle import draw_batch

os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")  # compiled once, run once
jax = pytest.importorskip("jax")
from tests import jax_oracle as oracle  # noqa: E402 (needs JAX)

PROBLEMS: dict[str, tuple[type[PDE], Callable[[oracle.Function], oracle.Residuals]]] = {
    "poisson": (problems.Poisson, oracle.poisson),
    "poisson2d": (problems.Poisson2D, oracle.poisson2d),
    "helmholtz": (problems.Helmholtz, oracle.helmholtz),
    "wave": (problems.Wave, oracle.wave),
    "diffusion": (problems.Diffusion, oracle.diffusion),
    "advection": (problems.Advection, oracle.advection),
    "burgers": (problems.Burgers, oracle.burgers),
    "allen_cahn": (problems.AllenCahn, oracle.allen_cahn),
    "klein_gordon": (problems.KleinGordon, oracle.klein_gordon),
    "beam": (problems.Beam, oracle.beam),
    "regression": (problems.Regression, oracle.regression),
    "cavity": (problems.Cavity, oracle.cavity),
}
NETWORKS: dict[str, tuple[Callable[[PDE], JetNetwork], Callable[[oracle.Parameters, oracle.Array], oracle.Array]]] = {
    "mlp": (lambda pde: MLP(6, 2, "tanh", domain=pde.domain, outputs=len(pde.fields)), oracle.mlp),
    "modified_mlp": (
        lambda pde: ModifiedMLP(5, 2, "tanh", domain=pde.domain, outputs=len(pde.fields)),
        oracle.modified_mlp,
    ),
    "fourier": (
        lambda pde: FourierNetwork(
            5, 1, "tanh", features=3, scales=(0.1, 0.3), domain=pde.domain, outputs=len(pde.fields)
        ),
        oracle.fourier,
    ),
    "cpikan": (lambda pde: ChebyshevKAN(4, 1, 3, domain=pde.domain, outputs=len(pde.fields)), oracle.cpikan),
    "ecrn": (
        lambda pde: ECRN(3, 2, "tanh", scale=0.2, trainable=True, domain=pde.domain, outputs=len(pde.fields)),
        oracle.ecrn,
    ),
}
# Every problem under one network, and every network under a problem of one field and one of three.
CASES = [(p, "mlp") for p in PROBLEMS] + [(p, n) for n in NETWORKS if n != "mlp" for p in ("wave", "cavity")]


@pytest.mark.parametrize(("problem", "network"), CASES)
def test_losses_and_traces_agree(problem: str, network: str) -> None:
    build_pde, residuals = PROBLEMS[problem]
    build, function = NETWORKS[network]
    pde = build_pde()
    ours = build(pde).double()
    objective = Objective(pde, ours)
    assert objective.route == "structured"
    points, batch = draw_batch(objective, [7, 5, 4, 3, 3][: len(objective.terms)])

    with jax.enable_x64(True):
        low, high = (np.array(list(ends.values())) for ends in (pde.domain.low, pde.domain.high))
        found = oracle.losses_and_traces(
            residuals,
            function,
            {name: p.detach().numpy() for name, p in ours.named_parameters()},
            {name: b.numpy() for name, b in ours.named_buffers() if not name.startswith("inputs.")},
            lambda z: (z - (low + high) / 2) / ((high - low) / np.sqrt(12)),
            {name: x.numpy() for name, x in points.items()},
        )
    assert tuple(found) == objective.names
    expected = torch.tensor([found[name] for name in objective.names], dtype=torch.float64)
    mine = torch.stack([objective.losses(batch), objective.traces(batch)], dim=1)
    assert ((mine - expected).abs() / expected).max() < 1e-10
