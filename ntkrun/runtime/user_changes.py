"""Changes that users' code makes to the process, undone after its run so that it spoils no other."""

from __future__ import annotations

import gc
import io
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TextIO

import numpy as np
import torch

from ntkrun.runtime.signals import STOPPING

PutBack = Callable[[], object]


@contextmanager
def user_changes_undone() -> Iterator[None]:
    """Put back, at the end, what surrounds a run.

    The working directory, the environment, the standard streams, logging, signal handlers, warnings, the interpreter's
    and NumPy's settings, and torch's: gradients, default type and device, precision, determinism. Not the number of
    threads and the random numbers, which every run sets itself.
    """
    with ExitStack() as stack:
        for note in (_directory, _environment, _interpreter, _torch, _signals, _logging, _streams):
            stack.callback(note())
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(np.errstate())
        stack.enter_context(torch.inference_mode(False))
        yield


def _directory() -> PutBack:
    try:
        before = os.getcwd()
    except OSError:  # somebody has removed it
        return lambda: None

    def put_back() -> None:
        with suppress(OSError):
            os.chdir(before)

    return put_back


def _environment() -> PutBack:
    before = dict(os.environ)

    def put_back() -> None:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)

    return put_back


def _interpreter() -> PutBack:
    arguments, path, depth = sys.argv[:], sys.path[:], sys.getrecursionlimit()
    hooks, collects = (sys.excepthook, threading.excepthook), gc.isenabled()

    def put_back() -> None:
        sys.argv[:], sys.path[:] = arguments, path
        sys.setrecursionlimit(depth)
        sys.excepthook, threading.excepthook = hooks
        (gc.enable if collects else gc.disable)()

    return put_back


def _torch() -> PutBack:
    gradients, dtype, device = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_default_device()
    precision, anomalies = torch.get_float32_matmul_precision(), torch.is_anomaly_enabled()
    deterministic = torch.get_deterministic_debug_mode()

    def put_back() -> None:
        torch.set_grad_enabled(gradients)
        torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:
            torch.set_default_device(None if device.type == "cpu" else device)
        torch.set_float32_matmul_precision(precision)
        torch.autograd.set_detect_anomaly(anomalies)
        torch.set_deterministic_debug_mode(deterministic)

    return put_back


def _signals() -> PutBack:
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    before = {number: signal.getsignal(number) for number in STOPPING}

    def put_back() -> None:
        for number, handler in before.items():
            if handler is not None:  # one that was not set from Python
                signal.signal(number, handler)

    return put_back


def _logging() -> PutBack:
    root, own = logging.getLogger(), logging.getLogger("ntkrun")
    before = [(each, each.level, each.handlers[:], each.propagate) for each in (root, own)]
    disabled, raises = root.manager.disable, logging.raiseExceptions

    def put_back() -> None:
        logging.disable(disabled)
        logging.raiseExceptions = raises
        for logger, level, handlers, propagate in before:
            logger.setLevel(level)
            logger.handlers, logger.propagate = handlers, propagate
        for name in logging.root.manager.loggerDict:
            if name.partition(".")[0] == "ntkrun":
                logging.getLogger(name).disabled = False

    return put_back


def _streams() -> PutBack:
    streams = {1: sys.stdout, 2: sys.stderr}
    copies = {}
    for number in streams:
        with suppress(OSError):
            copies[number] = os.dup(number)

    def put_back() -> None:
        for number, copy in copies.items():
            os.dup2(copy, number)
            os.close(copy)
        sys.stdout, sys.stderr = (_open(stream, number) for number, stream in streams.items())

    return put_back


def _open(stream: TextIO, number: int) -> TextIO:
    """The stream, or another one to the same place where it has been closed."""
    if not stream.closed:
        return stream
    with suppress(OSError):
        return open(number, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    return io.StringIO()
