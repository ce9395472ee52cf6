import contextlib
import json
import os
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
import yaml

from ntkrun.cli.help import choices
from ntkrun.cli.invocation import invocation, present_invocation
from ntkrun.cli.main import main
from ntkrun.config.assembly import Parts, assemble
from ntkrun.config.configuration import Configuration
from tests.driver import Result, assert_refused, ntkrun

SCRIPT = str(Path(sysconfig.get_path("scripts")) / "ntkrun")


REFUSED = {
    # command line: what the one line must contain
    "kernel.route=structure": ("kernel.route=structure", "'per_point'", "did you mean structured?"),
    "kernel.rout=dense": ("kernel.rout", "did you mean kernel.route?"),
    "+kernel.foo=1": ("unknown key kernel.foo",),
    "kernel=3": ("kernel=3", "keys with values"),
    "pde=poison": ("pde=poison", ", ".join(choices("pde")), "did you mean poisson?"),
    "weights=sketchd": ("weights=sketchd", ", ".join(choices("weights")), "did you mean sketched?"),
    "schedule=qqq": ("schedule=qqq", "constant, cosine, exponential"),
    "netwrok=mlp": ("netwrok", "did you mean network?"),
    "network.widht=3": ("network.widht", "did you mean network.width?"),
    "iteratons=10": ("iteratons", "did you mean iterations?"),
    "pde=wave pde.cc=1": ("pde.cc", "did you mean pde.c?"),
    "+qqq=1": ("qqq", "iterations", "pde", "schedule", "${let.qqq}, there is let.qqq"),
    "let=3": ("let=3: expected keys with values",),
    "seed='3.5'": ("seed=3.5: expected a valid integer",),
    "progress='maybe'": ("progress=maybe: expected a valid boolean",),
    "iterations='99999999999999999999'": ("iterations=99999999999999999999",),
    "network.width=abc": ("network.width=abc", "integer"),
    "network.width=2.5": ("network.width=2.5", "integer"),
    "network.width=null": ("network.width=null", "integer"),
    "network.width={a:1}": ("network.width=", "integer"),
    "progress=maybe": ("progress=maybe", "boolean"),
    "pde.a=1.5": ("pde.a=1.5", "integer"),
    "optimizer=adam optimizer.learning_rate=fast": ("optimizer.learning_rate=fast", "number"),
    "optimizer=adam optimizer.learning_rate=nan": ("optimizer.learning_rate=nan", "finite"),
    "optimizer=adam optimizer.learning_rate=inf": ("optimizer.learning_rate=inf", "finite"),
    "optimizer=adam optimizer.learning_rate=-1": ("optimizer.learning_rate=-1", "greater than 0"),
    "optimizer=adam optimizer.beta1=1": ("optimizer.beta1=1", "less than 1"),
    "network.width=0": ("network.width=0", "greater than 0"),
    "iterations=-1": ("iterations=-1", "greater than or equal to 0"),
    "seed=-1": ("seed=-1", "greater than or equal to 0"),
    "log_every=0": ("log_every=0", "greater than 0"),
    "checkpoint_every=0": ("checkpoint_every=0", "greater than 0"),
    "weights.smoothing=1.0": ("weights.smoothing=1.0", "less than 1"),
    "weights.floor=0": ("weights.floor=0", "greater than 0"),
    "schedule=exponential schedule.rate=2": ("schedule.rate=2", "less than or equal to 1"),
    "pde.grid=1": ("pde.grid=1", "greater than or equal to 2"),
    "weights=sketched weights.sketch_size=0": ("weights.sketch_size=0", "greater than 0"),
    "weights=sketched weights.delta=-1": ("weights.delta=-1", "greater than 0", "'auto'"),
    "weights=sketched weights.delta=some": ("weights.delta=some", "number", "'auto'"),
    "dtype=int8": ("dtype=int8", "'float32'", "'float64'"),
    "dtype=flaot64": ("dtype=flaot64", "did you mean float64?"),
    "device=tpu": ("device=tpu", "'auto'", "'cpu'", "'cuda'"),
    "network.activation=relu": ("network.activation=relu", "'tanh'", "'sin'", "'silu'", "'gelu'"),
    "pde.sampling=grid": ("pde.sampling=grid", "'uniform'", "'equispaced'", "'sobol'"),
    "weights.total=mean": ("weights.total=mean", "'sum'", "'average'"),
    "weights=sketched weights.side=parameter weights.distribution=coordinate": (
        "weights",
        "distribution=coordinate",
        "gaussian",
        "rademacher",
    ),
    "weights=sketched weights.derivative=autodiff weights.delta=1e-3": (
        "weights",
        "delta=0.001",
        "derivative=finite_difference",
    ),
    "pde.sampling=equispaced pde.resample_every=5": ("pde", "equispaced", "resample_every", "uniform", "sobol"),
    "pde=wave pde.sampling=equispaced pde.resample_every=null pde.points.residual=13": ("pde.points", "13", "16"),
    "pde.points.bondary=3": ("pde.points.bondary", "did you mean pde.points.boundary?"),
    "+pde.points.bondary=3": ("pde.points.bondary", "did you mean pde.points.boundary?"),
    "pde.points.edge=3": ("unknown key pde.points.edge", "pde.points.residual, pde.points.boundary"),
    "pde.data={u:probe.csv}": ("pde.data={'u': 'probe.csv'}", "a file, or a list of files", "columns"),
    "pde.points.residual=0": ("pde.points.residual=0", "greater than 0"),
    "pde.points=3": ("pde.points=3", "keys with values"),
    "pde=null": ("pde=null", ", ".join(choices("pde"))),
    "~weights": ("weights", "weights=NAME"),
    "~pde": ("pde", "pde=NAME"),
    "~network": ("network", "network=NAME"),
    "~optimizer": ("optimizer", "optimizer=NAME"),
    "~iterations": ("iterations", "missing"),
    "width": ("width", "="),
    "network.width=[1,2": ("network.width=[1,2",),
    "network.width=${nothing}": ("network.width", "nothing"),
    "network.width=???": ("network.width", "missing"),
    "--qqq": ("--qqq",),
    "pde._target_=math.pi": ("pde._target_=math.pi", "Python itself", "PDE"),
    "pde._target_=torch.nn.Linear": ("pde._target_=torch.nn.Linear", "subclass", "PDE"),
    "pde._target_=Poisson": ("pde._target_=Poisson", "module.Class"),
    "pde._target_=qqq.Poisson": ("pde._target_=qqq.Poisson", "No module named 'qqq'"),
    "network._target_=ntkrun.network.QQQ": ("network._target_=ntkrun.network.QQQ", "QQQ"),
    "resume=qqq": ("resume=qqq", "no such directory"),
    "resume=.": ("resume=.", ".hydra/config.yaml"),
    "-m resume=.": ("-m", "key=value"),
}


