"""The share of the cores that a job takes, by the launchers' own configurations."""

from __future__ import annotations

import signal

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra

from ntkrun.runtime.signals import WARNINGS, hand_over
from ntkrun.runtime.threads import available_cores, set_threads
from tests.engines.engine import needs_joblib, needs_ray, needs_submitit


@pytest.mark.parametrize(
    ("launcher", "environment", "expected"),
    [
        pytest.param(["joblib", "n_jobs=-1"], {}, 1, id="joblib-all", marks=needs_joblib),
        pytest.param(["joblib", "n_jobs=1000"], {}, 1, id="joblib-too-many", marks=needs_joblib),
        pytest.param(
            ["joblib", "n_jobs=2"], {"SLURM_CPUS_ON_NODE": "6"}, 3, id="joblib-in-a-slurm-job", marks=needs_joblib
        ),
        pytest.param(["submitit_local"], {}, 1, id="local", marks=needs_submitit),
        pytest.param(["submitit_local", "cpus_per_task=3"], {}, 3, id="local-given", marks=needs_submitit),
        pytest.param(["submitit_slurm"], {"SLURM_CPUS_ON_NODE": "2"}, 2, id="slurm", marks=needs_submitit),
        pytest.param(
            ["submitit_slurm", "cpus_per_task=3"],
            {"SLURM_CPUS_PER_TASK": "3", "SLURM_CPUS_ON_NODE": "4"},
            3,
            id="slurm-given",
            marks=needs_submitit,
        ),
        pytest.param(["ray"], {}, 1, id="ray", marks=needs_ray),
        pytest.param(["ray", "+ray.remote.num_cpus=3"], {}, 3, id="ray-given", marks=needs_ray),
    ],
)
def test_share_of_the_cores(
    launcher: list[str], environment: dict[str, str], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    name, *values = launcher
    overrides = [f"{'+' * v.startswith('+')}hydra.launcher.{v.removeprefix('+')}" for v in values]
    GlobalHydra.instance().clear()
    with initialize_config_module("ntkrun.conf", version_base="1.3"):
        config = compose("config", [f"hydra/launcher={name}", *overrides], return_hydra_config=True)
    before = torch.get_num_threads()
    try:
        set_threads("auto", config.hydra)
        assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)


def test_the_cores_of_a_slurm_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "5")
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    assert available_cores() == 5


def test_a_launcher_that_does_not_requeue_is_no_failure() -> None:
    """submitit raises an error where a job has been put back into the queue too often."""

    def refuse(*_: object) -> None:
        raise RuntimeError("not requeued")

    number = WARNINGS[-1]
    before = signal.getsignal(number)
    assert not hand_over(number)
    try:
        signal.signal(number, refuse)
        assert hand_over(number)
    finally:
        signal.signal(number, before)
    assert not hand_over(signal.SIGTERM)
