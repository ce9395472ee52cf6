"""Completion, of the words and in the shells themselves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ntkrun.cli.completion import SCRIPTS, completions
from ntkrun.cli.help import GROUPS, choices
from tests.driver import assert_refused, ntkrun


def test_choices_and_keys() -> None:
    assert completions("ntkrun pde=wa") == ["pde=wave"]
    assert completions("ntkrun seed=1 weights=") == [f"weights={name}" for name in choices("weights")]
    assert completions("ntkrun -m weights=exact,ske") == ["weights=exact,sketched"]
    assert completions("ntkrun iter") == ["iterations="]
    assert completions("ntkrun stop.") == ["stop.error=", "stop.loss=", "stop.seconds="]
    assert completions("ntkrun sh") == ["show"]
    assert completions("ntkrun pde=wave sh") == []
    assert completions("ntkrun --list opt") == ["optimizer"]
    assert completions("ntkrun resume=") == []  # directories are the shell's
    assert {f"{group}=" for group in GROUPS} <= set(completions("ntkrun "))


def test_keys_are_those_of_the_choice() -> None:
    assert "optimizer.learning_rate=" in completions("ntkrun optimizer=adam optimizer.")
    assert completions("ntkrun optimizer=gauss_newton optimizer.learn") == []
    assert completions("ntkrun pde=wave pde.points.init") == ["pde.points.initial=", "pde.points.initial_velocity="]


def test_groups_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "pde").mkdir()
    (tmp_path / "pde" / "mine.yaml").write_text("_target_: mine.Mine\nspeed: 2.0 # of the front\n")
    for option in (f"--config-dir {tmp_path}", f"--config-dir={tmp_path}"):
        assert completions(f"ntkrun {option} pde=mi") == ["pde=mine"]
        assert completions(f"ntkrun {option} pde=mine pde.") == ["pde.speed="]


def test_other_shells_are_refused(tmp_path: Path) -> None:
    assert_refused(ntkrun("--completion", "fish", cwd=tmp_path), tmp_path, "bash or zsh")
    assert ntkrun("--completion", "bash", cwd=tmp_path).stdout.strip() == SCRIPTS["bash"].strip()


def test_it_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom ntkrun.cli.main import main\n"
        "try: main(['--completions', 'ntkrun pde=w'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'pandas', 'numpy', 'hydra', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["pde=wave", "[]"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """One whose PATH begins with a directory that has this program."""
    program = tmp_path / "bin" / "ntkrun"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ntkrun "$@"\n')
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "HOME": str(tmp_path), "TERM": "dumb"}


BASH = """
eval "$(ntkrun --completion bash)"
COMP_LINE=$1 COMP_POINT=${#1}
_ntkrun
printf '%s\\n' "${COMPREPLY[@]}"
complete -p ntkrun
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash on this machine")
def test_bash(environment: dict[str, str]) -> None:
    """Its words end at an equals sign unless that was taken out of COMP_WORDBREAKS."""

    def reply(line: str, breaks: str) -> list[str]:
        script = f"COMP_WORDBREAKS='{breaks}'{BASH}"
        command = ["bash", "-c", script, "bash", line]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        *words, last = done.stdout.splitlines()
        assert last == "complete -o default -F _ntkrun ntkrun"
        return words

    assert reply("ntkrun pde=hel", " =:") == ["helmholtz"]
    assert reply("ntkrun pde=hel", " ") == ["pde=helmholtz"]
    assert reply("ntkrun schedule=", " =:") == choices("schedule")
    assert reply("ntkrun iter", " =:") == ["iterations="]


ZSH = """
zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z 'PS1=; eval "$(ntkrun --completion zsh)"; print READY'
zpty -r -m z line '*READY*READY*'
zpty -n -w z $'ntkrun pde=hel\\t'
zpty -r -m z line '*pde=helmholtz*'
print -r -- "$line"
zpty -d z
"""


@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh on this machine")
def test_zsh(environment: dict[str, str]) -> None:
    """In a terminal of its own, with a Tab."""
    command = ["zsh", "-f", "-c", ZSH]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert "pde=helmholtz" in done.stdout