@pytest.mark.parametrize(("line", "words"), REFUSED.items(), ids=REFUSED)
def test_wrong_input_gets_one_line_and_status_2(line: str, words: tuple[str, ...], tmp_path: Path) -> None:
    assert_refused(ntkrun(*line.split(), cwd=tmp_path), tmp_path, *words)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_refused(tmp_path: Path) -> None:
    assert_refused(ntkrun("device=cuda", cwd=tmp_path), tmp_path, "device=cuda", "auto", "cpu")


@pytest.mark.parametrize("command", [[SCRIPT], [sys.executable, "-m", "ntkrun"]], ids=["script", "module"])
@pytest.mark.parametrize("line", ["network.widht=3", "resume=qqq"])
def test_wrong_input_in_a_process_of_its_own(command: list[str], line: str, tmp_path: Path) -> None:
    done = subprocess.run([*command, line], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert_refused(Result(done.returncode, done.stdout, done.stderr), tmp_path, line.split("=")[0])


def test_a_wrong_value_in_a_sweep_is_refused(tmp_path: Path) -> None:
    result = ntkrun("-m", "network.width=4,abc", "iterations=1", "plots=false", cwd=tmp_path)
    assert_refused(result, tmp_path, "network.width=abc: expected a valid integer")


# Values from elsewhere


def test_numbers_given_as_text_are_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "12")
    given = ["seed=${oc.env:MINE}", "pde.points.residual='33'", "optimizer.learning_rate='2e-3'", "plots='False'"]
    small = ["optimizer=adam", "iterations=0", "network.width=4", "pde.grid=5"]
    result = ntkrun(*small, *given, cwd=tmp_path)
    assert result.status == 0, result.stderr
    assert np.load(result.directory / "points.npz")["residual"].shape == (33, 1)
    assert json.loads((result.directory / "summary.json").read_text())["seed"] == 12
    assert not (result.directory / "plots").exists()
    alike = ["seed=12", "pde.points.residual=33", "optimizer.learning_rate=2e-3"]
    again = ntkrun(*small, *alike, "plots=false", cwd=tmp_path)
    summaries = [json.loads((each.directory / "summary.json").read_text()) for each in (result, again)]
    assert summaries[0]["weights"] == summaries[1]["weights"]


