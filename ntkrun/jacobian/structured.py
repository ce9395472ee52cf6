"""Rows of the Jacobian from layer inputs and output gradients, with no N x P matrix.

Every parameter sits in a linear map or a gain applied to streams, and row k depends on point k alone. With the
input streams a[s, k] of a map and the gradients g[s, k] of the summed residual at its output,

    dr_k/dW = sum_s g[s, k] (x) a[s, k],      dr_k/db = g[0, k];

with those of an elementwise gain, dr_k/dp = sum_s g[s, k] * a[s, k], summed over the width for a single factor. A row
made from several points, the nodes of an integral, has the streams at all of them, and the sums run over these.
One backward pass gives every g; products over the few streams give kernels and traces. The weight of a map with few
inputs or outputs has rows that are hardly longer than g and a together, and these are formed.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ntkrun.backend.matmul import sum_of_outer_products
from ntkrun.backend.tracing import tracing
from ntkrun.jacobian.operators import Jacobian, ParameterLayout
from ntkrun.jets import GainUse, LinearUse, MatrixUse

MANY = 24  # streams that are not summed one by one, as those at the nodes of an integral
THIN = 3  # inputs or outputs of a map whose rows are formed, whatever the streams: rows of all terms meet in kernels


@dataclass(frozen=True)
class OuterRows:
    """Gradients of n rows with respect to a weight, as sums of outer products over streams.

    Attributes:
        inputs: input streams times the map's scale, ``[S, n, in]``.
        gradients: output gradients, ``[S, n, out]``.
        bias: name of a bias whose gradients are ``gradients[0]``, as for a layer that is used once.
    """

    inputs: Tensor
    gradients: Tensor
    bias: str | None = None

    def at(self, rows: Tensor) -> OuterRows:
        """Those of some rows by their indices."""
        return OuterRows(self.inputs.index_select(1, rows), self.gradients.index_select(1, rows), self.bias)


@dataclass(frozen=True)
class RowBlock:
    """n rows of the Jacobian, one per point, in factored form.

    Attributes:
        rows: n.
        outer: factored gradients by weight name.
        plain: gradients by the name of any other parameter (a gain, a bias of another kind, the weight of a map with
            few inputs or outputs), ``[n, *shape]``.
    """

    rows: int
    outer: Mapping[str, OuterRows]
    plain: Mapping[str, Tensor]

    def __getitem__(self, rows: slice | Tensor) -> RowBlock:
        """The block of some rows: a slice, or their indices."""
        if isinstance(rows, Tensor):
            outer = {name: f.at(rows) for name, f in self.outer.items()}
            plain = {name: gradients.index_select(0, rows) for name, gradients in self.plain.items()}
            return RowBlock(len(rows), outer, plain)
        outer = {name: OuterRows(f.inputs[:, rows], f.gradients[:, rows], f.bias) for name, f in self.outer.items()}
        plain = {name: gradients[rows] for name, gradients in self.plain.items()}
        return RowBlock(len(range(self.rows)[rows]), outer, plain)

    def parts(self) -> tuple[RowBlock, RowBlock]:
        """The same rows with respect to two sets of parameters, whose diagonals add up.

        The first has those whose gradients are formed and the middle one of the factored weights, the second the rest.
        """
        middle = [*self.outer][len(self.outer) // 2 :][:1]
        first = {name: self.outer[name] for name in middle}
        others = {name: f for name, f in self.outer.items() if name not in first}
        return RowBlock(self.rows, first, self.plain), RowBlock(self.rows, others, {})

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        factors = sum(f.inputs.nbytes + f.gradients.nbytes for f in self.outer.values())
        return factors + sum(gradients.nbytes for gradients in self.plain.values())

    def double(self) -> RowBlock:
        """The block in float64."""
        outer = {name: OuterRows(f.inputs.double(), f.gradients.double(), f.bias) for name, f in self.outer.items()}
        return RowBlock(self.rows, outer, {name: gradients.double() for name, gradients in self.plain.items()})

    def diagonal(self, like: Tensor) -> Tensor:
        """Squared row norms, ``[n]``, of the dtype and device of ``like``."""
        parts = [_squared_norms(f) for f in self.outer.values()]
        parts += [_squared_sums(gradients) for gradients in self.plain.values()]
        return torch.stack(parts).sum(0) if parts else like.new_zeros(self.rows)

    def pullback(self, cotangent: Tensor) -> dict[str, Tensor]:
        """J^T c for a cotangent ``[n]``, by parameter name; parameters not involved are absent."""
        c = cotangent[:, None]
        out = {}
        for name, f in self.outer.items():
            # Scale the narrower factor by the cotangent.
            if f.inputs.shape[-1] < f.gradients.shape[-1]:
                out[name] = f.gradients.flatten(0, 1).T @ (f.inputs * c).flatten(0, 1)
            elif tracing():
                out[name] = sum_of_outer_products(f.gradients * c, f.inputs)
            else:
                out[name] = (f.gradients * c).flatten(0, 1).T @ f.inputs.flatten(0, 1)
        for name, gradients in self.plain_rows():
            out[name] = _weighted_sum(cotangent, gradients)
        return out

    def plain_rows(self) -> Iterator[tuple[str, Tensor]]:
        """The name of every parameter whose gradients are at hand, and these, ``[n, *shape]``."""
        yield from ((f.bias, f.gradients[0]) for f in self.outer.values() if f.bias is not None)
        yield from self.plain.items()

    def pushforward(self, vectors: Tensor, layout: ParameterLayout) -> Tensor:
        """J v for ``vectors`` ``[m, P]``; returns ``[m, n]``."""
        out = vectors.new_zeros(len(vectors), self.rows)
        for name, f in self.outer.items():
            images = f.inputs.flatten(0, 1) @ layout.part(vectors, name).mT
            out = out + (images.unflatten(1, f.inputs.shape[:2]) * f.gradients).sum((1, 3))
        for name, gradients in self.plain_rows():
            out = out + vectors[:, layout.slices[name]] @ gradients.flatten(1).T
        return out

    def dense(self, layout: ParameterLayout, like: Tensor) -> Tensor:
        """The rows themselves, ``[n, P]``."""
        parts = {name: like.new_zeros(self.rows, *shape) for name, shape in layout.shapes.items()}
        parts.update({name: _rows(f.inputs, f.gradients) for name, f in self.outer.items()})
        parts.update(self.plain_rows())
        return layout.flatten(parts)

    def gram(self, other: RowBlock, like: Tensor, memory: int) -> Tensor:
        """The kernel block between these rows and those of ``other``, ``[n, n']``.

        Args:
            other: the other rows.
            like: of the dtype and device to compute in.
            memory: bytes that intermediate products may take; the block itself comes on top.
        """
        pairs = [len(self.outer[k].inputs) * len(other.outer[k].inputs) for k in self.outer.keys() & other.outer.keys()]
        per_row = 3 * max(pairs, default=1) * max(other.rows, 1) * like.element_size()
        chunk = max(1, memory // per_row)
        if chunk >= self.rows:
            return self._gram(other, like)
        starts = range(0, self.rows, chunk)
        return torch.cat([self[start : start + chunk]._gram(other, like) for start in starts])

    def _gram(self, other: RowBlock, like: Tensor) -> Tensor:
        out = like.new_zeros(self.rows, other.rows)
        for name in self.outer.keys() & other.outer.keys():
            f, o = self.outer[name], other.outer[name]
            gradients = f.gradients.flatten(0, 1) @ o.gradients.flatten(0, 1).T
            inputs = f.inputs.flatten(0, 1) @ o.inputs.flatten(0, 1).T
            products = (gradients * inputs).view(len(f.inputs), self.rows, len(o.inputs), other.rows)
            out = out + products.sum((0, 2))
        others = dict(other.plain_rows())
        for name, gradients in self.plain_rows():
            if name in others:
                out = out + gradients.flatten(1) @ others[name].flatten(1).T
        return out


def _squared_norms(f: OuterRows) -> Tensor:
    """sum_{s,s'} (g_s . g_s') (a_s . a_s') per point, ``[n]``, and |g_0|^2 for a bias."""
    if len(f.gradients) == 1:
        gradients = torch.linalg.vecdot(f.gradients[0], f.gradients[0])
        inputs = torch.linalg.vecdot(f.inputs[0], f.inputs[0])
        return gradients * inputs if f.bias is None else torch.addcmul(gradients, gradients, inputs)
    streams, _, out = f.gradients.shape
    if streams > MANY and streams**2 > out * f.inputs.shape[-1]:
        weight = _squared_sums(_rows(f.inputs, f.gradients))
        return weight if f.bias is None else weight + (f.gradients[0] * f.gradients[0]).sum(-1)
    if tracing() and streams <= MANY:
        weight = torch.zeros_like(f.gradients[0, :, 0])
        for s, t in itertools.combinations_with_replacement(range(len(f.gradients)), 2):
            product = (f.gradients[s] * f.gradients[t]).sum(-1) * (f.inputs[s] * f.inputs[t]).sum(-1)
            weight = weight + (product if s == t else 2 * product)
        return weight if f.bias is None else weight + (f.gradients[0] * f.gradients[0]).sum(-1)
    g = f.gradients.transpose(0, 1)
    a = f.inputs.transpose(0, 1)
    products = g @ g.mT
    weight = (products * (a @ a.mT)).sum((1, 2))
    return weight if f.bias is None else weight + products[:, 0, 0]


def row_blocks(uses: Sequence[LinearUse], residual: Tensor, names: Mapping[int, str]) -> list[RowBlock]:
    """Factored Jacobian rows from the linear maps and gains of one forward pass.

    Args:
        uses: these, recorded while ``residual`` was computed.
        residual: ``[n, m]``, m residuals per point.
        names: trainable parameters' names by ``id`` of their tensors.

    Returns:
        One block of n rows per residual component.
    """
    recorded = [use for use in uses if use.outputs.requires_grad]
    blocks = []
    for component in range(residual.shape[1]):
        total = residual[:, component].sum()
        if not recorded or not total.requires_grad:
            blocks.append(RowBlock(len(residual), {}, {}))
            continue
        gradients = torch.autograd.grad(
            total,
            [use.outputs for use in recorded],
            retain_graph=component < residual.shape[1] - 1,
            allow_unused=True,
        )
        blocks.append(_assemble(recorded, gradients, names, len(residual)))
    return blocks


def _assemble(
    uses: Sequence[LinearUse], gradients: Sequence[Tensor | None], names: Mapping[int, str], rows: int
) -> RowBlock:
    outer: dict[str, OuterRows] = {}
    plain: dict[str, Tensor] = {}
    times = Counter(id(tensor) for use in uses for tensor in use.parameters)
    for use, g in zip(uses, gradients, strict=True):
        if g is None:
            continue
        if isinstance(use, MatrixUse):
            _add_matrix(use, g, names, times, outer, plain)
        elif isinstance(use, GainUse) and id(use.gain) in names:
            own = joined(g * use.inputs.detach(), use.nodes).sum(0)
            _add(plain, names[id(use.gain)], own if len(use.gain) > 1 else own.sum(1, keepdim=True))
    return RowBlock(rows, outer, plain)


def _add_matrix(
    use: MatrixUse,
    g: Tensor,
    names: Mapping[int, str],
    times: Mapping[int, int],
    outer: dict[str, OuterRows],
    plain: dict[str, Tensor],
) -> None:
    """Add one use of a linear map, with the gradients ``g`` at its output, to the rows."""
    weight = names.get(id(use.weight))
    bias = None if use.bias is None else names.get(id(use.bias))
    once = all(times[id(tensor)] == 1 for tensor in use.parameters) and use.bias_scale == 1 and use.nodes == 1
    thin = min(use.weight.shape) <= THIN
    g = joined(g, use.nodes)
    if bias is not None and (weight is None or thin or not once):
        _add(plain, bias, use.bias_scale * (g[0] if use.nodes == 1 else g[: use.nodes].sum(0)))
    if weight is not None:
        a = joined(use.inputs.detach(), use.nodes)
        a = a if use.scale == 1 else use.scale * a
        if thin:
            _add(plain, weight, _rows(a, g))
            return
        if weight in outer:  # a shared layer: its uses add, so they join along the stream axis
            a, g = torch.cat([outer[weight].inputs, a]), torch.cat([outer[weight].gradients, g])
        outer[weight] = OuterRows(a, g, bias if once else None)


def _squared_sums(gradients: Tensor) -> Tensor:
    """Squared norms ``[n]`` of ``[n, *shape]``."""
    wide = gradients.mT if _is_tall(gradients) else gradients
    columns = tuple(range(1, wide.ndim))
    if tracing():
        return wide.square().sum(columns)
    norms: Tensor = torch.linalg.vector_norm(wide, dim=columns)  # reads the numbers once and writes none
    return norms.square()


def _weighted_sum(weights: Tensor, gradients: Tensor) -> Tensor:
    """sum_n weights[n] gradients[n], of ``[n, *shape]``."""
    if _is_tall(gradients):
        return _weighted_sum(weights, gradients.mT).mT.contiguous()  # fused optimisers take no notice of strides
    if not tracing():
        return (weights @ gradients.flatten(1)).view(gradients.shape[1:])
    return (gradients * weights.view(-1, *(1,) * (gradients.ndim - 1))).sum(0)


def _is_tall(gradients: Tensor) -> bool:
    """Whether a compiled loop had better run along the last dimension but one."""
    return gradients.ndim > 2 and gradients.shape[-1] < gradients.shape[-2]


def _rows(a: Tensor, g: Tensor) -> Tensor:
    """sum_s g_s (x) a_s, ``[n, out, in]``, of input streams and output gradients."""
    if len(a) <= MANY and (tracing() or min(a.shape[-1], g.shape[-1]) <= THIN):
        if a.shape[-1] < g.shape[-1]:  # loops run along the longer side
            return _rows(g, a).mT
        pairs = [(x[:, :, None], y[:, None, :]) for x, y in zip(g.unbind(0), a.unbind(0), strict=True)]
        rows = pairs[0][0] * pairs[0][1]
        for x, y in pairs[1:]:  # one stream after the other: all products at once would not fit into a cache
            rows = rows + x * y if tracing() else rows.addcmul_(x, y)
        return rows
    return torch.einsum("sno,sni->noi", g, a)


def joined(streams: Tensor, nodes: int) -> Tensor:
    """Streams at the nodes of n rows, ``[S, n * nodes, width]``, as streams of the rows, ``[S * nodes, n, width]``."""
    if nodes == 1:
        return streams
    apart: Tensor = streams.unflatten(1, (-1, nodes))
    return apart.movedim(2, 1).flatten(0, 1)


def _add(plain: dict[str, Tensor], name: str, gradients: Tensor) -> None:
    plain[name] = plain[name] + gradients if name in plain else gradients


class StructuredJacobian(Jacobian):
    """Row blocks stacked in order.

    Args:
        blocks: the rows, from top to bottom.
        layout: the order of the parameters.
        like: a tensor of the dtype and device to compute in.
        memory: bytes that intermediate products of a kernel block may take.
    """

    def __init__(self, blocks: Sequence[RowBlock], layout: ParameterLayout, like: Tensor, memory: int) -> None:
        self.blocks = tuple(blocks)
        self.layout = layout
        self.like = like
        self.memory = memory
        self.rows = sum(block.rows for block in self.blocks)

    def diagonal(self) -> Tensor:
        return torch.cat([block.diagonal(self.like) for block in self.blocks])

    def matvec(self, vectors: Tensor) -> Tensor:
        return torch.cat([block.pushforward(vectors, self.layout) for block in self.blocks], dim=1)

    def rmatvec(self, vectors: Tensor) -> Tensor:
        out = vectors.new_zeros(len(vectors), self.layout.size)
        pieces = vectors.split([block.rows for block in self.blocks], dim=1)
        for block, piece in zip(self.blocks, pieces, strict=True):
            for row, cotangent in zip(out, piece, strict=True):
                for name, value in block.pullback(cotangent).items():
                    row[self.layout.slices[name]] += value.flatten()
        return out

    def gram(self, other: Jacobian | None = None) -> Tensor:
        others = self if other is None else other
        if not isinstance(others, StructuredJacobian):
            raise TypeError(f"no kernel between a structured Jacobian and a {type(others).__name__}")
        return torch.cat(
            [torch.cat([a.gram(b, self.like, self.memory) for b in others.blocks], dim=1) for a in self.blocks]
        )

    def dense(self) -> Tensor:
        return torch.cat([block.dense(self.layout, self.like) for block in self.blocks])

    @property
    def nbytes(self) -> int:
        return sum(block.nbytes for block in self.blocks)

    def double(self) -> Jacobian:
        if self.like.dtype == torch.float64:
            return self
        return StructuredJacobian([b.double() for b in self.blocks], self.layout, self.like.double(), self.memory)
