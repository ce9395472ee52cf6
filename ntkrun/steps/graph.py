"""Functions of tensors as compiled graphs."""

from __future__ import annotations

import gc
import linecache
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn
from torch import _inductor as inductor
from torch._inductor.codecache import PyCodeCache
from torch.fx import graph_module
from torch.fx.experimental.proxy_tensor import make_fx

from ntkrun.backend.matmul import faster_product
from ntkrun.backend.tracing import traced
from ntkrun.network import JetNetwork
from ntkrun.runtime.compiler_cache import cache_trouble
from ntkrun.steps.eager import StepError

log = logging.getLogger(__name__)

Made = TypeVar("Made")

MOVE = 64  # many enough to show that large constants swallow the last digits
CACHE = 2**21  # bytes; larger results of an operation do not stay in the cache of a core


class CompileError(RuntimeError):
    """A function cannot be compiled, or computes something else when it is."""


class Graph:
    """A compiled function of tensors.

    The function is traced operation by operation on one set of inputs, compiled, and compared with its operations on
    another, and on later ones where that is asked for.

    Args:
        function: from a list of tensors, some of which it may change in place, to a list of tensors.
        trial: inputs to try it on; those of 0 and of 1 differ in everything that inputs may differ in.
        network: what the function evaluates.
        like: of the dtype and device of the inputs.
        kept: inputs that are the same tensors in every call, by their places among the inputs.

    Attributes:
        check_next: compare the next call with the function's operations.

    Raises:
        CompileError: the graph computes something else.
    """

    def __init__(
        self,
        function: Callable[..., list[Tensor]],
        trial: Callable[[int], list[Tensor]],
        network: nn.Module,
        like: Tensor,
        kept: Mapping[int, Tensor],
    ) -> None:
        self.check_next = False
        self._function = function
        self._kept = dict(kept)
        self._replayed = _replays(like)
        if self._replayed:  # what a CUDA graph changes must lie where it lay when the graph was made
            for tensor in self._kept.values():
                torch._dynamo.mark_static_address(tensor)
        first = trial(0)
        with torch.no_grad():
            _check_traceable(network)
            with traced():
                faster = {} if self._replayed else {torch.ops.aten.mm.default: faster_product}
                trace = make_fx(function, faster, tracing_mode="real")(*_copies(first))
            self._compiled = compile_trace(trace, first, like)
            # Of a CUDA graph the first call is made by its operations, the second is recorded, the third replays it.
            for k in (1, 0, 1) if self._replayed else (1,):
                self._compare(trial(k))

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """What the function gives.

        Raises:
            StepError: the function gives something else, where that was to be checked.
        """
        if self.check_next:
            self.check_next = False
            return self._checked(inputs)
        return self._call(inputs)

    def _call(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        with torch.no_grad():
            if not self._replayed:
                outputs: list[Tensor] = self._compiled(*inputs)
                return outputs
            torch.compiler.cudagraph_mark_step_begin()
            # The next replay of the graph writes its outputs to the same place.
            return _copies(self._compiled(*inputs))

    def _compare(self, trial: Sequence[Tensor]) -> None:
        """Call both.

        Raises:
            CompileError: they differ by more than rounding.
        """
        theirs = _copies(trial)
        with self._lent(_copies(trial)) as ours:
            compiled = [*self._call(ours), *_copies(ours)]
        expected = [*self._function(*theirs), *theirs]
        for a, b in zip(compiled, expected, strict=True):
            if not _close(a, b):
                raise CompileError("a compiled step differs from its operations; does it depend on more than tensors?")

    @contextmanager
    def _lent(self, inputs: Sequence[Tensor]) -> Iterator[list[Tensor]]:
        """Inputs of a trial in which the tensors that are kept hold what the trial has in their places.

        A CUDA graph is recorded with the places in memory that it finds at its first calls.
        """
        ours, before = list(inputs), {place: tensor.clone() for place, tensor in self._kept.items()}
        for place, tensor in self._kept.items():
            ours[place] = tensor.copy_(ours[place])
        try:
            yield ours
        finally:
            for place, tensor in self._kept.items():
                tensor.copy_(before[place])

    def _checked(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Call both on inputs of the training.

        Near its end residuals are small differences of large numbers. What counts as rounding there is found by moving
        the inputs a little.
        """
        before, theirs = _copies(inputs), _copies(inputs)
        with torch.no_grad():
            expected = [*self._function(*theirs), *theirs]
            outputs = self._call(inputs)
            pairs = list(zip([*outputs, *inputs], expected, strict=True))
            if all(_close(a, b) for a, b in pairs) or not all(b.isfinite().all() for b in expected):
                return outputs
            near = [_moved(tensor) for tensor in before]
            moved = [*self._function(*near), *near]
            if all(_close(a, b, m) for (a, b), m in zip(pairs, moved, strict=True)):
                return outputs
        raise StepError(
            "the compiled step differs from the operations that it was made from, so a residual or the network depends "
            "on more than points, derivatives and parameters (what changes along a run, residuals read from "
            "x.progress); the steps since the last checkpoint may be wrong, and trainer.compile=false does without"
        )


class Compiler:
    """Makes what is compiled, until something fails: what cannot be compiled is done operation by operation.

    Args:
        measured: what a compilation is done in, such as a stopwatch.
        announce: called before and after a compilation, with whether it starts.

    Attributes:
        failed: whether something has failed.
    """

    def __init__(self, measured: Callable[[], AbstractContextManager[None]], announce: Callable[[bool], None]) -> None:
        self.failed = False
        self._measured = measured
        self._announce = announce

    def make(self, make: Callable[[], Made]) -> Made | None:
        """What ``make`` gives; ``None`` and one line in the log where that fails, now or earlier."""
        if self.failed:
            return None
        made = None
        if trouble := cache_trouble():
            log.warning(trouble)
        self._announce(True)
        with self._measured():
            try:
                made = make()
            except Exception as error:  # whatever the compiler stumbles over, eager steps do without it
                self.failed = True
                reason = str(error).strip().splitlines() or [type(error).__name__]
                log.warning("steps are not compiled: %s", " ".join(reason[: 1 + reason[0].endswith(":")]))
        self._announce(False)
        gc.freeze()  # what a compilation leaves is searched for garbage in 0.25 s, again and again
        return made


def forget_graphs() -> None:
    """Let go of all compiled graphs, of which torch keeps sources, modules and guards until told otherwise.

    Graphs refer to themselves in circles. What was hidden from the garbage collector is as old as can be to it
    afterwards, and it would not look there again before as much has been made anew: 20 MiB after every job.
    """
    gc.unfreeze()
    torch.compiler.reset()
    PyCodeCache.cache_clear()
    sources = graph_module._loader.eval_cache
    for name in sources:
        linecache.cache.pop(name, None)
    sources.clear()
    gc.collect()


def _replays(like: Tensor) -> bool:
    """Whether graphs for the device of a tensor are recorded as CUDA graphs, which are replayed."""
    return like.device.type == "cuda"


def _check_traceable(network: nn.Module) -> None:
    """Turn down a network of which one trace does not serve all steps.

    Raises:
        CompileError: what it draws for a step would be the same in all.
    """
    networks = [each for each in network.modules() if isinstance(each, JetNetwork)]
    if networks and not networks[0].traceable():
        raise CompileError(f"what {type(networks[0]).__name__} draws in start_step is not read from buffers")


def _copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.clone() for tensor in tensors]


def _moved(tensor: Tensor) -> Tensor:
    """A tensor with its entries moved up and down by ``MOVE`` units in the last place."""
    if not tensor.is_floating_point():
        return tensor
    signs = 1 - 2 * (torch.arange(tensor.numel(), device=tensor.device) * 7 // 3 % 2).view(tensor.shape)
    return tensor * (1 + MOVE * torch.finfo(tensor.dtype).eps * signs.to(tensor))


def _close(a: Tensor, b: Tensor, moved: Tensor | None = None) -> bool:
    """Equal up to rounding that a whole step has amplified: ten times two thirds of the digits, in norm.

    Args:
        a: of a compiled step.
        b: of its operations.
        moved: what ``b`` becomes by the smallest changes of the inputs; a hundred times as much is allowed, if given.
    """
    if not a.is_floating_point():
        return torch.equal(a, b) or (moved is not None and not torch.equal(moved, b))
    if a.isnan().any() or b.isnan().any():
        return torch.equal(a.isnan(), b.isnan())
    allowed = 10 * torch.finfo(a.dtype).eps ** (2 / 3) * b.norm()
    return bool((a - b).norm() <= (allowed if moved is None else allowed + 100 * (moved - b).norm()))


def compile_trace(trace: fx.GraphModule, inputs: Sequence[Tensor], like: Tensor) -> Callable[..., list[Tensor]]:
    """A trace as compiled code for inputs like these, on the device of ``like``."""
    options: dict[str, str | int | bool | Callable[..., Any]] = {
        # torch 2.13 may put a result into a slice of a concatenation that is no longer needed, and go on to give the
        # place away twice: as part of the concatenation and by itself. What lay there is lost without an error.
        "inplace_buffers": False,
    }
    if like.device.type == "cuda":
        # Nothing that could be guarded against changes: ``Signature`` tells what does.
        options |= {"guard_filter_fn": torch.compiler.skip_all_guards_unsafe, "triton.cudagraphs": _replays(like)}
        compiled: Callable[..., list[Tensor]] = torch.compile(trace, fullgraph=True, dynamic=False, options=options)
        return compiled
    # The compiler alone, with its cache of earlier runs: what torch.compile adds to a call, to find the graph that
    # fits, would be a fifth of the shortest steps.
    options["cpp.threads"] = torch.get_num_threads()
    options["score_fusion_memory_threshold"] = _bytes_worth_sharing(trace)
    return inductor.standalone_compile(
        trace, [*inputs], dynamic_shapes="from_example_inputs", options={"config_patches": options}
    )


def _bytes_worth_sharing(trace: fx.GraphModule) -> int:
    """The least bytes that two loops must have in common to be made one.

    The compiler joins loops that have anything in common, and so would write the transposed layers of a whole step
    together, because all are scaled by the same number per point. Where layers are larger than the caches, each had
    better be written right before it is multiplied. Measured with 5,400 points, 4 streams and width 128: exact weights
    at every step take 0.93 of the time.
    """
    sizes = [value.nbytes for node in trace.graph.nodes if isinstance(value := node.meta.get("val"), Tensor)]
    largest = max(sizes, default=0)
    return largest // 128 if largest > CACHE else inductor.config.score_fusion_memory_threshold
