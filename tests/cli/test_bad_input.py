"""Hundreds of overrides and configuration files, most of them wrong: each ends in one line, or runs."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ntkrun.runtime import memory
from tests.driver import Result, ntkrun

CONF = files("ntkrun.conf")
GROUPS = ("pde", "network", "weights", "point_weights", "optimizer", "schedule", "diagnostics")
MENU: dict[str, dict[str, list[str]]] = {
    group: {
        file.name.removesuffix(".yaml"): list(yaml.safe_load(file.read_text(encoding="utf-8")))
        for file in sorted((CONF / group).iterdir(), key=lambda file: file.name)
        if file.name.endswith(".yaml")
    }
    for group in GROUPS
}
SLOW = {"optimizer.max_iterations"}  # what takes long if it is taken at its word
TOP = ["seed", "threads", "device", "dtype", "log_every", "evaluate_every", "checkpoint_every", "keep_best"]
TOP += ["stop.error", "stop.loss", "progress", "plots", "skip_completed", "report"]
TOP += ["kernel.route", "kernel.memory_mib", "trainer.chunk_size"]
TARGETS = ["os.system", "posix.system", "builtins.exec", "builtins.eval", "subprocess.Popen"]
TARGETS += ["antigravity.x", "this.s"]
TARGETS += [
    "pathlib.Path",
    "..x",
    ".",
    "x.",
    "a..b",
    "Poisson",
    "ntkrun.pde.Nothing",
    "ntkrun.pde.PDE",
    "ntkrun.cli.main.main",
]
TARGETS += ["torch.nn.Linear", "ntkrun.network.MLP", "ntkrun.__main__.main", "no_such_module.Class", "math.pi"]
NUMBERS = ["0", "-1", "1", "2", "3", "1.5", "-0.5", "0.999999", "1e-320", "1e38", "1e300", "1e400", "-1e400", "nan"]
NUMBERS += [".inf", "-.inf", "1000000000", "1000000000000", "9223372036854775807", "9223372036854775808"]
NUMBERS += ["1" + "0" * 40, "0x10", "1_000", "1e3"]
WORDS = [
    "null",
    "true",
    "false",
    "yes",
    "''",
    "abc",
    "auto",
    "training",
    "tanh",
    "'a b'",
    "???",
    "'\\\\'",
    "../x",
    "'#'",
]
WORDS += [
    "[]",
    "{}",
    "[[]]",
    "[1]",
    "[nan]",
    "[0]",
    "[1e308,1e308]",
    "[a,b]",
    "{a:1}",
    "{residual:1}",
    "{residual:nan}",
]
WORDS += ["{residual:0,boundary:0}", "{_target_:os.system}", "[{_target_:os.system}]"]
REFERENCES = [
    "${seed}",
    "${nothing}",
    "${pde.nothing}",
    "${pde}",
    "${.x}",
    "${..seed}",
    "${oc.env:NO_SUCH}",
    "${now:%Y}",
]
REFERENCES += ["${oc.decode:'['}", "${nothing:1}", "${hydra:nothing}", "${", "$", "${}", "${seed", "${pde.grid}x"]
FORMS = [
    "=",
    "=3",
    "a.b.c=3",
    "~",
    "~seed",
    "~pde",
    "~network",
    "+seed=1",
    "++seed=1",
    "++a=1",
    "seed",
    "-x",
    "--",
    "-1",
]
FORMS += ["pde=", "pde=null", "pde=[poisson,wave]", "pde=../../x", "pde@x=wave", "+pde=wave", "weights@_global_=none"]
FORMS += ["hydra.run.dir=${nothing}", "hydra.verbose=[1]", "hydra.callbacks=3"]
FORMS += ["+hydra.callbacks.x._target_=os.system"]
FORMS += [
    "hydra/launcher=nothing",
    "hydra.mode=x",
    "hydra.searchpath=3",
    "hydra.job=3",
    "~hydra",
    "--cfg",
    "--cfg=x",
    "-i",
]
FORMS += [
    "--config-dir",
    "--config-dir=nowhere",
    "--config-name=nothing",
    "-cp=nowhere",
    "--experimental-rerun=x",
    "-m",
]
FORMS += ["resume=", "resume=.", "resume=/dev/null", "resume=\x00", "trust=os", "experiment=nothing"]
FORMS += ["logger=nothing"]
FORMS += ["hydra.launcher._target_=os.system", "hydra.sweeper._target_=os.system", "iterations=-1"]
FORMS += ["iterations=1e400"]
FORMS += ["time_windows=0", "time_windows=1000000000", "iterations=99999999999999999999", "iterations=0.5", "-m=1"]

text = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)
values = st.one_of(*map(st.sampled_from, (NUMBERS, WORDS, REFERENCES)), text, st.integers().map(str))


@st.composite
def choices(draw: st.DrawFn) -> list[str]:
    """A choice from the menu and a value for one of its keys."""
    group = draw(st.sampled_from(GROUPS))
    choice = draw(st.sampled_from(sorted(MENU[group])))
    key = f"{group}.{draw(st.sampled_from(MENU[group][choice]))}"
    if key in SLOW:
        return [f"{group}={choice}"]
    value = draw(st.sampled_from(TARGETS) if key.endswith("_target_") else values)
    if key == "pde.points":
        key += draw(st.sampled_from(["", ".residual", ".boundary", ".x"]))
    return [f"{group}={choice}", draw(st.sampled_from(["", "", "", "+", "++"])) + f"{key}={value}"]


overrides = st.one_of(
    choices(),
    choices(),
    choices(),
    st.tuples(st.sampled_from(TOP), values).map(lambda pair: [f"{pair[0]}={pair[1]}"]),
    st.sampled_from(FORMS).map(lambda form: [form]),
    st.tuples(text, values).map(lambda pair: [f"{pair[0]}={pair[1]}"]),
)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([2**63, -(10**30), 10**9]),
    st.floats(),
    text,
    st.sampled_from([*REFERENCES, *TARGETS]),
)
trees = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(text, inner, max_size=2), max_leaves=4
)


@st.composite
def config_files(draw: st.DrawFn) -> str:
    """A file for the group ``pde``: one of the menu with some keys changed, or anything."""
    if draw(st.integers(0, 4)) == 0:
        return draw(st.one_of(text, trees.map(lambda tree: yaml.safe_dump(tree, allow_unicode=True))))
    name = draw(st.sampled_from(["poisson", "wave", "regression", "advection"]))
    content: dict[str, Any] = yaml.safe_load((CONF / "pde" / f"{name}.yaml").read_text(encoding="utf-8"))
    content["grid"] = 4
    for key in draw(st.lists(st.sampled_from([*content, "defaults", "_partial_", "x"]), min_size=1, max_size=2)):
        if draw(st.integers(0, 3)):
            content[key] = draw(st.sampled_from(TARGETS) if key == "_target_" else trees)
        else:
            content.pop(key, None)
    return yaml.safe_dump(content, allow_unicode=True)


pytestmark = pytest.mark.no_cover  # minutes under a tracer, in lines that other tests reach

TINY = ["iterations=1", "plots=false", "report=false", "progress=false"]
COMMON = settings(
    derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck), print_blob=False
)


@pytest.fixture(autouse=True)
def _small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same 2 GB of memory everywhere, and nothing to open a browser with."""
    monkeypatch.setattr(memory, "available", lambda device="cpu": 2 * 10**9)
    monkeypatch.setenv("BROWSER", "false")


