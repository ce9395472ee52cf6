"""Steps wait for no device: nothing on it is read between two rows of the table of metrics.

Shown without a card: by tensors without values, reading which is an error, and by counting reads on the host.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ntkrun.experiment.run import make_records, make_trainer
from ntkrun.objective import Objective
from ntkrun.objective.batch import Batch
from ntkrun.objective.linearized import LinearizedRows
from ntkrun.optimizer.sketched import SketchedSolution
from ntkrun.runtime.signals import StopRequest
from ntkrun.steps.eager import Stepper
from ntkrun.training.progress import Progress
from ntkrun.weights import Request, Unweighted
from tests.devices import Reads, apart, parts, parts_on_meta, walk

PDES = sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "pde").glob("*.yaml"))
KEPT, NEW = "pde.resample_every=null", ("pde.resample_every=1",)
WEIGHTS = {
    "none": ("weights=none",),
    "exact": ("weights=exact", "weights.update_every=1"),
    "exact-own-points": ("weights=exact", "weights.update_every=1", "weights.points=20"),
    "sketched": ("weights=sketched", "weights.update_every=1"),
    "sketched-parameter": (
        *("weights=sketched", "weights.update_every=1", "weights.side=parameter", "weights.distribution=gaussian"),
    ),
    "relobralo": ("weights=relobralo",),
    "softadapt": ("weights=softadapt",),
    "uncertainty": ("weights=uncertainty",),
    "gradient_norm": ("weights=gradient_norm", "weights.update_every=1"),
}


def in_any_order(points: Tensor) -> Tensor:
    """In place of the order along a curve, for which new points are read once."""
    return torch.arange(len(points))


def walk_blind(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> int:
    """Steps 0 to 4 on a device without values; returns the copies to it after the first step."""
    monkeypatch.setattr("ntkrun.ntk.sketch.hilbert_order", in_any_order)
    built = parts_on_meta(monkeypatch, *overrides)
    stepper = Stepper(built.objective, built.optimizer)
    for _ in walk(built, stepper, range(1)):
        pass
    with apart("meta") as device:
        for evaluation in walk(built, stepper, range(1, 5)):
            assert evaluation.losses.device.type == "meta"
    return device.copies


@pytest.mark.parametrize("weights", ["none", "exact", "sketched"])
def test_weightings(weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    walk_blind(monkeypatch, "pde=wave", "optimizer=adam", *WEIGHTS[weights])


@pytest.mark.parametrize("change", ["reads", "copies", "mixes"])
def test_what_waits_is_found(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A weighting that reads the losses, makes a tensor from numbers, or multiplies by one of the host."""

    def request(self: Unweighted, step: int, objective: Objective, batch: Batch) -> Request:
        if step == 3 and change == "reads":
            float(objective.losses(batch)[0])
        if step == 3 and change == "copies":
            return Request(self.weights.new_tensor([1.0, 1.0]))
        if step == 3 and change == "mixes":
            return Request(self.weights @ torch.eye(2))
        return Request(self.weights)

    monkeypatch.setattr(Unweighted, "request", request)
    words = {"reads": "cannot be called on meta", "copies": "one by one", "mixes": "tensors on meta, cpu"}[change]
    with pytest.raises((RuntimeError, AssertionError), match=words):
        walk_blind(monkeypatch, "pde=poisson", "optimizer=adam", "weights=none")