def test_values_that_others_refer_to(tmp_path: Path) -> None:
    given = [
        "let.n=50",
        "pde.points.residual=${let.n}",
        "iterations=0",
        "network.width=4",
        "pde.grid=5",
        "plots=false",
    ]
    result = ntkrun(*given, cwd=tmp_path)
    assert result.status == 0, result.stderr
    assert np.load(result.directory / "points.npz")["residual"].shape == (50, 1)


CONTENT = "_target_: ntkrun.pde.Poisson # caf\xe9\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\n" + CONTENT.encode("latin-1"), "own/pde/mine.yaml is not in UTF-8, see line 2; save it in UTF-8"),
        (CONTENT.encode("utf-16"), "own/pde/mine.yaml is in UTF-16; save it in UTF-8"),
        (b"a: 1\nb: \x07\n", "own/pde/mine.yaml:2: the character '\\x07' is not allowed in YAML"),
    ],
    ids=["latin-1", "utf-16", "bell"],
)
def test_a_file_that_is_not_of_unicode_text_is_named(content: bytes, words: str, tmp_path: Path) -> None:
    file = tmp_path / "own" / "pde" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    assert_refused(ntkrun("--config-dir", "own", "pde=mine", cwd=tmp_path), tmp_path, words)


def test_a_cache_of_the_compiler_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ntkrun.runtime import compiler_cache

    monkeypatch.setattr(compiler_cache.atexit, "register", lambda *_, **__: None)
    good, bad = str(tmp_path / "cache"), str(tmp_path / "file" / "cache")
    (tmp_path / "file").touch()
    for given in (good, bad):
        monkeypatch.setenv(compiler_cache.VARIABLE, given)
        compiler_cache.make_cache_usable()
        used = os.environ[compiler_cache.VARIABLE]
        assert (used == given) is (given == good)
        assert Path(used).is_dir()
        assert compiler_cache.cache_trouble().startswith(
            "" if given == good else f"{compiler_cache.VARIABLE}={bad} cannot"
        )
        assert compiler_cache.cache_trouble() == ""
    os.rmdir(used)


def test_what_calls_the_command_line_from_python_is_left_as_it_was(tmp_path: Path) -> None:
    """As a notebook does."""
    before = sys.argv[:], sys.path[:], dict(os.environ), matplotlib.get_backend(), os.getcwd()
    streams = sys.stdout, sys.stderr
    with contextlib.chdir(tmp_path), pytest.raises(SystemExit) as leaving:
        main(["iterations=1", "network.width=4", "pde.grid=5", "progress=false"])
    assert leaving.value.code == 0
    assert (sys.argv, sys.path, dict(os.environ), matplotlib.get_backend(), os.getcwd()) == before
    assert (sys.stdout, sys.stderr) == streams


