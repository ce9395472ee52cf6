"""Sketched traces: unbiased, with the variances that theory gives, and difference steps that suit the precision.

Statistical tests compare means within 5 of their own standard errors, with fixed seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ntkrun.network import MLP
from ntkrun.ntk.finite_differences import balanced_step, difference_quotient
from ntkrun.ntk.sketch import Sketch
from ntkrun.ntk.trace import hutchpp_samples, xtrace_samples
from ntkrun.objective import Objective
from ntkrun.objective.batch import Batch
from ntkrun.pde import Poisson, Wave
from tests.oracle import dense_jacobians, draw_batch
from tests.problems import System, mlp

FAMILY = [
    (side, derivative, distribution, difference)
    for side, distributions in (
        ("parameter", ("gaussian", "rademacher")),
        ("residual", ("gaussian", "rademacher", "coordinate", "systematic")),
    )
    for distribution in distributions
    for derivative, difference in (
        ("autodiff", "forward"),
        ("finite_difference", "forward"),
        ("finite_difference", "central"),
    )
]
IDS = ["-".join(member) for member in FAMILY]


def make(size: int, side: str, derivative: str, distribution: str, difference: str, delta: float = 1e-6) -> Sketch:
    step = delta if derivative == "finite_difference" else "auto"
    return Sketch(size, side, derivative, distribution, difference, step)  # type: ignore[arg-type]


REDUCED = [
    (estimator, derivative, distribution)
    for estimator in ("hutchpp", "xtrace")
    for derivative in ("autodiff", "finite_difference")
    for distribution in ("gaussian", "rademacher")
]


class Setting:
    def __init__(self) -> None:
        pde = System()
        self.objective = Objective(pde, mlp(pde.domain, 2).double())
        points, self.batch = draw_batch(self.objective, [12, 6, 5])
        self.dense = dense_jacobians(self.objective, points)
        self.kernels = [dense @ dense.T for dense in self.dense]
        self.traces = torch.stack([kernel.trace() for kernel in self.kernels])

    def samples(self, sketch: Sketch, repetitions: int) -> tuple[Tensor, Tensor]:
        """Estimates and their own standard errors, ``[repetitions, terms]`` each."""
        generator = torch.Generator().manual_seed(1)
        estimates = [sketch.estimate(self.objective, self.batch, generator) for _ in range(repetitions)]
        return torch.stack([e.traces for e in estimates]), torch.stack([e.standard_errors for e in estimates])


@pytest.fixture(scope="module")
def setting() -> Setting:
    torch.manual_seed(0)
    return Setting()


@pytest.mark.parametrize("member", FAMILY, ids=IDS)
def test_unbiased(setting: Setting, member: tuple[str, str, str, str]) -> None:
    samples, errors = setting.samples(make(3, *member), 150)
    standard_error = samples.std(0) / math.sqrt(len(samples))
    assert ((samples.mean(0) - setting.traces).abs() < 5 * standard_error + 1e-5 * setting.traces).all()
    # The estimated standard errors are right on average: mean variance against the variance of the estimates.
    assert (errors.square().mean(0).sqrt() / samples.std(0) - 1).abs().max() < 0.4


def predicted_variance(kernel: Tensor, side: str, distribution: str, size: int, components: int) -> float:
    square, diagonal = kernel.square().sum().item(), kernel.diagonal()
    if distribution == "coordinate":
        per_point = diagonal.view(components, -1).sum(0)
        n = len(per_point)
        return (n**2 / size * per_point.var() * (1 - size / n)).item()
    if distribution == "gaussian":  # also on the parameter side, since J^T J and J J^T share their eigenvalues
        return 2 * square / size
    assert side == "residual"
    return 2 * (square - diagonal.square().sum().item()) / size


@pytest.mark.parametrize(
    ("side", "distribution"),
    [("parameter", "gaussian"), ("residual", "gaussian"), ("residual", "rademacher"), ("residual", "coordinate")],
)
def test_variance_laws(setting: Setting, side: str, distribution: str) -> None:
    """Sample variance of 800 estimates, within 5 standard errors computed from their fourth moment."""
    size, repetitions = 2, 800
    samples, _ = setting.samples(make(size, side, "autodiff", distribution, "forward"), repetitions)
    centred = samples - samples.mean(0)
    variance = centred.square().mean(0)
    error = ((centred**4).mean(0) - variance**2).clamp_min(0).sqrt() / math.sqrt(repetitions)
    for i, kernel in enumerate(setting.kernels):
        expected = predicted_variance(kernel, side, distribution, size, setting.objective.components[i])
        assert abs(variance[i].item() - expected) < 5 * error[i].item(), setting.objective.names[i]


@pytest.mark.parametrize("distribution", ["coordinate", "systematic"])
def test_all_points_give_the_exact_trace(setting: Setting, distribution: str) -> None:
    estimate = make(50, "residual", "autodiff", distribution, "forward").estimate(
        setting.objective, setting.batch, torch.Generator()
    )
    assert torch.allclose(estimate.traces, setting.traces, rtol=1e-12)
    assert torch.equal(estimate.standard_errors, torch.zeros(3, dtype=torch.float64))


def test_one_probe_has_no_standard_error(setting: Setting) -> None:
    estimate = make(1, "parameter", "autodiff", "gaussian", "forward").estimate(
        setting.objective, setting.batch, torch.Generator()
    )
    assert estimate.standard_errors.isnan().all()


def product_errors(
    objective: Objective, batch: Batch, reference: Objective, exact: Batch, difference: str
) -> tuple[dict[float, float], float, float]:
    """Relative error of a difference quotient of all residuals for trial steps, the automatic step and its error."""
    probe = torch.randn(objective.layout.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    truth = [j.matvec(probe[None])[0] for j in reference.jacobians(exact)]
    direction = probe.to(objective.like)

    def residuals(shift: Tensor) -> tuple[Tensor, ...]:
        return objective.residuals(batch, objective.shifted(shift))

    def error(delta: float) -> float:
        with torch.no_grad():
            quotients = difference_quotient(residuals, direction, delta, difference)  # type: ignore[arg-type]
        return math.sqrt(
            sum(((q.double() - t).norm() / t.norm()).item() ** 2 for q, t in zip(quotients, truth, strict=True))
        )

    size = objective.parameter_vector().norm().item()
    chosen = balanced_step(residuals, direction, size, difference)  # type: ignore[arg-type]
    return {10**x: error(10**x) for x in range(-9, 0)}, chosen, error(chosen)


@pytest.mark.parametrize("difference", ["forward", "central"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("pde", [Poisson(), Wave()], ids=["poisson", "wave"])
def test_automatic_step_is_near_the_best(pde: Poisson | Wave, dtype: torch.dtype, difference: str) -> None:
    """Its error is within a factor of 5 of the best over decades of fixed steps."""
    reference = Objective(pde, MLP(24, 2, domain=pde.domain).double())
    points, exact = draw_batch(reference, [40, 20, 20, 20][: len(reference.terms)])
    network = MLP(24, 2, domain=pde.domain).double()
    network.load_state_dict(reference.network.state_dict())
    objective = Objective(pde, network.to(dtype))
    batch = objective.batch({name: x.to(dtype) for name, x in points.items()})
    errors, chosen, error = product_errors(objective, batch, reference, exact, difference)
    assert error < 5 * min(errors.values()), (chosen, errors)


@pytest.mark.parametrize(("difference", "slope"), [("forward", 1.0), ("central", 2.0)])
def test_bias_slope(difference: str, slope: float) -> None:
    """The error of a product is of order delta or delta^2 (float64, steps far above round-off)."""
    pde = Wave()
    objective = Objective(pde, MLP(16, 2, domain=pde.domain).double())
    _, batch = draw_batch(objective, [20, 10, 10, 10])
    errors, _, _ = product_errors(objective, batch, objective, batch, difference)
    deltas = [1e-4, 1e-3]
    measured = math.log10(errors[deltas[1]] / errors[deltas[0]])
    assert measured == pytest.approx(slope, abs=0.05)


@pytest.mark.long
@pytest.mark.parametrize("member", REDUCED, ids=lambda member: "-".join(member))
def test_reduced_estimators_are_unbiased(setting: Setting, member: tuple[str, str, str]) -> None:
    estimator, derivative, distribution = member
    delta = 1e-6 if derivative == "finite_difference" else "auto"
    sketch = Sketch(4, "residual", derivative, distribution, "central", delta, estimator)  # type: ignore[arg-type]
    samples, _ = setting.samples(sketch, 150)
    standard_error = samples.std(0) / math.sqrt(len(samples))
    assert ((samples.mean(0) - setting.traces).abs() < 5 * standard_error + 1e-5 * setting.traces).all()


@pytest.mark.parametrize("estimator", ["hutchpp", "xtrace"])
def test_reduced_estimators_beat_plain_probes_at_equal_cost(estimator: str) -> None:
    """Six kernel products on every side, on Poisson's residual kernel, which is nearly of rank one."""
    pde = Poisson()
    objective = Objective(pde, MLP(64, 3, domain=pde.domain).double())
    _, batch = draw_batch(objective, [100, 2])
    generator = torch.Generator().manual_seed(0)
    variances = []
    for sketch in (
        Sketch(6, "residual", "autodiff", "gaussian"),
        Sketch(6, "residual", "autodiff", "gaussian", estimator=estimator),  # type: ignore[arg-type]
    ):
        estimates = [sketch.estimate(objective, batch, generator).traces[0] for _ in range(60)]
        variances.append(torch.stack(estimates).var().item())
    assert variances[1] < 0.05 * variances[0]