@pytest.mark.parametrize(
    ("weights", "compiled"),
    [("none", False), ("exact", False), ("exact", True), ("sketched", True)],
    ids=["none-operations", "exact-operations", "exact-graph", "sketched-graph"],
)
def test_the_loop_reads_nothing_between_rows(
    weights: str, compiled: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On the host an eager step looks whether its losses are finite, which it does not do elsewhere."""
    monkeypatch.setattr("ntkrun.steps.graph.compile_trace", lambda trace, inputs, like: trace)
    loop = ("iterations=41", "log_every=20", f"trainer.compile={str(compiled).lower()}", "pde.grid=3")
    built = parts("pde=poisson", "optimizer=adam", *WEIGHTS[weights], *loop)
    counts: list[int] = []

    class Counting(StopRequest):
        def __call__(self) -> bool:
            counts.append(reads.total)
            return False

    records = make_records(built, tmp_path, None)
    with Reads() as reads:
        make_trainer(built, records, tmp_path, Counting(), Progress()).fit()
    records.close()
    steps = [after - before for before, after in pairwise(counts)]
    assert steps[20] >= 2  # a row of the table
    assert set(steps[21:40]) == {0 if compiled else 1}


SOLVERS = ("cholesky", *(pytest.param(name, marks=pytest.mark.long) for name in ("qr", "sketch_and_solve")), "sketched")


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_step_of_gauss_newton_reads_a_few_numbers(solver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss, the scale and a seed; of every damping and of every evaluation 2; of a conjugate gradient step 3."""
    built = parts("pde=wave", "optimizer=gauss_newton", f"optimizer.solver={solver}", "dtype=float64")
    steps = walk(built, Stepper(built.objective, built.optimizer), range(8))
    next(steps)  # points are drawn
    iterations = evaluations = 0
    refined, at = SketchedSolution._refined, LinearizedRows.at

    def counted(*arguments: Any) -> Any:
        nonlocal iterations
        result = refined(*arguments)
        iterations += 1 + result[-1]
        return result

    def evaluated(*arguments: Any) -> Any:
        nonlocal evaluations
        evaluations += 1
        return at(*arguments)

    monkeypatch.setattr(SketchedSolution, "_refined", counted)
    monkeypatch.setattr(LinearizedRows, "at", evaluated)
    found: list[int] = []
    for _ in range(7):
        iterations = evaluations = 0
        with Reads() as reads:
            next(steps)
        trials = built.optimizer.report()["trials"]
        assert trials is not None
        assert reads.total <= 3 + 2 * trials + 2 * evaluations + 3 * iterations
        found.append(reads.total)
    print(f"{solver}: {min(found)} to {max(found)} numbers read in a step")


@pytest.mark.long
@pytest.mark.parametrize("weights", sorted(WEIGHTS.keys() - {"none", "exact", "sketched"}))
def test_further_weightings(weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    walk_blind(monkeypatch, "pde=wave", "optimizer=adam", *WEIGHTS[weights])


@pytest.mark.long
@pytest.mark.parametrize("point_weights", ["causal", "residual_attention"])
def test_point_weights(point_weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    walk_blind(monkeypatch, "pde=wave", "optimizer=adam", f"point_weights={point_weights}", *WEIGHTS["exact"], KEPT)


@pytest.mark.long
@pytest.mark.parametrize("optimizer", ["adamw", "gradient_descent"])
def test_optimizers(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    walk_blind(monkeypatch, "pde=wave", f"optimizer={optimizer}", *WEIGHTS["exact"])


@pytest.mark.long
@pytest.mark.parametrize("network", ["modified_mlp", "fourier", "cpikan", "ecrn"])
def test_networks(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    size = ("network.features=3",) if network == "ecrn" else ()
    walk_blind(monkeypatch, "pde=wave", "optimizer=adam", f"network={network}", *size, *WEIGHTS["exact"])


@pytest.mark.long
@pytest.mark.parametrize("pde", PDES)
def test_problems(pde: str, monkeypatch: pytest.MonkeyPatch) -> None:
    walk_blind(monkeypatch, f"pde={pde}", "optimizer=adam", *WEIGHTS["exact"])


@pytest.mark.long
@pytest.mark.parametrize("sampling", ["uniform", "sobol"])
def test_new_points_in_every_step(sampling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They come in blocks of many draws, from pinned memory."""
    walk_blind(monkeypatch, "pde=wave", "optimizer=adam", f"pde.sampling={sampling}", *NEW, *WEIGHTS["exact"])