def check(result: Result, folder: Path) -> str:
    """What became of a case; a run that fails says why in one line, as any other."""
    assert "Traceback" not in result.stderr, result.stderr
    assert not (folder / "harm").exists()
    torch.set_num_threads(1)
    if result.status == 2:
        assert result.stdout == ""
        assert result.stderr.count("\n") == 1, result.stderr
        assert result.stderr.startswith("ntkrun: ")
        assert len(result.stderr.strip()) > len("ntkrun: ")
        return "refused"
    if result.status == 1:
        summaries = [json.loads(path.read_text()) for path in folder.rglob("summary.json")]
        assert any(each["status"] == "failed" and each["message"] for each in summaries), result.stderr
        return "failed"
    assert result.status == 0, result.stderr
    return "ran"


def test_overrides() -> None:
    ended: Counter[str] = Counter()

    @settings(COMMON, max_examples=410)
    @given(st.lists(overrides, min_size=1, max_size=2))
    def run(parts: list[list[str]]) -> None:
        given_ = [argument for part in parts for argument in part]
        first = [] if any(argument.startswith("resume=") for argument in given_) else TINY
        with tempfile.TemporaryDirectory() as folder:
            ended[check(ntkrun(*first, *given_, cwd=Path(folder)), Path(folder))] += 1

    run()
    assert sum(ended.values()) >= 400
    assert ended["refused"] >= 200
    assert ended["ran"] >= 8


def test_configuration_files() -> None:
    ended: Counter[str] = Counter()

    @settings(COMMON, max_examples=95)
    @given(config_files())
    def run(content: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "own" / "pde" / "mine.yaml"
            file.parent.mkdir(parents=True)
            file.write_text(content, encoding="utf-8")
            result = ntkrun(*TINY, "--config-dir", "own", "pde=mine", cwd=Path(folder))
            ended[check(result, Path(folder))] += 1

    run()
    assert sum(ended.values()) >= 90
    assert ended["refused"] >= 40
    assert ended["ran"] >= 1