# Help


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["pde=qqq", "--help"]], ids=" ".join)
def test_help_shows_the_whole_menu(arguments: list[str], tmp_path: Path) -> None:
    result = ntkrun(*arguments, cwd=tmp_path)
    assert (result.status, result.stderr) == (0, "")
    menu = {group.name: list(group.iterdir()) for group in files("ntkrun.conf").iterdir() if group.is_dir()}
    choices = {g: [c.name.removesuffix(".yaml") for c in cs if c.name.endswith(".yaml")] for g, cs in menu.items()}
    lines = [line.strip(" *") for line in result.stdout.splitlines()]
    shown = {group: names for group, names in choices.items() if names}
    groups = {"pde", "network", "weights", "point_weights", "optimizer", "schedule"}
    groups |= {"diagnostics", "logger", "experiment"}
    assert set(shown) == groups
    for group, names in shown.items():
        start = next(i for i, line in enumerate(lines) if line.startswith(f"{group}: "))
        listed = [line.split()[0] for line in lines[start + 1 : start + 1 + len(names)]]
        assert sorted(listed) == sorted(names)
    composed = yaml.safe_load(ntkrun("--cfg", "job", cwd=tmp_path).stdout)
    for key in ("iterations", "dtype", "log_every", "evaluate_every", "checkpoint_every", "threads"):
        (shown_value,) = (line.split()[1] for line in lines if line.split()[:1] == [key])
        assert shown_value == str(composed[key])
    assert sum(line.startswith("  ntkrun ") for line in result.stdout.splitlines()) >= 5


def test_the_examples_of_the_help_run(tmp_path: Path) -> None:
    text = ntkrun("--help", cwd=tmp_path).stdout
    examples = [line.split()[1:] for line in text.splitlines() if line.startswith("  ntkrun ")]
    single = [example for example in examples if example[0] != "-m" and not example[0].startswith("resume=")]
    assert len(single) >= 3
    for example in single:
        assert ntkrun(*example, "iterations=0", "plots=false", cwd=tmp_path).status == 0


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom ntkrun.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n"
        "    print(sorted({'torch', 'numpy', 'hydra', 'omegaconf', 'pydantic', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_version(tmp_path: Path) -> None:
    result = ntkrun("--version", cwd=tmp_path)
    assert (result.status, result.stdout, result.stderr) == (0, f"ntkrun {version('ntkrun')}\n", "")


def test_a_file_of_a_single_value_is_named(tmp_path: Path) -> None:
    (tmp_path / "conf" / "pde").mkdir(parents=True)
    (tmp_path / "conf" / "pde" / "own.yaml").write_text("true\n", encoding="utf-8")
    result = ntkrun("--config-dir", "conf", "pde=own", cwd=tmp_path)
    assert_refused(result, tmp_path, f"{Path('conf/pde/own.yaml')} holds a single value; expected are keys with values")


def test_parts_are_assembled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the check before a single run, which takes them over; in a sweep, once more by every job."""
    built = []

    def counted(configuration: Configuration, *earlier: Any) -> Parts:
        built.append(configuration.settings.seed)
        return assemble(configuration, *earlier)

    for place in ("ntkrun.cli.preflight.assemble", "ntkrun.experiment.run.assemble"):
        monkeypatch.setattr(place, counted)
    few = ("pde=poisson", "optimizer=adam", "iterations=1", "plots=false", "pde.grid=5", "report=false")
    assert ntkrun(*few, "seed=3", cwd=tmp_path).status == 0
    assert built == [3]
    built.clear()
    assert ntkrun("-m", *few, "seed=1,2", cwd=tmp_path).status == 0
    assert built == [1, 2, 1, 2]


def test_what_an_invocation_has_begun_is_its_own() -> None:
    with invocation() as outer:
        with invocation() as inner:
            assert present_invocation() is inner
        assert present_invocation() is outer
    assert present_invocation() is not outer
