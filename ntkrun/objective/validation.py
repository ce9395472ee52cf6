"""Validation of a problem and a network on a few points, before a run starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from ntkrun.common.user_frames import cause, where, written
from ntkrun.jets import Jet
from ntkrun.network.base import JetNetwork
from ntkrun.network.coefficients import CoefficientJets, CoefficientModule
from ntkrun.network.constrained import Constrained, ConstrainedJets
from ntkrun.network.coupling import suspects
from ntkrun.objective.batch import Batch, Derivatives, Group, rows_of
from ntkrun.objective.state import changed_by
from ntkrun.pde import PDE, ProblemError, Term
from ntkrun.pde.check import place

GROWTH = 0.01  # of what residuals are made of, to see how large it is


class Residuals(Protocol):
    """What is tried of the residuals of a problem under a network."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the loss terms."""
        ...

    @property
    def terms(self) -> tuple[Term, ...]:
        """The loss terms."""
        ...

    @property
    def network(self) -> nn.Module:
        """The network."""
        ...

    @property
    def pde(self) -> PDE:
        """The problem."""
        ...

    def derivatives(self, group: Group, x: Tensor) -> Derivatives:
        """What the group's plan reads, at ``x``."""
        ...

    def partners(self, group: Group, x: Tensor) -> Tensor:
        """The partner points of a group that has them."""
        ...

    def residual(self, i: int, x: Tensor, derivatives: Derivatives, partners: Derivatives | None = None) -> Tensor:
        """The residual of term i at points ``[N, d + k]``, ``[N, m]``."""
        ...

    def read(self, i: int, derivatives: Derivatives) -> dict[str, Tensor]:
        """What the residual of term i reads, by name."""
        ...


def probe(residuals: Residuals, batch: Batch) -> tuple[tuple[int, ...], dict[str, tuple[str, ...]], tuple[str, ...]]:
    """Try the network and every term.

    Args:
        residuals: of the problem and the network.
        batch: a few points of every term.

    Returns:
        The residuals per point; what residuals change, by term; and the terms whose residual at a point reads others.

    Raises:
        ProblemError: what is wrong, in one line, and in which term.
    """
    components = [0] * len(residuals.names)
    changing: dict[str, tuple[str, ...]] = {}
    mixing: list[str] = []
    network, pde = residuals.network, residuals.pde
    fields: Callable[..., object] = network
    if isinstance(network, CoefficientJets | CoefficientModule):
        fields = network.fields
        network = network.network
    for group in batch:
        if isinstance(network, Constrained | ConstrainedJets):
            _probe_network(network.network, network.network, group, pde, "the network")
            _probe_network(network, fields, group, pde, "constrain()")
        else:
            _probe_network(network, fields, group, pde, "the network")
        at = [group.x] if group.shift is None else [group.x, residuals.partners(group, group.x)]
        try:
            derivatives = [residuals.derivatives(group, x) for x in at]
        except ProblemError:
            raise
        except Exception as error:
            hint = suspects(network)
            text = f"the network's derivatives fail with {cause(error)}"
            raise ProblemError(f"{text}; {hint}" if hint else text) from error
        # Leaves of a graph of their own, to see whether a residual reads them.
        leaves = [{k: d.detach().requires_grad_() for k, d in each.items()} for each in derivatives]
        for i, rows in zip(group.members, group.slices, strict=True):
            x, own = group.x[rows], [rows_of(each, rows) for each in leaves]
            try:
                components[i], alone = _probe_term(residuals, i, x, own)
            except ProblemError as error:
                place = "" if where(error) else written(residuals.terms[i].residual)
                raise ProblemError(f"{error}{place}") from error
            if not alone:
                mixing.append(residuals.names[i])
            again = partial(residuals.residual, i, x, *own)
            again()  # what it keeps of its last call, it does not change by the same call
            if changed := changed_by(again, residuals.terms[i].residual):
                changing[residuals.names[i]] = changed
    return tuple(components), changing, tuple(mixing)