@pytest.mark.parametrize("samples", [hutchpp_samples, xtrace_samples])
@pytest.mark.parametrize("rank", [1, 2])
def test_low_rank_is_exact(samples: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor], rank: int) -> None:
    """Also where the sketch is wider than the rank, as with repeated points."""
    factor = torch.randn(20, rank, dtype=torch.float64)
    kernel = factor @ factor.T
    estimates = samples(lambda w: w @ kernel, torch.randn(9, 20, dtype=torch.float64))
    assert torch.allclose(estimates, kernel.trace().expand_as(estimates), rtol=1e-10)


def test_xtrace_against_its_definition() -> None:
    """Every sample recomputed with a basis of its own, made without its probe."""
    factor = torch.randn(12, 12, dtype=torch.float64)
    kernel, probes = factor @ factor.T, torch.randn(5, 12, dtype=torch.float64)
    expected = []
    for i in range(5):
        others = torch.cat([probes[:i], probes[i + 1 :]])
        basis = torch.linalg.qr(kernel @ others.T).Q
        rest = probes[i] - basis @ (basis.T @ probes[i])
        expected.append((basis.T @ kernel @ basis).trace() + rest @ kernel @ rest)
    assert torch.allclose(xtrace_samples(lambda w: w @ kernel, probes), torch.stack(expected), rtol=1e-10)


