"""Randomised estimates of the kernel K and of its traces tr(K_ii).

A sketch S has E[S S^T] = I. On the parameter side, with probes xi in R^P, the mean of |J_i xi|^2 is
an unbiased estimate of tr(K_ii); on the residual side, with probes omega in R^{N_i}, so is the mean of
omega^T K_ii omega. Products with J come from automatic differentiation, or from a predictor step of
length delta along the probe followed by a difference of residuals, which adds a bias of order delta
(forward) or delta^2 (central).

The algorithm is derived from the abstract of Hirsch and Pichi, arXiv 2511.15530.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ntkrun.backend.transfer import constant, moved
from ntkrun.common.types import Positive
from ntkrun.jacobian.operators import Jacobian
from ntkrun.ntk.finite_differences import Difference, Shifted, balanced_step, difference_quotient
from ntkrun.ntk.systematic import hilbert_order, places_along, replicate_sizes, systematic_sample
from ntkrun.ntk.trace import Product, hutchpp_samples, xtrace_samples
from ntkrun.objective import Objective
from ntkrun.objective.batch import Batch
from ntkrun.objective.chosen import Chosen

Side = Literal["parameter", "residual"]
Derivative = Literal["autodiff", "finite_difference"]
Distribution = Literal["gaussian", "rademacher", "coordinate", "systematic"]
Estimator = Literal["plain", "hutchpp", "xtrace"]

OF_POINTS: tuple[Distribution, ...] = ("coordinate", "systematic")
"""Distributions that choose points; they exist on the residual side only."""

WHOLE = 8
"""A term of no more than so many times the points to choose is taken whole in the gradient's pass: it costs no more."""

LEAST_SIZE = {"plain": 1, "hutchpp": 3, "xtrace": 4}


@dataclass(frozen=True)
class TraceEstimate:
    """Estimated traces as means of samples.

    Attributes:
        samples: for every term, samples of tr(K_ii).
        factors: for every term, by what the standard deviation of the mean differs from that of
            independent samples (sampling without replacement makes it smaller).
        deltas: the difference steps used for each term, ``[n]``, or ``None`` under autodiff.
    """

    samples: tuple[Tensor, ...]
    factors: tuple[float, ...]
    deltas: Tensor | None = None

    @property
    def traces(self) -> Tensor:
        """Estimates of tr(K_ii), ``[n]``."""
        return torch.stack([s.mean() for s in self.samples])

    @property
    def standard_errors(self) -> Tensor:
        """Their estimated standard deviations, ``[n]``; NaN from a single sample unless it is exact."""
        errors = []
        for samples, factor in zip(self.samples, self.factors, strict=True):
            if factor == 0:
                errors.append(samples.new_zeros(()))
            elif len(samples) == 1:
                errors.append(samples.new_full((), math.nan))
            else:
                errors.append(factor * samples.std() / math.sqrt(len(samples)))
        return torch.stack(errors)

    def __sub__(self, other: TraceEstimate) -> TraceEstimate:
        """The estimated change of the traces, for two estimates with the same probes."""
        samples = tuple(a - b for a, b in zip(self.samples, other.samples, strict=True))
        return TraceEstimate(samples, self.factors, self.deltas)


