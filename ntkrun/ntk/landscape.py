"""The loss on a plane through the parameters, along random directions or those in which it rises most."""

from __future__ import annotations

import torch
from torch import Tensor

from ntkrun.ntk.spectrum import kernel
from ntkrun.objective import Objective
from ntkrun.objective.batch import Batch


def random_directions(objective: Objective, generator: torch.Generator) -> Tensor:
    """Two Gaussian directions, normalised by filter: ``[2, P]``.

    The weights into a unit, a row of a matrix, have the norm that these weights have in the network; biases and other
    parameters that are no matrices stay as they are. So networks whose layers are scaled differently compare.

    Args:
        objective: its network is where the plane touches.
        generator: of random numbers, on the CPU.

    Source: Li et al., "Visualizing the loss landscape of neural nets", NeurIPS 2018, arXiv 1712.09913, section 4.
    """
    directions = []
    for _ in range(2):
        parts = {}
        for name, parameter in objective.detached().items():
            part = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter)
            if parameter.dim() < 2:
                part.zero_()
            else:
                rows = part.flatten(1)
                norms = parameter.flatten(1).norm(dim=1, keepdim=True) / rows.norm(dim=1, keepdim=True)
                part = (rows * norms).view_as(parameter)
            parts[name] = part
        directions.append(objective.layout.flatten(parts))
    return torch.stack(directions)


def steepest_directions(objective: Objective, batch: Batch, weights: Tensor) -> Tensor:
    """The two leading eigenvectors of J^T W J, ``[2, P]``, each with half of the norm of the parameters.

    W has lambda_i / N_i for the rows of term i, so that J^T W J is half of the Gauss-Newton Hessian of the weighted
    loss. Its eigenvectors are those of the kernel W^(1/2) J J^T W^(1/2), taken back by J^T.

    Args:
        objective: its network is where the plane touches.
        batch: the points.
        weights: lambda_i, ``[n]``.
    """
    counts = objective.row_counts(batch)
    scale = torch.cat([(w / n).sqrt().expand(n) for w, n in zip(weights, counts, strict=True)])
    scale = scale.to(objective.like.device, torch.float64)
    matrix = scale[:, None] * kernel(objective, batch) * scale
    vectors = torch.linalg.eigh(matrix).eigenvectors[:, -2:].flip(1).T
    directions = objective.jacobian(batch).rmatvec((scale * vectors).to(objective.like)).to(torch.float64)
    length = objective.parameter_vector().to(torch.float64).norm() / 2
    norms = directions.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)  # of rank 1 one is zero
    scaled: Tensor = directions / norms * length
    return scaled.to(objective.like)


def losses_on_plane(objective: Objective, batch: Batch, directions: Tensor, coordinates: Tensor) -> Tensor:
    """Mean squared residuals of every term at theta + a d_1 + b d_2, ``[n, G, G]`` over a and b, in float64.

    Args:
        objective: its network is at theta, and is there again afterwards.
        batch: the points.
        directions: d_1 and d_2, ``[2, P]``.
        coordinates: the values of a, and of b, ``[G]``.
    """
    here = objective.parameter_vector()
    losses = torch.empty(len(objective.names), len(coordinates), len(coordinates), dtype=torch.float64)
    for i, a in enumerate(coordinates.tolist()):
        for j, b in enumerate(coordinates.tolist()):
            with objective.at(here + a * directions[0] + b * directions[1]):
                losses[:, i, j] = objective.losses(batch).cpu()
    return losses
