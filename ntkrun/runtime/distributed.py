"""Processes that train together: how they add up and how they agree.

All of them take the same steps from the same numbers, so that they need to exchange sums over points only. The one of
rank 0 leads: it alone writes the run directory and speaks.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ntkrun.common.torchrun import restarted, several_machines, several_processes
from ntkrun.runtime.signals import StopRequest

T = TypeVar("T")


class LostError(RuntimeError):
    """Another process of this run has ended before its time."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of its run; by itself unless torchrun has started several.

    Every method must be called by all processes alike, and raises ``LostError`` where one of them is gone.

    Attributes:
        rank: its number, from 0.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place of ``tensor``; the same bits for all of them."""
        if self.count > 1:
            with _connected():
                dist.all_reduce(tensor)
        return tensor

    def exchange(self, parts: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
        """Hand every process its part; returns what all of them had for this one.

        Args:
            parts: vectors, one for every process.
            sizes: how long the vectors are that come from every process.
        """
        if self.count == 1:
            return list(parts)
        received = parts[0].new_empty(sum(sizes))
        with _connected():
            dist.all_to_all_single(received, torch.cat(list(parts)), list(sizes), [len(part) for part in parts])
        return list(received.split(list(sizes)))

    def broadcast(self, value: T) -> T:
        """The value of the process that leads."""
        if self.count == 1:
            return value
        box = [value]
        with _connected():
            dist.broadcast_object_list(box, device=torch.device("cpu"))
        return box[0]

    def largest(self, numbers: Sequence[int]) -> list[int]:
        """The largest of every number over all processes."""
        tensor = torch.tensor(numbers)
        if self.count > 1:
            with _connected():
                dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return [int(number) for number in tensor]


ALONE = Ranks()


@contextmanager
def _connected() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise LostError("another process of this run has ended") from error


def present() -> Ranks:
    """The processes of this run."""
    if dist.is_available() and dist.is_initialized():
        return Ranks(dist.get_rank(), dist.get_world_size())
    return ALONE


def join() -> None:
    """Become one of the processes that torchrun has started, if it has.

    Tensors on a CUDA device are exchanged by NCCL, all others by Gloo.
    """
    if several_processes():
        nccl = torch.cuda.is_available() and dist.is_nccl_available()
        backend = "cpu:gloo,cuda:nccl" if nccl else "gloo"
        if not restarted() or several_machines():
            dist.init_process_group(backend)
            return
        # The store of addresses outlives a restart, and those of the processes that were lost are still in it.
        from torch.distributed.distributed_c10d import PrefixStore
        from torch.distributed.rendezvous import rendezvous

        store, rank, count = next(rendezvous("env://"))
        own = PrefixStore(f"restart_{os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
        dist.init_process_group(backend, store=own, rank=rank, world_size=count)


def part() -> None:
    """Leave the process group; all processes come here at the same point of the run."""
    if present().count > 1:
        dist.destroy_process_group()


PERIOD = 0.25  # seconds between two questions
LONGEST = 1000  # steps between them


class StopTogether(StopRequest):
    """A request to any of the processes, seen by all of them before the same step.

    They ask each other a few times per second, at steps that they agree upon, so that it costs next to nothing however
    short a step is, and so that a scheduler's time of grace is enough however long it is.

    Args:
        own: the requests to this process.
        ranks: the processes.
    """

    def __init__(self, own: StopRequest, ranks: Ranks) -> None:
        self._own = own
        self._ranks = ranks
        self._steps = self._left = 1
        self._asked = time.perf_counter()

    def heard(self) -> signal.Signals | None:
        return self._own.heard()

    def __call__(self) -> bool:
        self._left -= 1
        if self._left:
            return False
        seconds = max(time.perf_counter() - self._asked, 1e-6)
        wish = max(1, min(2 * self._steps, LONGEST, int(PERIOD / seconds * self._steps)))
        number, steps = self._ranks.largest([int(self._own.signal or 0), -wish])
        self._steps = self._left = -steps
        self._asked = time.perf_counter()
        if number:
            self.signal = signal.Signals(number)
        return self.signal is not None


def agreed(own: StopRequest) -> StopRequest:
    """The requests to all processes of this run, those to this one where it is by itself."""
    ranks = present()
    return own if ranks.count == 1 else StopTogether(own, ranks)