def test_terms_with_few_rows_are_exact(setting: Setting) -> None:
    estimate = Sketch(6, "residual", "autodiff", "gaussian", estimator="xtrace").estimate(
        setting.objective, setting.batch, torch.Generator().manual_seed(0)
    )
    assert estimate.traces[2].item() == pytest.approx(setting.traces[2].item(), rel=1e-12)
    assert estimate.standard_errors[2] == 0


@pytest.mark.long
@pytest.mark.parametrize("member", FAMILY, ids=IDS)
def test_kernel_estimates_are_unbiased(setting: Setting, member: tuple[str, str, str, str]) -> None:
    """The mean of <K, estimate> within 5 standard errors of <K, K>, and every entry within 6 of its own."""
    generator = torch.Generator().manual_seed(2)
    sketch = make(4, *member)
    estimates = torch.stack([sketch.kernel(setting.objective, setting.batch, generator) for _ in range(200)])
    whole = torch.cat(setting.dense)
    kernel = whole @ whole.T
    overlap = (estimates * kernel).sum((1, 2)) / kernel.square().sum()
    assert abs(overlap.mean() - 1).item() < 5 * overlap.std().item() / math.sqrt(len(overlap)) + 1e-5
    standard_error = estimates.std(0) / math.sqrt(len(estimates))
    assert ((estimates.mean(0) - kernel).abs() < 6 * standard_error + 1e-5 * kernel.diagonal().mean()).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((4, "parameter", "autodiff", "coordinate", "forward", "auto"), "distribution=coordinate"),
        ((4, "residual", "autodiff", "gaussian", "forward", 0.1), "delta=0.1"),
        ((4, "parameter", "autodiff", "gaussian", "forward", "auto", "xtrace"), "estimator=xtrace needs side=residual"),
        (
            (9, "residual", "autodiff", "coordinate", "forward", "auto", "hutchpp"),
            "distribution=gaussian or rademacher",
        ),
        ((3, "residual", "autodiff", "gaussian", "forward", "auto", "xtrace"), "needs at least 4"),
    ],
)
def test_contradictions_are_refused(options: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sketch(*options)  # type: ignore[arg-type]


def test_every_term_has_the_order_of_its_own_points() -> None:
    """Also where terms lie in groups in another order than their own."""
    pde = Wave()
    objective = Objective(pde, mlp(pde.domain))
    _, batch = draw_batch(objective, [9, 5, 40, 7])
    counts = objective.point_counts(batch)
    assert tuple(len(x) for x in objective.points(batch).values()) != counts
    for distribution in ("systematic", "coordinate"):
        sketch = Sketch(size=4, side="residual", derivative="autodiff", distribution=distribution)  # type: ignore[arg-type]
        for order, count in zip(sketch.orders(objective, batch), counts, strict=True):
            assert order.sort().values.tolist() == list(range(count))
