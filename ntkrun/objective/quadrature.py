"""Integrals of a loss term under a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from ntkrun.common.user_frames import cause, where
from ntkrun.jets import Index, LinearUse, StreamPlan, UnknownDerivativeError, parse_derivative, plan_streams
from ntkrun.network.base import output_streams
from ntkrun.pde import PDE, Columns, Integral, ProblemError, Term
from ntkrun.pde.normal import NormalDerivative, along_normals


@dataclass(frozen=True)
class Quadrature:
    """One integral of a term.

    Attributes:
        name: under which the residual reads it.
        what: term and integral, for messages.
        integral: the declaration.
        plan: streams of its integrand.
        reads: field and index of every partial derivative that the integrand reads, by name.
        normals: derivatives along the normal that it reads.
    """

    name: str
    what: str
    integral: Integral
    plan: StreamPlan
    reads: Mapping[str, tuple[str, Index]]
    normals: tuple[NormalDerivative, ...] = ()

    @property
    def key(self) -> str:
        """Its place among derivatives by index; no multi-index has a space."""
        return f"integral {self.name}"

    def values(
        self,
        pde: PDE,
        network: nn.Module,
        x: Tensor,
        progress: Tensor,
        parameters: Mapping[str, Tensor] | None = None,
        uses: list[LinearUse] | None = None,
    ) -> Tensor:
        """The integral at every point, ``[N, 1]``.

        Args:
            pde: the problem.
            network: the network.
            x: the points, ``[N, d]``.
            progress: of the training.
            parameters: values used in place of the network's own.
            uses: receives the network's linear maps and gains, each with its number of nodes per point.

        Raises:
            ProblemError: the integrand, or one of its ends, gives no column.
        """
        count = self.integral.count
        try:
            nodes, weights = self.integral.nodes_at(x, pde.coordinates)
        except ProblemError as error:
            raise ProblemError(f"{self.what}: {error}") from error
        own: list[LinearUse] | None = None if uses is None else []
        known = self.plan.read(output_streams(network, nodes, self.plan, parameters, own))
        if uses is not None and own is not None:
            uses += [replace(use, nodes=count) for use in own]
        read = {name: known[index][:, pde.outputs.index(field)] for name, (field, index) in self.reads.items()}
        rows = Columns(dict(zip(pde.coordinates, x.repeat_interleave(count, 0).unbind(1), strict=True)), self.what)
        columns = dict(zip(pde.coordinates, nodes.unbind(1), strict=True))
        columns |= {"progress": progress, **self.integral.columns_at(x)}
        at_nodes = Columns(columns, self.what, row=rows)
        read |= {normal.name: normal.value(at_nodes, read) for normal in self.normals}
        try:
            integrand: object = self.integral.integrand(at_nodes, Columns(read, self.what))
        except ProblemError as error:
            raise ProblemError(f"{error}{where(error)}") from error
        except Exception as error:
            text = f"its integrand fails at {len(nodes)} nodes, whose columns are of that length, with {cause(error)}"
            raise ProblemError(f"{self.what}: {text}") from error
        if not isinstance(integrand, Tensor) or integrand.shape != nodes.shape[:1]:
            kind = f"shape {list(integrand.shape)}" if isinstance(integrand, Tensor) else type(integrand).__name__
            raise ProblemError(f"{self.what}: the integrand is of {kind}, expected a tensor of shape [{len(nodes)}]")
        return (integrand.view(-1, count) * weights).sum(1, keepdim=True)


def quadratures(term: Term, fields: Sequence[str], coordinates: Sequence[str]) -> tuple[Quadrature, ...]:
    """The integrals of a term.

    Args:
        term: the term.
        fields: names of what the network gives.
        coordinates: letters.

    Raises:
        ProblemError: an integrand reads something unknown.
    """
    return tuple(_quadrature(term, name, each, fields, coordinates) for name, each in term.integrals.items())


def _quadrature(
    term: Term, name: str, integral: Integral, fields: Sequence[str], coordinates: Sequence[str]
) -> Quadrature:
    what = f"loss term {term.name!r}, integral {name!r}"
    try:
        normals = along_normals(integral.derivatives, coordinates, integral.columns)
    except ProblemError as error:
        raise ProblemError(f"{what}, {error}") from None
    along = {normal.name for normal in normals}
    partial = [each for each in integral.derivatives if each not in along]
    partial += [each for normal in normals for each, _, _ in normal.parts]
    try:
        reads = {each: parse_derivative(each, fields, coordinates) for each in partial}
    except UnknownDerivativeError as error:
        raise ProblemError(f"{what}, derivative {error}") from None
    plan = plan_streams(sorted({index for _, index in reads.values()}, key=str), coordinates)
    return Quadrature(name, what, integral, plan, reads, normals)
