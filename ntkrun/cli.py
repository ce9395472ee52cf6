"""The command line.

Heavy imports come late: help and shell completion must answer at once.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from ntkrun.launched import leads
from ntkrun.refusal import fail, refuse


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the program and leave with its exit status.

    0: done. 1: a run failed. 2: the command line or configuration cannot be used.
    128 + n: stopped by signal n.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & set(arguments):
        from ntkrun.help import help_text

        print(help_text())
        sys.exit(0)
    if "--version" in arguments:
        from ntkrun import __version__

        print(f"ntkrun {__version__}")
        sys.exit(0)
    if complaint := _wrong_form(arguments):
        refuse(complaint)
    sys.path.insert(0, os.getcwd())  # where users keep their own problems
    act = _resume if any(argument.startswith("resume=") for argument in arguments) else _hydra
    from ntkrun.files import WriteError
    from ntkrun.ranks import LostError, join

    try:
        join()
        status = act(arguments)
    except WriteError as error:
        fail(error)
    except LostError:  # the one that is gone, or the one that leads, says why
        sys.exit(1)
    sys.exit(status)


# Hydra's options, and whether a value follows.
OPTIONS = {
    **dict.fromkeys(
        ("-m", "--multirun", "-r", "--run", "--resolve", "--hydra-help", "-sc", "--shell-completion"), False
    ),
    **dict.fromkeys(("-c", "--cfg", "-p", "--package", "-cp", "--config-path", "-cn", "--config-name"), True),
    **dict.fromkeys(("-cd", "--config-dir", "-i", "--info", "--experimental-rerun"), True),
}


def _wrong_form(arguments: Sequence[str]) -> str | None:
    """What is wrong with the form of the command line, in one line."""
    rest = iter(arguments)
    for argument in rest:
        name, equals, _ = argument.partition("=")
        if argument.startswith("-"):
            if name not in OPTIONS:
                return f"{argument}: unknown option; ntkrun --help shows how a run is described"
            if OPTIONS[name] and not equals:
                next(rest, None)
        elif not equals and not argument.startswith("~"):
            return f"{argument}: expected key=value"
    return None


def _hydra(arguments: Sequence[str]) -> int:
    """Compose the configuration and run it, or sweep with ``-m``."""
    import hydra
    import yaml
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from ntkrun.check import started_sweep
    from ntkrun.explain import explain
    from ntkrun.jobs import run_job
    from ntkrun.run import REFUSED
    from ntkrun.signals import pass_signals_on
    from ntkrun.sweep import finish_sweep

    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach the handler below instead of being printed
    # Hydra makes the run's directory for the process that leads alone.
    sys.argv[1:] = arguments if leads() else [*arguments, "hydra.run.dir=.", "hydra.output_subdir=null"]
    try:
        with pass_signals_on():
            hydra.main(version_base="1.3", config_path="pkg://ntkrun.conf", config_name="config")(run_job)()
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        if isinstance(error, REFUSED):
            refuse(error)
        if _raised_by_a_job(error):
            raise
        refuse(explain(error, arguments))
    except OSError as error:
        if _raised_by_a_job(error):
            raise
        fail(
            f"{error.filename or 'the run directory'} cannot be written: {error.strerror or error}"
        )  # Hydra's own files
    sweep = started_sweep()
    return 0 if sweep is None else finish_sweep(sweep.directory, sweep.report)


def _raised_by_a_job(error: BaseException) -> bool:
    """Whether an error comes from a run, and not from the making of its configuration."""
    from ntkrun.jobs import run_job

    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code is run_job.__code__ for frame, _ in frames)


def _resume(arguments: Sequence[str]) -> int:
    from ntkrun.closing import print_closing
    from ntkrun.resume import read_resume
    from ntkrun.run import REFUSED, execute
    from ntkrun.threads import set_threads

    try:
        directory, values = read_resume(arguments)
        set_threads(values.get("threads", "auto"), None)
        outcome = execute(values, directory, resume=True)
    except REFUSED as error:
        refuse(error)
    if leads():
        print_closing(directory, outcome)
    return outcome.exit_status
