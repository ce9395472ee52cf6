"""What makes two configurations those of one run: all values but the run's length and its output."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ntkrun.config.schema import CHANGEABLE
from ntkrun.storage.checkpoint import NAME, CheckpointError

NAMED = 5
"""Most differences that a message names."""


def identity(values: Mapping[str, Any]) -> str:
    """A configuration as JSON, without the keys that may change between its parts or do not concern the run."""
    own = copy.deepcopy(dict(values))
    if own.get("start_from") is None:  # version 0.1.0 knows no such key
        own.pop("start_from", None)
    _drop_absent(own.get("pde"))
    for key in (*CHANGEABLE, "skip_completed", "report", "threads", "logger", "let"):
        *groups, name = key.split(".")
        node = own
        for group in groups:
            node = node.get(group) or {}
        node.pop(name, None)
    return json.dumps(own, sort_keys=True, default=str)


def _drop_absent(pde: Any) -> None:
    """Leave out that there are no measured data, none held out or batches, of which version 0.1.0 does not know."""
    if not isinstance(pde, dict):
        return
    if pde.get("batch") is None:
        pde.pop("batch", None)
    if not pde.get("hold_out"):
        pde.pop("hold_out", None)
    if pde.get("data") is not None:
        return
    pde.pop("data", None)
    points = pde.get("points")
    if isinstance(points, dict) and points.get("data") == "all":
        del points["data"]


def fingerprint(values: Mapping[str, Any]) -> str:
    """A digest of ``identity``."""
    return hashlib.sha256(identity(values).encode()).hexdigest()


def compare(state: Mapping[str, Any], values: Mapping[str, Any], accepted: Sequence[str]) -> str:
    """Compare the configuration in a checkpoint with that of the run that is to go on from it.

    Args:
        state: of the checkpoint.
        values: the configuration as plain values.
        accepted: keys that may differ, with all below them.

    Returns:
        What is to be said about it; empty where they are the same.

    Raises:
        CheckpointError: they differ otherwise, or there is no saying.
    """
    saved = state.get("configuration")
    if saved is None:
        return f"{NAME} is of a version that did not keep the configuration in it; that of the directory is taken"
    try:
        there, here = dict(_flat(json.loads(saved))), dict(_flat(json.loads(identity(values))))
    except (TypeError, ValueError, RecursionError):
        raise CheckpointError(f"{NAME} does not fit this run: configuration: not that of a run") from None
    different = [key for key in {**there, **here} if there.get(key) != here.get(key)]
    if not different:
        return ""
    pairs = [f"{key}={there.get(key, 'nothing')} ({here.get(key, 'nothing')} here)" for key in different[:NAMED]]
    named = ", ".join(pairs)
    more = f" and {len(different) - NAMED} more" if len(different) > NAMED else ""
    others = [key for key in different if not any(key == each or key.startswith(f"{each}.") for each in accepted)]
    if others:
        raise CheckpointError(
            f"{NAME} is of a run with {named}{more}; if it is meant to go on like this, add accept={','.join(others)}"
        )
    return f"{NAME} is of a run with {named}{more}; accepted"


def _flat(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """All values of a configuration as JSON, by dotted key."""
    if isinstance(node, dict) and node:
        for name, value in node.items():
            yield from _flat(value, f"{key}.{name}" if key else name)
    else:
        yield key, json.dumps(node)[:200]
