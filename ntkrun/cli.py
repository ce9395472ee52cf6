"""The command line.

Heavy imports come late: help and shell completion must answer at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ntkrun.refusal import refuse

if TYPE_CHECKING:
    from omegaconf import DictConfig


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
    if any(argument.startswith("resume=") for argument in arguments):
        sys.exit(_resume(arguments))
    sys.exit(_hydra(arguments))


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
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    statuses: list[int] = []
    started = False

    def task(config: DictConfig) -> None:
        nonlocal started
        started = True
        statuses.append(_run(config, Path(HydraConfig.get().runtime.output_dir)))

    OmegaConf.register_new_resolver("ntkrun.unique", _unique, use_cache=True, replace=True)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach the handler below instead of being printed
    sys.argv[1:] = arguments
    try:
        hydra.main(version_base="1.3", config_path="pkg://ntkrun.conf", config_name="config")(task)()
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        from ntkrun.config import ConfigError
        from ntkrun.explain import explain

        if isinstance(error, ConfigError):
            refuse(error)
        if started:
            raise
        refuse(explain(error, arguments))
    return max(statuses, default=0)


def _run(config: DictConfig, directory: Path) -> int:
    from ntkrun.check import own_values
    from ntkrun.closing import print_closing
    from ntkrun.run import execute

    outcome = execute(own_values(config), directory)
    print_closing(directory, outcome)
    return outcome.exit_status


def _resume(arguments: Sequence[str]) -> int:
    from ntkrun.checkpoints import CheckpointError
    from ntkrun.closing import print_closing
    from ntkrun.config import ConfigError
    from ntkrun.resume import read_resume
    from ntkrun.run import execute

    try:
        directory, values = read_resume(arguments)
        outcome = execute(values, directory, resume=True)
    except (ConfigError, CheckpointError) as error:
        refuse(error)
    print_closing(directory, outcome)
    return outcome.exit_status


def _unique() -> str:
    """Eight random hexadecimal digits: run directories differ even when runs start together."""
    return os.urandom(4).hex()