@dataclass(frozen=True)
class Sketch:
    """One member of the estimator family.

    Args:
        size: number of probes s. With ``coordinate`` and ``systematic``, the number of points chosen from each
            term (all of them where a term has fewer); with ``hutchpp`` and ``xtrace``, the number of kernel products.
        side: ``parameter`` probes parameters, all terms at once; ``residual`` probes residual rows.
        derivative: ``autodiff``, or ``finite_difference`` (predictor and corrector).
        distribution: of the probes. ``coordinate``, points drawn at random without replacement, and ``systematic``,
            points spread out along a space-filling curve, in the gradient's pass by their chances, exist on the
            residual side only.
        difference: ``forward`` or ``central``.
        delta: step of the difference as a multiple of the probe (of J^T omega on the residual side),
            or ``"auto"``, which measures truncation and round-off at every estimate and balances them.
        estimator: ``plain`` averages over probes; ``hutchpp`` and ``xtrace`` take the leading
            eigendirections exactly (residual side, gaussian or rademacher).

    Raises:
        ValueError: the options contradict each other.
    """

    size: Positive[int]
    side: Side
    derivative: Derivative
    distribution: Distribution
    difference: Difference = "forward"
    delta: Positive[float] | Literal["auto"] = "auto"
    estimator: Estimator = "plain"

    def __post_init__(self) -> None:
        chooses = self.distribution in OF_POINTS
        if self.side == "parameter" and chooses:
            raise ValueError(
                f"distribution={self.distribution} needs side=residual; side=parameter takes gaussian or rademacher"
            )
        if self.derivative == "autodiff" and self.delta != "auto":
            raise ValueError(f"delta={self.delta} is read by derivative=finite_difference only, not by autodiff")
        if self.estimator != "plain" and (self.side == "parameter" or chooses):
            raise ValueError(f"estimator={self.estimator} needs side=residual and distribution=gaussian or rademacher")
        if self.size < LEAST_SIZE[self.estimator]:
            raise ValueError(
                f"sketch_size={self.size}: estimator={self.estimator} needs at least {LEAST_SIZE[self.estimator]}"
            )

    def estimate(self, objective: Objective, batch: Batch, generator: torch.Generator) -> TraceEstimate:
        """Estimate every trace.

        Args:
            objective: supplies residuals and Jacobian products.
            batch: the kernel's points.
            generator: source of the probes, on the CPU.
        """
        with torch.no_grad():
            if self.distribution in OF_POINTS:
                return self._at_points(objective, batch, generator)
            if self.side == "parameter":
                return self._parameter_side(objective, batch, generator)
            return self._residual_side(objective, batch, generator)

    def orders(self, objective: Objective, batch: Batch, in_pass: bool = False) -> tuple[Tensor, ...]:
        """The points of every term in the order that ``choose`` chooses from: indices, ``[N_i]`` each.

        Args:
            objective: tells the terms of the points.
            batch: the points.
            in_pass: for ``choose_in_pass``; terms that are taken whole then keep their order.
        """
        counts = objective.point_counts(batch)
        if self.distribution == "systematic":
            points, d = objective.points(batch), len(objective.pde.coordinates)  # in the order of their groups
            return tuple(
                torch.arange(n) if in_pass and self.takes_whole(n) else hilbert_order(points[name][:, :d])
                for name, n in zip(objective.names, counts, strict=True)
            )
        return tuple(torch.arange(n) for n in counts)

    def choose(self, orders: Sequence[Tensor], generator: torch.Generator) -> tuple[Tensor, ...]:
        """Indices of points of every term, ``[m_i]`` each, for the distributions that choose points.

        Args:
            orders: from ``orders``.
            generator: source of the choice, on the CPU.
        """
        return tuple(order[self._positions(len(order), generator)] for order in orders)

    def choose_in_pass(self, orders: Sequence[Tensor], generator: torch.Generator) -> tuple[Chosen, ...]:
        """The same for ``from_samples``: terms of few points whole, ``systematic`` points as places along the curve.

        Args:
            orders: from ``orders``, on the device of the pass.
            generator: source of the choice, on the CPU.
        """
        chosen = []
        for order in orders:
            places = torch.zeros(0, dtype=torch.float64)
            if not self.takes_whole(len(order)):
                if self.distribution == "coordinate":
                    order = order[moved(self._positions(len(order), generator), order)]
                else:
                    places = places_along(self.size, generator)
            chosen.append(Chosen(order, moved(places, order, torch.float64)))
        return tuple(chosen)

    def takes_whole(self, count: int) -> bool:
        """Whether all points of a term are taken in the gradient's pass."""
        return count <= (WHOLE if self.distribution == "systematic" else 1) * self.size

    def _positions(self, count: int, generator: torch.Generator) -> Tensor:
        if self.distribution == "coordinate" or count <= self.size:
            return torch.randperm(count, generator=generator)[: self.size]
        return systematic_sample(count, self.size, generator)

    def from_diagonals(
        self, counts: Sequence[int], diagonals: Sequence[Tensor], deltas: Tensor | None = None
    ) -> TraceEstimate:
        """Estimates from diag(K_ii) at points that ``choose`` gave.

        Args:
            counts: number of points of every term.
            diagonals: of every term.
            deltas: the difference steps used, if any.
        """
        samples = tuple(
            n * (diagonal if len(diagonal) == n else self._means(diagonal))
            for n, diagonal in zip(counts, diagonals, strict=True)
        )
        return TraceEstimate(samples, self._factors(counts, [len(d) for d in diagonals]), deltas)

    @staticmethod
    def _factors(counts: Sequence[int], sizes: Sequence[int]) -> tuple[float, ...]:
        """Sampling without replacement: the finite population factor 1 - m/n of the variance."""
        return tuple(math.sqrt(1 - m / n) for n, m in zip(counts, sizes, strict=True))

    def from_samples(self, counts: Sequence[int], samples: Tensor) -> TraceEstimate:
        """Estimates, unbiased, from traces of the terms that are taken whole and ``samples`` of the others.

        Args:
            counts: number of points of every term.
            samples: of all terms, one after the other, as ``ntkrun.objective.chosen`` has them.
        """
        sizes = [n if self.takes_whole(n) else self.size for n in counts]
        pieces = samples.split([1 if m == n else 1 + m for n, m in zip(counts, sizes, strict=True)])
        estimates = tuple(own if len(own) == 1 else own[0] + self._means(own[1:]) for own in pieces)
        if self.distribution == "coordinate":
            return TraceEstimate(estimates, self._factors(counts, sizes))
        # A point may be drawn more than once.
        return TraceEstimate(estimates, tuple(float(m < n) for n, m in zip(counts, sizes, strict=True)))

    def _means(self, values: Tensor) -> Tensor:
        """Of values at chosen points, ``[..., m]``, independent samples of the mean: these, or means of replicates."""
        if self.distribution == "coordinate":
            return values
        sizes = replicate_sizes(self.size)
        if len(set(sizes)) == 1:
            return values.view(*values.shape[:-1], len(sizes), -1).mean(-1)
        return torch.stack([part.mean(-1) for part in values.split(sizes, dim=-1)], dim=-1)

    def numbers(self, parameters: int, rows: int) -> int:
        """How many numbers an estimate holds at least at a time: probes and their products with J or its transpose.

        Args:
            parameters: P.
            rows: of the term with the most.
        """
        few = self.distribution in OF_POINTS or (self.estimator != "plain" and rows <= self.size)
        return 0 if few else self.size * (parameters + rows)

    def kernel(self, objective: Objective, batch: Batch, generator: torch.Generator) -> Tensor:
        """Estimate the whole kernel K, ``[N, N]`` over the rows of all terms, with plain averaging.

        The parameter side gives (1/s) sum y y^T with y = J xi; the residual side (1/s) sum (K omega) omega^T.
        """
        with torch.no_grad():
            if self.side == "parameter":
                probes = self._probes(objective.layout.size, objective, generator)
                y = self._push_all(objective, batch, probes)
                return y.T @ y / self.size
            rows = sum(objective.row_counts(batch))
            if self.distribution in OF_POINTS:
                chosen = self._positions(rows, generator)
                probes = moved(torch.eye(rows, dtype=objective.like.dtype)[chosen], objective.like) * math.sqrt(rows)
            else:
                probes = self._probes(rows, objective, generator)
            directions = objective.jacobian(batch).rmatvec(probes)
            return self._push_all(objective, batch, directions).T @ probes / len(probes)

    def _push_all(self, objective: Objective, batch: Batch, directions: Tensor) -> Tensor:
        """J v over the rows of all terms for the ``directions``, ``[m, P]``; returns ``[m, N]``."""
        if self.derivative == "autodiff":
            return objective.jacobian(batch).matvec(directions)
        residuals = _shifted_terms(objective, batch)
        delta = self._delta(residuals, directions[0], objective)
        return torch.stack([torch.cat(difference_quotient(residuals, v, delta, self.difference)) for v in directions])

    def _parameter_side(self, objective: Objective, batch: Batch, generator: torch.Generator) -> TraceEstimate:
        probes = self._probes(objective.layout.size, objective, generator)
        ones = (1.0,) * len(objective.terms)
        if self.derivative == "autodiff":
            products = [j.matvec(probes) for j in objective.jacobians(batch)]
            return TraceEstimate(tuple(y.square().sum(1) for y in products), ones)
        residuals = _shifted_terms(objective, batch)
        delta = self._delta(residuals, probes[0], objective)
        quotients = [difference_quotient(residuals, probe, delta, self.difference) for probe in probes]
        samples = tuple(torch.stack([y.square().sum() for y in term]) for term in zip(*quotients, strict=True))
        return TraceEstimate(samples, ones, torch.full_like(probes[0, :1], delta).expand(len(samples)))

    def _residual_side(self, objective: Objective, batch: Batch, generator: torch.Generator) -> TraceEstimate:
        samples: list[Tensor] = []
        factors: list[float] = []
        deltas: list[float] = []
        functions = objective.term_functions(batch)
        for jacobian, function in zip(objective.jacobians(batch), functions, strict=True):
            if self.estimator != "plain" and jacobian.rows <= self.size:
                # Fewer rows than products: every row on its own is exact and cheaper.
                samples.append(jacobian.diagonal().sum()[None])
                factors.append(0.0)
                deltas.append(0.0)
                continue
            probes = self._probes(jacobian.rows, objective, generator)
            factors.append(1.0)
            if self.derivative == "autodiff" and self.estimator == "plain":
                samples.append(jacobian.rmatvec(probes).square().sum(1))
                continue
            product, delta = self._product(objective, jacobian, function, probes)
            deltas.append(delta)
            if self.estimator == "hutchpp":
                samples.append(hutchpp_samples(product, probes))
            elif self.estimator == "xtrace":
                samples.append(xtrace_samples(product, probes[: self.size // 2]))
            else:
                samples.append((product(probes) * probes).sum(1))
        steps = constant(deltas, objective.like) if self.derivative == "finite_difference" else None
        return TraceEstimate(tuple(samples), tuple(factors), steps)

    def _product(
        self, objective: Objective, jacobian: Jacobian, function: TermFunction, probes: Tensor
    ) -> tuple[Product, float]:
        """Products with K_ii: J (J^T w), or predictor and corrector; and the step chosen (0 under autodiff)."""
        if self.derivative == "autodiff":
            return jacobian.kernel_matvec, 0.0
        residuals = _shifted_term(objective, function)
        direction = jacobian.rmatvec(probes[:1])[0]
        if not direction.any():  # a point where nothing depends on the parameters, say
            directions = jacobian.rmatvec(probes)
            direction = directions[directions.norm(dim=1).argmax()]
        delta = self._delta(residuals, direction, objective)

        def product(vectors: Tensor) -> Tensor:
            directions = jacobian.rmatvec(vectors)
            return torch.stack([difference_quotient(residuals, v, delta, self.difference)[0] for v in directions])

        return product, delta

    def _at_points(self, objective: Objective, batch: Batch, generator: torch.Generator) -> TraceEstimate:
        counts = objective.point_counts(batch)
        subset = objective.subset(batch, self.choose(self.orders(objective, batch), generator))
        deltas = None
        if self.derivative == "autodiff":
            diagonals: Sequence[Tensor] = objective.diagonals(subset)
        else:
            pairs = [self._difference_diagonal(objective, subset, i) for i in range(len(counts))]
            diagonals = [diagonal for diagonal, _ in pairs]
            deltas = constant([delta for _, delta in pairs], objective.like)
        return self.from_diagonals(counts, diagonals, deltas)

    def _difference_diagonal(self, objective: Objective, subset: Batch, i: int) -> tuple[Tensor, float]:
        """K_kk of the chosen points of term i by predictor and corrector, and the step."""
        jacobian = objective.jacobians(subset)[i]
        identity = torch.eye(jacobian.rows, dtype=objective.like.dtype, device=objective.like.device)
        product, delta = self._product(objective, jacobian, objective.term_functions(subset)[i], identity)
        points = objective.point_counts(subset)[i]
        return product(identity).diagonal().view(-1, points).sum(0), delta

    def _probes(self, length: int, objective: Objective, generator: torch.Generator) -> Tensor:
        dtype = objective.like.dtype
        if self.distribution == "gaussian":
            probes = torch.randn(self.size, length, generator=generator, dtype=dtype)
        else:
            probes = torch.randint(0, 2, (self.size, length), generator=generator).to(dtype) * 2 - 1
        return moved(probes, objective.like)

    def _delta(self, residuals: Shifted, direction: Tensor, objective: Objective) -> float:
        if self.delta != "auto":
            return self.delta
        return balanced_step(residuals, direction, objective.parameter_vector().norm().item(), self.difference)


TermFunction = Callable[[Mapping[str, Tensor]], Tensor]


def _shifted_terms(objective: Objective, batch: Batch) -> Shifted:
    """Residuals of all terms at theta + shift."""
    return lambda shift: objective.residuals(batch, objective.shifted(shift))


def _shifted_term(objective: Objective, function: TermFunction) -> Shifted:
    """Residuals of one term at theta + shift."""
    return lambda shift: (function(objective.shifted(shift)),)
