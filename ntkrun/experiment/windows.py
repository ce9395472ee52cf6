"""Time windows that a run chooses as it goes, and what a checkpoint tells of them."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping
from typing import Any

from ntkrun.common.state_schema import ListOf, Real, StateError, read_state
from ntkrun.config.assembly import Parts
from ntkrun.geometry import TIME
from ntkrun.storage.checkpoint import NAME, CheckpointError
from ntkrun.training.trainer import Trainer

log = logging.getLogger(__name__)

UNSOLVED = 1e-5  # of the first loss; under Gauss-Newton solved problems leave less than 1e-6
ENOUGH = 50  # steps, after which that can be told
ACCURATE = 1e-10  # the same as UNSOLVED for one of several windows that the run chooses, whose errors add up
EASILY = 1e-14  # so little is left where a window could have been longer
SHORTEST = 1e-7  # of all of time, that a window may be
ATTEMPTS = 20  # times the iterations, after which no shorter windows are tried
MOST_WINDOWS = 1000
PART = 5  # the iterations of a time window that the run has chosen are a fifth of those of all of time


def next_ends(parts: Parts, trainer: Trainer) -> list[float] | None:
    """The ends of the time windows so far and of the next attempt; nothing where there is none.

    A window that is not solved gives way to one of half its length. Where it is, the next one is as long, or twice as
    long if it was solved with digits to spare. Lengths of several windows in a row so follow the solution, as steps of
    integrators do.
    """
    progress, domain, ends = trainer.progress, parts.pde.domain, list(parts.ends)
    low, high = domain.low[TIME], domain.high[TIME]
    start, end = ends[-2] if len(ends) > 1 else low, ends[-1]
    left = trainer.optimizer.left()
    if left is None or trainer.late or (progress.step < ENOUGH and progress.step == trainer.loop.iterations):
        return None
    what = f"time window {len(ends)}, {TIME} from {start:.4g} to {end:.4g}"
    solved = left < (ACCURATE if parts.edges else UNSOLVED) or trainer.reached
    if solved and end >= high:
        return None
    spent = progress.total_steps >= ATTEMPTS * parts.settings.iterations or len(ends) == MOST_WINDOWS
    if spent or (not solved and (end - start) / 2 < SHORTEST * (high - low)):
        log.warning(
            "%s: the loss is %.1g of the first, after %d steps in all; nothing beyond is trained. Try more points, a "
            "wider network or more iterations",
            *(what, left, progress.total_steps),
        )
        return None
    if solved:
        length = (end - start) * (2 if left < EASILY else 1)
        following = end + length if high - end - length > length / 4 else high
        log.info("%s, is solved; the next one ends at %.4g", what, following)
        return [*ends, following]
    log.info("%s: the loss is still %.1g of the first; half of it is tried", what, left)
    return [*ends[:-1], start + (end - start) / 2]


def attempted(iterations: int) -> int:
    """Steps of a time window that the run has chosen, of a run of so many on all of time."""
    return min(iterations, max(ENOUGH, iterations // PART))


def states_before(windows: int, state: Mapping[str, Any]) -> list[Any]:
    """The states of the networks of earlier time windows in a checkpoint, one for each.

    Args:
        windows: number of the run's time windows, where they are equal.
        state: of the checkpoint.

    Raises:
        CheckpointError: there are more or fewer of them.
    """
    earlier, progress = state.get("earlier", []), state.get("progress", {})
    window = progress.get("window", 0) if isinstance(progress, dict) else None
    known = len(ends_of(state)) or windows
    if not isinstance(earlier, list) or len(earlier) != window or not window < known:
        raise misfit(StateError(f"earlier: the networks of the windows before one of {windows} are expected"))
    return earlier


def ends_of(state: Mapping[str, Any]) -> list[float]:
    """The ends of the time windows in a checkpoint that the run has chosen, in their order; else nothing.

    Raises:
        CheckpointError: they are no such ends.
    """
    progress = state.get("progress", {})
    ends = progress.get("ends", []) if isinstance(progress, dict) else []
    try:
        read: list[float] = read_state(ListOf(Real(), MOST_WINDOWS), ends, "ends")
    except StateError as error:
        raise misfit(error) from None
    if not all(a < b for a, b in itertools.pairwise(read)):
        raise misfit(StateError("ends: the ends of time windows are expected in their order"))
    return read


def misfit(error: Exception) -> CheckpointError:
    """What to raise where a state does not fit the parts of a run."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return CheckpointError(f"{NAME} does not fit this run: {reason}")
