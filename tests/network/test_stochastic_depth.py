"""Residual branches dropped at random, one draw per optimiser step."""

import math

import pytest
import torch
from torch import Tensor

from ntkrun.geometry import Box
from ntkrun.network import ECRN
from tests.oracle import relative, values

BOX = Box.of(x=(2.0, 4.0))
DRAWS = 4000


def build(survival: float = 0.5, seed: int = 3, depth: int = 4) -> ECRN:
    generator = torch.Generator().manual_seed(seed)
    return ECRN(3, depth, survival=survival, domain=BOX, generator=generator).double()


def draws(network: ECRN, steps: range) -> Tensor:
    rows = []
    for step in steps:
        network.start_step(step)
        rows.append(network.factors)
    return torch.tensor(rows)


def test_survival_decreases_linearly_with_depth() -> None:
    assert build().survival == pytest.approx([0.875, 0.75, 0.625, 0.5])


def test_factors_average_to_one() -> None:
    """Mean and frequency of every layer within 5 standard errors; layers are kept independently."""
    network = build()
    factors = draws(network, range(DRAWS))
    kept = (factors > 0).double()
    for layer, p in enumerate(network.survival):
        error = math.sqrt((1 - p) / p / DRAWS)
        assert factors[:, layer].mean().item() == pytest.approx(1, abs=5 * error)
        assert kept[:, layer].mean().item() == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / DRAWS))
        assert factors[:, layer].unique().tolist() == pytest.approx([0, 1 / p])
    correlations = torch.corrcoef(kept.T) - torch.eye(4)
    assert correlations.abs().max().item() < 5 / math.sqrt(DRAWS)


def test_a_dropped_branch_passes_on_its_input() -> None:
    network = build(depth=1)
    x = torch.rand(5, 1, dtype=torch.float64) + 2
    whole = values(network, x)
    network.factors = [0.0]
    dropped = values(network, x)
    with torch.no_grad():
        network.alphas[0].zero_()
    network.factors = [1.0]
    assert torch.equal(values(network, x), dropped)
    with torch.no_grad():
        network.alphas[0].fill_(1)
    network.factors = [2.0]
    assert relative(values(network, x) - dropped, 2 * (whole - dropped)) < 1e-12


def test_a_draw_depends_on_seed_and_step_alone() -> None:
    """So a resumed run, whose network is built anew, repeats the draws of a run that never stopped."""
    through = draws(build(), range(30))
    torch.rand(7)
    resumed = draws(build(), range(20, 30))
    assert torch.equal(through[20:], resumed)
    assert not torch.equal(through, draws(build(seed=4), range(30)))
    assert len(torch.unique(through, dim=0)) > 5


def test_draws_leave_the_global_generator_alone() -> None:
    network, before = build(), torch.get_rng_state()
    network.start_step(11)
    assert torch.equal(before, torch.get_rng_state())


def test_evaluation_keeps_every_branch() -> None:
    x = torch.rand(5, 1, dtype=torch.float64) + 2
    network, whole = build(survival=0.01), values(build(survival=1.0), x)
    assert torch.equal(values(network, x), whole)
    network.start_step(0)
    assert not all(network.factors)
    assert not torch.equal(values(network, x), whole)
    assert torch.equal(values(network.eval(), x), whole)


def test_certain_survival_changes_nothing() -> None:
    network = build(survival=1.0)
    assert draws(network, range(50)).eq(1).all()


def test_masks_are_no_part_of_the_state() -> None:
    network = build()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.start_step(5)
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
