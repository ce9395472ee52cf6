"""Values against each architecture's formula, written out with plain tensors, and initial statistics."""

import math

import pytest
import torch
from numpy.polynomial import chebyshev
from torch import Tensor

from ntkrun.geometry import Box
from ntkrun.network import ECRN, ChebyshevKAN, FourierNetwork, Linear, ModifiedMLP
from ntkrun.network.cpikan import ChebyshevFeatures
from tests.oracle import relative, values

BOX = Box.of(x=(2.0, 4.0), y=(-1.0, 1.0))


def points() -> Tensor:
    return BOX.scale(torch.rand(5, 2, dtype=torch.float64))


def affine(layer: Linear, x: Tensor) -> Tensor:
    return x @ layer.weight.T + layer.bias


def test_modified_mlp() -> None:
    network = ModifiedMLP(6, 2, standardize=False, domain=BOX, outputs=2).double()
    x = points()
    u, v, h = torch.tanh(affine(network.u, x)), torch.tanh(affine(network.v, x)), x
    for layer in network.layers[:2]:
        z = torch.tanh(affine(layer, h))
        h = z * u + (1 - z) * v
    assert relative(values(network, x), affine(network.layers[2], h)) < 1e-13


def test_fourier() -> None:
    """The same hidden layers on the features of both scales."""
    network = FourierNetwork(6, 2, features=4, scales=(0.5, 2.0), standardize=False, domain=BOX, outputs=2).double()
    x = points()
    results = []
    for features in network.features:
        angles = 2 * math.pi * x @ features.frequencies.T
        h = torch.cat([torch.cos(angles), torch.sin(angles)], dim=1)
        for layer in network.hidden:
            h = torch.tanh(affine(layer, h))
        results.append(h)
    assert relative(values(network, x), affine(network.last, torch.cat(results, dim=1))) < 1e-12


@pytest.mark.parametrize("trainable", [False, True])
def test_frequencies_are_fixed_or_trained(trainable: bool) -> None:
    """Drawn from the stated normal distributions, to 5 standard errors, and part of the state either way."""
    network = FourierNetwork(4, 1, features=2000, scales=(1.0, 10.0), trainable=trainable, domain=BOX)
    names = {f"features.{i}.frequencies" for i in range(2)}
    assert names <= set(network.state_dict())
    assert (names <= {name for name, _ in network.named_parameters()}) == trainable
    assert (names <= {name for name, _ in network.named_buffers()}) != trainable
    for features, scale in zip(network.features, (1.0, 10.0), strict=True):
        frequencies = features.frequencies
        assert frequencies.mean().abs().item() < 5 * scale / math.sqrt(frequencies.numel())
        assert frequencies.std().item() == pytest.approx(scale, rel=5 / math.sqrt(2 * frequencies.numel()))


def test_cpikan() -> None:
    """The double sum over inputs and degrees, the polynomials by NumPy."""
    degree = 6
    network = ChebyshevKAN(3, 1, degree, standardize=False, domain=BOX, outputs=2).double()
    x = points()
    h = x
    for layer in network.layers:
        polynomials = torch.from_numpy(chebyshev.chebvander(torch.tanh(h).detach().numpy(), degree))
        coefficients = layer.coefficients.view(-1, h.shape[1], degree + 1)
        h = torch.einsum("nik,jik->nj", polynomials, coefficients)
    assert relative(values(network, x), h) < 1e-12


def test_chebyshev_features_where_tanh_saturates() -> None:
    """Every polynomial is 1 at tanh z = 1, with vanishing derivatives; single precision stays finite."""
    features = ChebyshevFeatures(8)
    z = torch.tensor([[[0.0]], [[12.0]], [[50.0]]])
    value, *derivatives = features._polynomials(z, 4)
    assert torch.equal(value[1:], torch.ones(2, 1, 9))
    assert all(torch.equal(d[2], torch.zeros(1, 9)) for d in derivatives)
    assert value[0, 0].tolist() == [1, 0, -1, 0, 1, 0, -1, 0, 1]
    assert derivatives[0][0, 0].tolist() == [0, 1, 0, -3, 0, 5, 0, -7, 0]


def test_initial_coefficients_of_cpikan() -> None:
    """Standard deviation 1 / (inputs (degree + 1)) within 5 standard errors."""
    layer = ChebyshevKAN(60, 2, 4, domain=BOX).layers[1]
    n = layer.coefficients.numel()
    assert n == 60 * 60 * 5
    assert layer.coefficients.std().item() == pytest.approx(1 / (60 * 5), rel=5 / math.sqrt(2 * n))
    assert layer.coefficients.mean().abs().item() < 5 / (60 * 5) / math.sqrt(n)


def test_ecrn() -> None:
    network = ECRN(4, 3, alpha=0.3, standardize=False, domain=BOX, outputs=2).double()
    with torch.no_grad():
        network.alphas[1].fill_(-0.7)
    x = points()
    angles = 2 * math.pi * x @ network.features.frequencies.T
    h = torch.cat([torch.cos(angles), torch.sin(angles)], dim=1)
    for layer, alpha in zip(network.layers, (0.3, -0.7, 0.3), strict=True):
        h = h + alpha * torch.tanh(affine(layer, h))
    assert relative(values(network, x), affine(network.last, h)) < 1e-6  # 0.3 in single precision at first


@pytest.mark.parametrize(("alpha", "expected"), [(None, 0.2), (0.5, 0.5)])
def test_initial_alpha(alpha: float | None, expected: float) -> None:
    network = ECRN(3, 5, alpha=alpha, domain=BOX)
    assert [a.item() for a in network.alphas] == pytest.approx([expected] * 5)
    assert all(a.requires_grad and a.shape == (1,) for a in network.alphas)
    assert not network.features.frequencies.requires_grad
    assert ECRN(3, 2, trainable=True, domain=BOX).features.frequencies.requires_grad
