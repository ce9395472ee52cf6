"""The command line.

Heavy imports come late: help and shell completion must answer at once.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from ntkrun.common.errors import ConfigError, closest, fail, refuse
from ntkrun.common.streams import lasting_streams
from ntkrun.common.torchrun import leads
from ntkrun.runtime.compiler_cache import make_cache_usable
from ntkrun.runtime.openmp import wait_briefly


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the program and leave with its exit status.

    0: done. 1: a run failed. 2: the command line or configuration cannot be used.
    128 + n: stopped by signal n.
    """
    with lasting_streams():
        sys.exit(_main(list(sys.argv[1:] if arguments is None else arguments)))


def _main(arguments: Sequence[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        from ntkrun.cli.help import help_text

        print(help_text())
        return 0
    if "--version" in arguments:
        from ntkrun import __version__

        print(f"ntkrun {__version__}")
        return 0
    if arguments[:1] == ["--completions"]:
        from ntkrun.cli.completion import completions

        print("\n".join(completions(" ".join(arguments[1:]))))
        return 0
    if "--completion" in arguments:
        return _completion(arguments)
    if "--list" in arguments:
        return _list(arguments)
    act = _resume if any(argument.startswith("resume=") for argument in arguments) else _hydra
    if arguments[:1] == ["show"]:
        act = _show
    make_cache_usable()
    wait_briefly()
    from ntkrun.common.user_frames import cause, from_user_code
    from ntkrun.runtime.distributed import LostError, join
    from ntkrun.runtime.user_changes import user_changes_undone
    from ntkrun.storage.atomic import WriteError

    try:
        join()
        with user_changes_undone():  # whoever calls this from Python continues afterwards
            return act(arguments[1:] if act is _show else _arranged(arguments))
    except ConfigError as error:
        refuse(error)
    except WriteError as error:
        fail(error)
    except LostError:  # the one that is gone, or the one that leads, says why
        return 1
    except KeyboardInterrupt:
        print("ntkrun: stopped at once; the last checkpoint is kept", file=sys.stderr)
        return 128 + signal.SIGINT
    except BaseException as error:
        if not from_user_code(error):  # how ntkrun itself leaves, or a fault of its own
            raise
        fail(cause(error) if leads() else f"process {os.environ['RANK']}: {cause(error)}")


def _list(arguments: Sequence[str]) -> int:
    """Print the choices of a group, or the groups, one a line."""
    from ntkrun.cli.help import GROUPS, group_lines

    _, _, group = " ".join(arguments).partition("--list")
    group = group.strip(" =")
    if group and group not in GROUPS:
        refuse(f"--list {group}: no such group; there are {', '.join(GROUPS)}{closest(group, GROUPS)}")
    for line in group_lines(group) if group else [f"{name:<18} {meaning}" for name, meaning in GROUPS.items()]:
        print(line)
    return 0


def _completion(arguments: Sequence[str]) -> int:
    """Print what a shell evaluates to complete the command line."""
    from ntkrun.cli.completion import SCRIPTS

    shell = " ".join(arguments).partition("--completion")[2].strip(" =")
    if shell not in SCRIPTS:
        refuse(f'--completion {shell}: expected {" or ".join(SCRIPTS)}, as eval "$(ntkrun --completion bash)"')
    print(SCRIPTS[shell])
    return 0


def _show(arguments: Sequence[str]) -> int:
    from ntkrun.cli.show import show

    return show(arguments)


# Hydra's options. Its experimental rerun is not among them: that one executes what a pickle says.
FLAGS = ("-m", "--multirun", "-r", "--run", "--resolve", "--hydra-help", "-sc", "--shell-completion")
VALUES: dict[str, tuple[str, ...]] = {  # the words that may follow; none for any
    **dict.fromkeys(("-p", "--package", "-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir"), ()),
    **dict.fromkeys(("-c", "--cfg"), ("job", "hydra", "all")),
    **dict.fromkeys(("-i", "--info"), ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")),
}


def _arranged(arguments: Sequence[str]) -> list[str]:
    """The options, then all overrides: Hydra's own parser does not take overrides on both sides of an option.

    Raises:
        ConfigError: an argument is neither.
    """
    options, overrides = [], []
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if not argument.startswith("-"):
            if not equals and not argument.startswith("~"):
                order = "; it is the first word, as in ntkrun show pde=NAME" if argument == "show" else ""
                raise ConfigError(f"{argument}: expected key=value{order}")
            overrides.append(argument)
            continue
        if name not in VALUES and argument not in FLAGS:
            raise ConfigError(f"{argument}: unknown option; ntkrun --help shows how a run is described")
        options.append(argument)
        if argument in FLAGS:
            continue
        if not equals:
            value = next(rest, "")
            options.append(value)
        if not value or value.startswith("-"):
            raise ConfigError(f"{name}: expected a value after it")
        if VALUES[name] and value not in VALUES[name]:
            raise ConfigError(f"{name} {value}: allowed are {', '.join(VALUES[name])}")
    return [*options, *overrides]


def _hydra(arguments: Sequence[str]) -> int:
    """Compose the configuration and run it, or sweep with ``-m``."""
    import hydra
    from hydra.errors import HydraException

    from ntkrun.cli.hydra_errors import explain
    from ntkrun.cli.hydra_job import run_job
    from ntkrun.cli.invocation import invocation
    from ntkrun.cli.restart import directory_override
    from ntkrun.common.user_frames import cause
    from ntkrun.config.classes import look_for_modules_in
    from ntkrun.experiment.run import REFUSED
    from ntkrun.runtime.signals import pass_signals_on

    look_for_modules_in(os.getcwd())
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach the handler below instead of being printed
    # Hydra makes the run's directory for the process that leads alone.
    elsewhere = directory_override() if leads() else ["hydra.run.dir=.", "hydra.output_subdir=null"]
    sys.argv[1:] = [*arguments, *elsewhere]
    try:
        with invocation() as begun, pass_signals_on():
            hydra.main(version_base="1.3", config_path="pkg://ntkrun.conf", config_name="config")(run_job)()
    except (SystemExit, KeyboardInterrupt) as leaving:  # a signal, or a refusal
        if begun.sweep is None or begun.sweep.withdraw():
            raise
        stopped = begun.sweep.finish()
        return int(leaving.code or 0) if isinstance(leaving, SystemExit) else stopped
    except Exception as error:
        if begun.sweep is not None and not begun.sweep.withdraw():
            return begun.sweep.finish(cause(error))
        if isinstance(error, REFUSED):
            refuse(error)
        if _raised_by_a_job(error):
            raise
        # Of Hydra's own files; OmegaConf raises errors without a number where a file holds no configuration.
        writing = isinstance(error, OSError) and error.errno is not None and not isinstance(error, HydraException)
        if isinstance(error, OSError) and writing and error.errno != errno.ENAMETOOLONG:
            fail(f"{error.filename or 'the run directory'} cannot be written: {error.strerror or error}")
        refuse(explain(error, arguments))
    return 0 if begun.sweep is None else begun.sweep.finish()


def _raised_by_a_job(error: BaseException) -> bool:
    """Whether an error comes from a run, and not from the making of its configuration."""
    from ntkrun.cli.hydra_job import run_job

    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code is run_job.__code__ for frame, _ in frames)


def _resume(arguments: Sequence[str]) -> int:
    from ntkrun.cli.console import print_closing
    from ntkrun.cli.resume import read_resume
    from ntkrun.experiment.run import REFUSED, execute
    from ntkrun.runtime.threads import set_threads
    from ntkrun.runtime.user_changes import user_changes_undone

    try:
        directory, configuration, accepted = read_resume(arguments)
        set_threads(configuration.settings.threads, None)
        with user_changes_undone():
            outcome = execute(configuration, directory, resume=True, accepted=accepted)
    except REFUSED as error:
        refuse(error)
    if leads():
        print_closing(directory, outcome)
    return outcome.exit_status
