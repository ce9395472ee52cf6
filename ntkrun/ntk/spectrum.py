"""The spectrum of the kernel K = J J^T of all residual rows, and how far it has moved.

Terms of a PINN have kernels whose eigenvalues fall over many orders of magnitude, so everything here is
in float64. Eigenvalues below the round-off of the largest one cannot be told from zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ntkrun.objective import Objective
from ntkrun.objective.batch import Batch

EPSILON = torch.finfo(torch.float64).eps


def kernel(objective: Objective, batch: Batch) -> Tensor:
    """K at the network's present parameters, ``[N, N]`` in float64, the rows of the first term first.

    Args:
        objective: its residual rows; their dtype decides how exact K is.
        batch: the points.
    """
    return objective.jacobian(batch).gram().to(torch.float64)


def diagonal_blocks(matrix: Tensor, rows: tuple[int, ...]) -> tuple[Tensor, ...]:
    """The blocks K_ii of a kernel, ``[N_i, N_i]`` each.

    Args:
        matrix: ``[N, N]``.
        rows: N_i of every term; they add up to N.
    """
    blocks: list[Tensor] = []
    for n, strip in zip(rows, matrix.split(rows), strict=True):
        start = sum(block.shape[0] for block in blocks)
        blocks.append(strip[:, start : start + n])
    return tuple(blocks)


def eigenvalues(matrix: Tensor) -> Tensor:
    """Eigenvalues of a symmetric ``[N, N]`` matrix, the largest first, ``[N]``; NaN where they cannot be had."""
    unknown = matrix.new_full((len(matrix),), torch.nan)
    if not torch.isfinite(matrix).all():
        return unknown
    try:
        values: Tensor = torch.linalg.eigvalsh(matrix)
    except RuntimeError:  # the iteration did not converge
        return unknown
    return values.flip(0)


def effective_rank(spectrum: Tensor) -> Tensor:
    """exp(-sum_k p_k log p_k) with p_k = lambda_k / sum_j lambda_j; 0 for a matrix of zeros.

    Source: Roy, Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007, whose
    singular values are the eigenvalues of a positive semi-definite matrix.

    Args:
        spectrum: the eigenvalues, ``[N]``; those that round-off made negative count as zero.
    """
    positive = spectrum.clamp_min(0)
    total = positive.sum()
    return total if total == 0 else torch.special.entr(positive / total).sum().exp()


def least_effective_rank(spectrum: Tensor, missing: Tensor) -> Tensor:
    """The effective rank if all eigenvalues beyond the known ones were as large as the last of these: it is no less.

    Args:
        spectrum: the leading eigenvalues, the largest first, ``[k]``.
        missing: the sum of the others, a number.
    """
    positive = spectrum.clamp_min(0)
    total = positive.sum() + missing
    if total == 0:
        return total
    last = (positive[-1] / total).clamp_min(torch.finfo(spectrum.dtype).tiny)
    entropy: Tensor = torch.special.entr(positive / total).sum() - missing / total * last.log()
    return entropy.exp()


def condition_number(spectrum: Tensor) -> Tensor:
    """Largest over smallest eigenvalue; infinite where the smallest cannot be told from zero.

    Args:
        spectrum: the eigenvalues of an N x N matrix in float64, the largest first, ``[N]``.
    """
    largest, smallest = spectrum[0], spectrum[-1]
    if smallest <= len(spectrum) * EPSILON * largest:
        return torch.full_like(largest, torch.inf)
    return largest / smallest


def drift(now: Tensor, first: Tensor) -> Tensor:
    """|now - first| / |first| in the Frobenius norm; 0 where nothing moved, infinite from zero."""
    moved: Tensor = torch.linalg.vector_norm(now - first)
    return moved if moved == 0 else moved / torch.linalg.vector_norm(first)