def _probe_network(network: nn.Module, fields: Callable[..., object], group: Group, pde: PDE, what: str) -> None:
    """Check kind, shape and type of a network's ``fields``, and that they depend on the parameters."""
    x, kind = group.x[:, : len(pde.coordinates)], Jet if isinstance(network, JetNetwork) else Tensor
    try:
        with torch.enable_grad():
            output = fields(x if kind is Tensor else Jet(group.plan.seed(x), group.plan))
    except ProblemError as error:
        raise ProblemError(f"{what}: {error}{where(error)}") from error
    except Exception as error:
        hint = suspects(network)
        text = f"{what} fails on points {list(x.shape)} with {cause(error)}"
        raise ProblemError(f"{text}; {hint}" if hint else text) from error
    if not isinstance(output, kind):
        raise ProblemError(f"{what} gives a {type(output).__name__}, expected a {kind.__name__}")
    values = output.resolve() if isinstance(output, Jet) else output
    points = [group.plan.streams, len(x)] if isinstance(output, Jet) else [len(x)]
    if list(values.shape[:-1]) != points:
        raise ProblemError(
            f"{what} gives shape {list(values.shape)} on points {list(x.shape)}, expected {[*points, len(pde.fields)]}"
        )
    if values.shape[-1] != len(pde.fields):
        raise ProblemError(f"{what} has {values.shape[-1]} outputs; the fields are {', '.join(pde.fields)}")
    if values.dtype != x.dtype:
        raise ProblemError(f"{what} gives {_name(values.dtype)} on points of {_name(x.dtype)}")
    if not values.requires_grad:
        raise ProblemError(f"{what} gives values that do not depend on trainable parameters")
    _check_finite(values if values.dim() == 2 else values.transpose(0, 1), x, pde, what)


def _probe_term(residuals: Residuals, i: int, x: Tensor, derivatives: list[Derivatives]) -> tuple[int, bool]:
    """Residuals per point, and whether those at a point are the same without another one."""
    what = f"loss term {residuals.names[i]!r}"
    try:
        with torch.enable_grad():
            residual = residuals.residual(i, x, *derivatives)
            fewer = residuals.residual(i, x[1:], *(rows_of(each, slice(1, None)) for each in derivatives))
    except ProblemError as error:
        text = str(error).removeprefix(f"{what}: ")
        text = text if text.startswith(what) else f"{what}: {text}"
        raise ProblemError(text + where(error)) from error
    except Exception as error:
        raise ProblemError(
            f"{what}: its residual fails at the {len(x)} points that it is tried on, whose columns are of length "
            f"{len(x)}, with {cause(error)}"
        ) from error
    m = residual.shape[1]
    if fewer.shape[1] != m:
        raise ProblemError(
            f"{what}: {m} residuals per point at {len(x)} points but {fewer.shape[1]} at {len(fewer)}; "
            "columns [N] and [N, 1] do not mix"
        )
    if residual.dtype != x.dtype:
        raise ProblemError(
            f"{what}: the residual is of {_name(residual.dtype)}, the run of {_name(x.dtype)}; "
            "convert its constants with .to(...)"
        )
    if not residual.requires_grad:
        raise ProblemError(f"{what}: the residual does not depend on the network")
    for k in range(len(x)):
        if not torch.isfinite(residual[k]).all():
            read = [residuals.read(i, rows_of(each, slice(k, k + 1))) for each in derivatives]
            at = place(residuals.pde, x[k])
            raise ProblemError(f"{what}: the residual is not finite at {at}, where {values(*read)}")
    with torch.no_grad():
        grown = residuals.residual(
            i, x, *({index: (1 + GROWTH) * d for index, d in each.items()} for each in derivatives)
        )
    size = size_of_terms(residual.detach(), grown).max()
    return m, not bool((residual[1:] - fewer).abs().max() > torch.finfo(residual.dtype).eps ** 0.5 * size)


def size_of_terms(residual: Tensor, grown: Tensor) -> Tensor:
    """The size of what a residual is the sum of, which rounding is in proportion to, entry by entry.

    The residual of a trained network may be much smaller than the terms that cancel in it.

    Args:
        residual: as it is.
        grown: the same where what it is made of is larger by the part ``GROWTH``; of no use where it is not finite.
    """
    return residual.abs() + ((grown - residual).abs() / GROWTH).nan_to_num(0.0, 0.0, 0.0)


def values(read: Mapping[str, Tensor], partner: Mapping[str, Tensor] | None = None) -> str:
    """What a residual reads at a point, by name, in words."""
    own = [f"{name}={value.item():.6g}" for name, value in read.items()]
    others = [f"partner.{name}={value.item():.6g}" for name, value in (partner or {}).items()]
    return ", ".join([*own, *others])


def _check_finite(values: Tensor, x: Tensor, pde: PDE, what: str) -> None:
    for point, row in zip(x, values, strict=True):
        if not torch.isfinite(row).all():
            raise ProblemError(f"{what} is not finite at {place(pde, point)}")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
