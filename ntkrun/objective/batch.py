"""Points of loss terms, gathered into groups that share a forward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ntkrun.jets import Index, StreamPlan, plan_streams
from ntkrun.pde import Term

SMALL = 0.1  # the most that a joined group may add to the work of another


@dataclass(frozen=True)
class Group:
    """Terms that need the same derivatives and share one forward pass.

    Attributes:
        plan: their streams.
        members: indices of the terms.
        slices: the rows of ``x`` that belong to each member.
        x: the points of all members, ``[N, d + k]``: coordinates, and what points of any member carry beyond them.
        shift: translation to the partner points of its terms, ``[d + k]``, 0 where a function says where they are, or
            ``None``.
        scales: factors of every member's rows, ``[N_i, 1]`` or ``[N_i, m_i]``, or ``None``: square roots of
            its point weights.
    """

    plan: StreamPlan
    members: tuple[int, ...]
    slices: tuple[slice, ...]
    x: Tensor
    shift: Tensor | None = None
    scales: tuple[Tensor, ...] | None = None


Batch = tuple[Group, ...]

Derivatives = Mapping[Index, Tensor]
"""Derivatives by index, ``[N, fields]`` each."""

Plans = list[tuple[StreamPlan, tuple[int, ...]]]
"""Stream plans, each with the indices of the terms that share it."""


def rows_of(derivatives: Derivatives, rows: slice) -> Derivatives:
    """Some rows of all derivatives."""
    return {index: d[rows] for index, d in derivatives.items()}


def widened(points: Tensor, width: int) -> Tensor:
    """Points with columns of zeros after their own, ``[..., width]``."""
    missing = width - points.shape[-1]
    return torch.nn.functional.pad(points, (0, missing)) if missing else points


def plan_groups(terms: Sequence[Term], indices: Sequence[frozenset[Index]], coordinates: Sequence[str]) -> Plans:
    """The stream plans needed.

    Args:
        terms: the loss terms.
        indices: the derivatives that each of them reads.
        coordinates: coordinate letters.
    """
    groups: dict[tuple[frozenset[Index], frozenset[tuple[str, Any]], int | None], list[int]] = {}
    for i, (term, needs) in enumerate(zip(terms, indices, strict=True)):
        alone = i if term.integrals else None  # each has nodes of its own
        groups.setdefault((needs, frozenset((term.partner or {}).items()), alone), []).append(i)
    return [
        (plan_streams(sorted(needs, key=str), coordinates), tuple(members)) for (needs, *_), members in groups.items()
    ]


def join_small(plans: Plans, terms: Sequence[Term], counts: Sequence[int]) -> Plans:
    """The plans, those joined to a larger one whose streams serve them and whose work they hardly add to.

    A pass costs as much for two points as for fifty; a few rows that carry unused streams cost nothing.
    Terms with partner points or integrals stay by themselves, for they take several passes.

    Args:
        plans: from ``plan_groups``.
        terms: the loss terms.
        counts: the number of points of each of them.
    """
    ordered = sorted(plans, key=lambda group: -group[0].streams * sum(counts[i] for i in group[1]))
    joined: Plans = []
    for plan, members in ordered:
        rows = sum(counts[i] for i in members)
        for k, (larger, others) in enumerate(joined):
            work = larger.streams * sum(counts[i] for i in others)
            serves = {index for index, _ in plan.recipes} <= {index for index, _ in larger.recipes}
            alone = any(terms[i].partner or terms[i].integrals for i in (members[0], others[0]))
            if serves and not alone and larger.streams * rows <= SMALL * work:
                joined[k] = (larger, (*others, *members))
                break
        else:
            joined.append((plan, members))
    return joined
