"""Low-rank approximations of the whole kernel, and its leading eigenvalues, from products with J alone.

With probes Omega, ``[N, s]``, the Nyström approximation of K = J J' is K^ = K Omega (Omega' K Omega)^+ Omega' K. It is
J V V' J' with an orthonormal basis V of the range of J' Omega, and is made in this form: by one product with J' and one
with J per probe, and with singular values of J, so that eigenvalues of K down to the square of round-off are seen.

K - K^ = J (I - V V') J' has no negative eigenvalues. Therefore each eigenvalue of K^ is at most that of K, by less than
what is missing of the trace; and the exact trace of K costs less than one product.

Sources: Williams, Seeger, "Using the Nyström method to speed up kernel machines" (2001); Halko, Martinsson, Tropp,
arXiv 0909.4061, for the range and its power iteration; Frangella, Tropp, Udell, arXiv 2110.02820, for solutions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ntkrun.backend.transfer import moved
from ntkrun.jacobian import Jacobian

AT_A_TIME = 16  # vectors in a product with J, whose intermediate results grow with their number


@dataclass(frozen=True)
class LowRankKernel:
    """An approximation K^ = U diag(values) U' of a kernel K from below.

    Attributes:
        vectors: U, orthonormal, ``[N, s]``.
        values: the eigenvalues, the largest first, ``[s]``.
        missing: tr K - tr K^, which bounds the error in every norm; 0 up to round-off where K^ is exact.
    """

    vectors: Tensor
    values: Tensor
    missing: float

    def dense(self) -> Tensor:
        """K^, ``[N, N]``."""
        return self.vectors * self.values @ self.vectors.T

    def matvec(self, vectors: Tensor) -> Tensor:
        """K^ w for each of the ``vectors``, ``[m, N]``; returns ``[m, N]``."""
        return vectors @ self.vectors * self.values @ self.vectors.T

    def solve(self, vectors: Tensor, mu: float) -> Tensor:
        """(K^ + mu)^-1 w for each of the ``vectors``, ``[m, N]``, and any mu > 0; returns ``[m, N]``."""
        inside = vectors @ self.vectors
        return (vectors - inside * (self.values / (self.values + mu)) @ self.vectors.T) / mu


def nystrom(jacobian: Jacobian, probes: Tensor, iterations: int = 0) -> LowRankKernel:
    """The Nyström approximation of K = J J'.

    Args:
        jacobian: J.
        probes: the columns of Omega, ``[s, N]``, of J's dtype; unit vectors choose columns of K.
        iterations: how often the basis is multiplied by J'J, each at the price of two products per probe. Eigenvalues
            lambda of K then count as lambda^(1 + 2 iterations) in the choice of V.
    """
    basis = _orthonormal(jacobian.rmatvec(probes))
    for _ in range(iterations):
        basis = _orthonormal(jacobian.rmatvec(_product(jacobian, basis)))
    vectors, singular, _ = torch.linalg.svd(_product(jacobian, basis).T, full_matrices=False)
    missing = float(jacobian.diagonal().sum() - singular.square().sum())
    return LowRankKernel(vectors, singular.square(), max(missing, 0.0))


def leading(jacobian: Jacobian, count: int, generator: torch.Generator, iterations: int = 2) -> LowRankKernel:
    """The leading eigenvalues and vectors of a kernel that is too large to form.

    Args:
        jacobian: J.
        count: how many, k; fewer where there are fewer rows or parameters.
        generator: source of Gaussian probes, on the CPU; a fourth more are taken than eigenvalues are asked for.
        iterations: of the basis, see ``nystrom``.

    Returns:
        The k largest, lower bounds that with a falling spectrum are as good as exact.
    """
    size = min(count + max(8, count // 4), jacobian.rows, jacobian.layout.size)
    like = jacobian.diagonal()
    probes = moved(torch.randn(size, jacobian.rows, dtype=like.dtype, generator=generator), like)
    found = nystrom(jacobian, probes, iterations)
    beyond = found.missing + float(found.values[count:].sum())
    return LowRankKernel(found.vectors[:, :count], found.values[:count], beyond)


def eigenvalue_errors(jacobian: Jacobian, found: LowRankKernel) -> Tensor:
    """|K u - lambda u| for the eigenvalues and vectors found, ``[k]``: so near to each is an eigenvalue of K.

    It costs two products per vector. Source: B. N. Parlett, "The Symmetric Eigenvalue Problem", theorem 4.5.1.
    """
    parts = zip(found.vectors.T.split(AT_A_TIME), found.values.split(AT_A_TIME), strict=True)
    left = [jacobian.kernel_matvec(u.contiguous()) - values[:, None] * u for u, values in parts]
    return torch.cat([torch.linalg.vector_norm(each, dim=1) for each in left])


def low_rank_drift(now: LowRankKernel, first: LowRankKernel) -> Tensor:
    """|now - first| / |first| in the Frobenius norm; 0 where nothing moved."""
    if torch.equal(now.vectors, first.vectors) and torch.equal(now.values, first.values):
        return now.values.new_zeros(())
    inside = torch.linalg.qr(torch.cat([now.vectors, first.vectors], 1)).R
    one, other = inside.split([len(now.values), len(first.values)], dim=1)
    moved = torch.linalg.matrix_norm(one * now.values @ one.T - other * first.values @ other.T)
    relative: Tensor = moved / torch.linalg.vector_norm(first.values)
    return relative


def _orthonormal(rows: Tensor) -> Tensor:
    """An orthonormal basis, ``[s, P]``, of what the ``rows`` span."""
    basis: Tensor = torch.linalg.qr(rows.T).Q
    return basis.T


def _product(jacobian: Jacobian, vectors: Tensor) -> Tensor:
    return torch.cat([jacobian.matvec(part) for part in vectors.split(AT_A_TIME)])
