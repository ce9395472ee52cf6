"""Trace estimators with variance reduction, for positive semi-definite operators seen through products.

Both find the leading eigendirections with part of the products, take their share of the trace exactly,
and estimate only the remainder. The kernel of a PINN residual is nearly of rank one, so little remains.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]
"""``K w`` for each of the vectors ``[m, N]``; returns ``[m, N]``."""


def hutchpp_samples(product: Product, probes: Tensor) -> Tensor:
    """Hutch++: a third of the products finds a basis Q, a third its share, a third the remainder.

    Source: Meyer, Musco, Musco, Woodruff, "Hutch++: Optimal Stochastic Trace Estimation", arXiv 2010.09649.

    Args:
        product: the operator.
        probes: ``[m, N]`` with m >= 3, isotropic; m products are made.

    Returns:
        Independent unbiased samples given Q, whose mean is the estimate.
    """
    k = len(probes) // 3
    basis = torch.linalg.qr(product(probes[:k]).T).Q
    share: Tensor = (basis * product(basis.T).T).sum()
    rest = probes[2 * k :]
    rest = rest - rest @ basis @ basis.T
    remainders: Tensor = (rest * product(rest)).sum(1)
    return share + remainders


def xtrace_samples(product: Product, probes: Tensor) -> Tensor:
    """XTrace: every probe in turn estimates the remainder of the basis that all others make.

    Source: Epperly, Tropp, Webber, "XTrace: Making the Most of Every Sample in Stochastic Trace
    Estimation", arXiv 2301.07825.

    Args:
        product: the operator.
        probes: ``[k, N]`` with 2 <= k <= N, isotropic; 2k products are made.

    Returns:
        k exchangeable unbiased samples, whose mean is the estimate.
    """
    omega = probes.T
    images = product(probes).T
    basis, triangle = torch.linalg.qr(images)
    products = product(basis.T).T
    small = basis.T @ products
    # Column i of R^-T is orthogonal to all columns of R but the i-th: the direction that leaves with probe i.
    jitter = torch.finfo(probes.dtype).eps * torch.linalg.matrix_norm(triangle)
    identity = torch.eye(len(probes), dtype=probes.dtype, device=probes.device)
    leaving = torch.linalg.solve_triangular(triangle.T + jitter * identity, identity, upper=False)
    leaving = leaving / torch.linalg.vector_norm(leaving, dim=0)
    inside = basis.T @ omega
    inside = inside - leaving * (leaving * inside).sum(0)
    remainder = omega - basis @ inside
    share: Tensor = small.trace() - (leaving * (small @ leaving)).sum(0)
    remainders: Tensor = (remainder * (images - products @ inside)).sum(0)
    return share + remainders
