"""Hundreds of overrides, files, sweeps and classes, most of them wrong: each ends in one line, or runs.

``NTKRUN_INPUTS=4 python -m pytest tests/cli/test_bad_input.py`` tries four times as many, some 2,000.
"""

from __future__ import annotations

import itertools
import json
import linecache
import os
import sys
import tempfile
import time
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
from tests.driver import ntkrun

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
TOP += ["stop.error", "stop.loss", "stop.seconds", "progress", "plots", "skip_completed", "report"]
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
LONG = ["1" * 5000, "-" + "9" * 4301, "'" + "7" * 5000 + "'", "0." + "0" * 400 + "1", "1e99999", "1e-99999"]
LONG += ["\u0663", "\uff11\uff12", "\u00b2", "1__0", "+1", "0" * 3000, "a" * 5000, "[" + "1," * 500 + "1]"]
DEEP = [
    o * n + i + c * n for n in (40, 400, 2000) for o, i, c in (("[", "", "]"), ("{a:", "1", "}"), ("${", "seed", "}"))
]
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
FORMS += ["a" * 5000 + "=1", ".".join("a" * 500) + "=1", "+" + ".".join(["a"] * 300) + "=1", "pde=" + "x" * 5000]
FORMS += ["+let=" + "{a:" * 100 + "1" + "}" * 100, "let.a=1", "let=1", "+let.a=1", "seed=\udcff", "seed=\u202e1"]
FORMS += ["time_windows=0", "time_windows=1000000000", "iterations=99999999999999999999", "iterations=0.5", "-m=1"]

text = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)
values = st.one_of(*map(st.sampled_from, (NUMBERS, WORDS, REFERENCES, LONG, DEEP)), text, st.integers().map(str))


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


ODD_FILES = [
    "a: " + "1" * 5000,
    "a: " + "[" * 2000 + "]" * 2000,
    "a: " + "{b: " * 400 + "1" + "}" * 400,
    "a: &a [1, 1]\n" + "".join(f"{c}: &{c} [*{b}, *{b}, *{b}, *{b}]\n" for b, c in itertools.pairwise("abcdefghij")),
    "a: &a\n  b: *a\n",
    "a: *nothing",
    "a: 1\na: 2",
    "\ta: 1",
    "a: !!python/object/apply:os.system [true]",
    "? [1, 2]\n: 3",
    "2026-01-01: 1",
    "a: ${" * 300,
    "--- 1\n--- 2",
    "%YAML 9.9\n--- 1",
]


@st.composite
def config_files(draw: st.DrawFn) -> str:
    """A file for the group ``pde``: one of the menu with some keys changed, or anything."""
    if draw(st.integers(0, 4)) == 0:
        return draw(
            st.one_of(
                st.sampled_from(ODD_FILES), text, trees.map(lambda tree: yaml.safe_dump(tree, allow_unicode=True))
            )
        )
    name = draw(st.sampled_from(["poisson", "wave", "regression", "advection"]))
    content: dict[str, Any] = yaml.safe_load((CONF / "pde" / f"{name}.yaml").read_text(encoding="utf-8"))
    content["grid"] = 4
    for key in draw(st.lists(st.sampled_from([*content, "defaults", "_partial_", "x"]), min_size=1, max_size=2)):
        if draw(st.integers(0, 3)):
            content[key] = draw(st.sampled_from(TARGETS) if key == "_target_" else trees)
        else:
            content.pop(key, None)
    return yaml.safe_dump(content, allow_unicode=True)


pytestmark = [pytest.mark.long, pytest.mark.no_cover]  # minutes under a tracer, in lines that other tests reach

TINY = ["iterations=1", "plots=false", "report=false", "progress=false"]
COMMON = settings(
    derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck), print_blob=False
)


