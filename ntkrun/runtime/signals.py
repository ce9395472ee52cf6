"""Signals: runs stop on Ctrl-C, SIGTERM or a scheduler's warning at the next step."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TypeAlias

from ntkrun.common.torchrun import several_processes

# Schedulers announce the end of a job's time with SIGUSR1 or SIGUSR2.
WARNINGS = tuple(signal.Signals[name] for name in ("SIGUSR1", "SIGUSR2") if name in signal.Signals.__members__)
STOPPING = (signal.SIGINT, signal.SIGTERM, *WARNINGS)


Signal: TypeAlias = signal.Signals


class StopRequest:
    """Whether a signal has asked the run to stop, and which."""

    signal: signal.Signals | None = None

    def __call__(self) -> bool:
        return self.signal is not None

    def heard(self) -> Signal | None:
        """The signal to this very process, which may have come before all processes of a run have agreed to stop."""
        return self.signal


class StopWorker(StopRequest):
    """Of a process that works for another one; the end of that one is a request, too."""

    def __init__(self) -> None:
        self.parent = os.getppid()

    def __call__(self) -> bool:
        if self.signal is None and self.alone():
            self.signal = signal.SIGTERM
        return self.signal is not None

    def heard(self) -> Signal | None:
        self()
        return self.signal

    def alone(self) -> bool:
        """Whether the process that this one works for has ended."""
        return os.getppid() != self.parent


_worker: StopWorker | None = None
_passed_on = StopRequest()


@contextmanager
def stop_on_signals(numbers: Sequence[signal.Signals] = STOPPING) -> Iterator[StopRequest]:
    """Turn the first of these signals into a request; the second acts as usual.

    Processes that torchrun has started get each signal from whoever sends it to all and from torchrun, which kills
    them if they take too long; they do not let the second act.

    Outside the main thread, where Python takes no handlers, nothing is changed.
    """
    if _worker is not None:
        yield _worker
        return
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in numbers}

    def handle(number: int, frame: FrameType | None) -> None:
        request.signal = signal.Signals(number)
        if several_processes():
            return
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, handle)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def become_worker() -> StopWorker:
    """Let SIGTERM stop this job and all later ones of this process; SIGINT is left to the process that started it.

    A terminal sends SIGINT to all processes, so the one that waits for the jobs passes SIGTERM on instead.
    """
    global _worker
    if _worker is None:
        request = _worker = StopWorker()

        def handle(number: int, frame: FrameType | None) -> None:
            request.signal = signal.Signals(number)

        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, handle)
    return _worker


@contextmanager
def pass_signals_on() -> Iterator[None]:
    """Pass the first SIGINT or SIGTERM on to the processes that work for this one, and wait for them as before.

    Without such processes, and from the second signal on, they act as usual.
    """
    _passed_on.signal = None
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, frame: FrameType | None) -> None:
        for each, handler in before.items():
            signal.signal(each, handler)
        _passed_on.signal = signal.Signals(number)
        workers = multiprocessing.active_children()
        if not workers:
            signal.raise_signal(number)
            return
        for worker in workers:
            if worker.pid is not None:
                os.kill(worker.pid, signal.SIGTERM)

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def signal_passed_on() -> signal.Signals | None:
    """The signal that has acted within the last ``pass_signals_on``, other than by stopping a run at its next step."""
    return _passed_on.signal


def hand_over(number: signal.Signals) -> bool:
    """Let the launcher act on a scheduler's warning, now that the run has its checkpoint.

    submitit's own handler puts the job back into the queue and leaves the process. Where it may not do so any more,
    this returns true: the job is over for the launcher. Without such a handler it returns false.
    """
    if number not in WARNINGS or not callable(signal.getsignal(number)):
        return False
    with suppress(Exception):
        signal.raise_signal(number)
    return True