@pytest.fixture(autouse=True)
def _small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same 2 GB of memory everywhere, and nothing to open a browser with."""
    monkeypatch.setattr(memory, "available", lambda device="cpu": 2 * 10**9)
    monkeypatch.setenv("BROWSER", "false")


MORE = int(os.environ.get("NTKRUN_INPUTS", "1"))
LONGEST = 20  # seconds of the processor


def run(folder: Path, *arguments: object) -> str:
    """What becomes of a case; a run that fails says why in one line, as any other."""
    before, started = set(folder.rglob("*")), time.process_time()
    result = ntkrun(*arguments, cwd=folder)
    assert time.process_time() - started < LONGEST
    assert "Traceback" not in result.stderr, result.stderr
    torch.set_num_threads(1)
    if result.status == 2:
        made = set(folder.rglob("*")).difference(before)
        assert all("__pycache__" in path.parts for path in made), made
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

    @settings(COMMON, max_examples=410 * MORE)
    @given(st.lists(overrides, min_size=1, max_size=2))
    def case(parts: list[list[str]]) -> None:
        given_ = [argument for part in parts for argument in part]
        first = [] if any(argument.startswith("resume=") for argument in given_) else TINY
        with tempfile.TemporaryDirectory() as folder:
            ended[run(Path(folder), *first, *given_)] += 1

    case()
    assert sum(ended.values()) >= 400
    assert ended["refused"] >= 200
    assert ended["ran"] >= 8


def test_configuration_files() -> None:
    ended: Counter[str] = Counter()

    @settings(COMMON, max_examples=95 * MORE)
    @given(config_files())
    def case(content: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "own" / "pde" / "mine.yaml"
            file.parent.mkdir(parents=True)
            file.write_text(content, encoding="utf-8")
            ended[run(Path(folder), *TINY, "--config-dir", "own", "pde=mine")] += 1

    case()
    assert sum(ended.values()) >= 90
    assert ended["refused"] >= 40
    assert ended["ran"] >= 1


SWEPT = ["0,1", "range(3,0)", "range(0,10,0)", "range(nan,3)", "range(0,inf)", "range(0,1e9)", "choice()", "choice(0)"]
SWEPT += ["interval(0,1)", "tag(a,b,1)", "sort(3,a,1)", "shuffle(range(0,3))", "glob(*)", "glob([)", "glob(nothing)"]
SWEPT += ["0,", ",", "0,x", "0,null", "0,[]", "0," + "1" * 5000, "0," + "[" * 400 + "]" * 400, "0,${nothing}", "0,-1"]
KEYS = [
    "seed",
    "network.width",
    "weights",
    "pde.points.residual",
    "optimizer.learning_rate",
    "nothing",
    "hydra.job.num",
]


def test_sweeps() -> None:
    """Those that are not refused are of a few jobs."""
    ended: Counter[str] = Counter()
    few = [*TINY, "iterations=0", "network.width=4", "network.depth=1", "pde.grid=4"]

    @settings(COMMON, max_examples=30 * MORE)
    @given(st.sampled_from(KEYS), st.sampled_from(SWEPT), st.sampled_from(["", "hydra.sweep.subdir=x"]))
    def case(key: str, value: str, place: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            ended[run(Path(folder), "-m", *few, f"{key}={value}", *filter(None, [place]))] += 1

    case()
    assert ended["refused"] >= 15


RAISING = """
import sys
from ntkrun.pde import Poisson, Term


class NoWords(Exception):
    def __str__(self):
        raise SystemExit(0)

    __repr__ = __str__


class Base(BaseException):
    pass


WHAT = {
    "exit": lambda: sys.exit(0),
    "words": lambda: sys.exit("words"),
    "interrupt": lambda: raise_(KeyboardInterrupt()),
    "generator": lambda: raise_(GeneratorExit()),
    "stop": lambda: raise_(StopIteration()),
    "base": lambda: raise_(Base("base")),
    "no words": lambda: raise_(NoWords()),
    "lines": lambda: raise_(ValueError("one\\ntwo\\x00\\x1b[31m")),
    "long": lambda: raise_(RuntimeError("x" * 10**6)),
    "group": lambda: raise_(ExceptionGroup("both", [ValueError(1), NoWords()])),
    "memory": lambda: raise_(MemoryError()),
    "recursion": lambda: WHAT["recursion"](),
    "unicode": lambda: b"\\xff".decode(),
    "file": lambda: open("/nowhere/at/all"),
    "caused": lambda: caused(),
    "nothing": lambda: None,
}


def raise_(error):
    raise error


def caused():
    try:
        raise_(NoWords())
    except NoWords as error:
        raise ValueError("caused") from error


class Raising(Poisson):
    def __init__(self, a: int = 4, hard_boundary: bool = False, what: str = "nothing", place: str = "built") -> None:
        self.what, self.place, self.calls = what, place, 0
        super().__init__(a)
        self.act("built")

    def act(self, place):
        if place == self.place:
            WHAT[self.what]()

    def terms(self):
        self.act("terms")
        first, second = super().terms()
        return Term("residual", first.region, first.derivatives, lambda x, d: self.equation(first, x, d)), second

    def equation(self, term, x, d):
        self.calls += len(x.x) > 10
        self.act("run" if self.calls > 2 else "tried")
        return term.residual(x, d)

    def exact(self, x):
        self.act("exact")
        return super().exact(x)
"""
PLACES = ("built", "terms", "tried", "run", "exact")
WHAT = [line.split('"')[1] for line in RAISING.splitlines() if line.startswith('    "')]


def test_classes_that_raise_anything() -> None:
    """One in five, and all with NTKRUN_INPUTS."""
    ended: Counter[str] = Counter()
    cases = list(itertools.product(WHAT, PLACES))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "raising.py").write_text(RAISING)
        for number, (what, place) in enumerate(cases):
            if MORE == 1 and number % 6:  # 6 and 5 have no common factor: all places occur
                continue
            given_ = ["pde._target_=raising.Raising", f"+pde.what='{what}'", f"+pde.place={place}"]
            ended[run(Path(folder), *TINY, "iterations=9", *given_, f"hydra.run.dir=run{number}")] += 1
    sys.modules.pop("raising", None)
    linecache.clearcache()
    assert len(WHAT) == 16
    assert ended["refused"] >= 8
    assert ended["failed"] >= 1
