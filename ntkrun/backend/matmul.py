"""Matrix products of compiled steps on processors."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

THIN = 3  # the most columns or rows of a matrix whose product is written element by element
BREAK_EVEN = 2**20  # multiplications per thread from which on oneDNN makes up for its 10 us per call


def _onednn_product(a: Tensor, b: Tensor) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise.default(a.flatten(1), b.t(), None, "none", [], "")
    return product


def _shape_of_product(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(a.shape[0], b.shape[1])


_library = torch.library.Library("ntkrun", "FRAGMENT")
_library.define("onednn_product(Tensor a, Tensor b) -> Tensor")
_library.impl("onednn_product", _onednn_product, "CPU")
_library.impl("onednn_product", _shape_of_product, "Meta")


def faster_product(a: Tensor, b: Tensor) -> Any:
    """``a @ b`` of two matrices on a processor, where there is a faster way than the library torch calls.

    Returns:
        The product; ``NotImplemented`` where there is none, which leaves the operation as it is.
    """
    product = thin_product(a, b)
    if product is not NotImplemented or not _suit_onednn(a, b):
        return product
    # oneDNN copies a transposed first factor itself, by one thread; the compiler's loops write it that way at once.
    return torch.ops.ntkrun.onednn_product.default(a.contiguous(), b)


def sum_of_outer_products(a: Tensor, b: Tensor) -> Tensor:
    """sum_{s,n} a[s, n] (x) b[s, n] in a trace for the compiler.

    Args:
        a: ``[S, n, p]``, the result of operations that the compiler may put into the loop that transposes it.
        b: ``[S, n, q]``.

    Returns:
        ``[p, q]``.
    """
    rows, columns = a.flatten(0, 1).mT, b.flatten(0, 1)
    if a.device.type != "cpu" or not _suit_onednn(rows, columns):
        return rows @ columns
    # Flattened while it is transposed, a factor that is the same for all s would be looked up by a division per number.
    product: Tensor = torch.ops.ntkrun.onednn_product.default(a.permute(2, 0, 1).contiguous(), columns)
    return product


def _suit_onednn(a: Tensor, b: Tensor) -> bool:
    """Whether oneDNN multiplies two matrices on the processor faster than what torch calls."""
    if a.dtype != torch.float32 or not mkl_is_slow():
        return False
    return a.shape[0] * a.shape[1] * b.shape[1] >= BREAK_EVEN * torch.get_num_threads()


def thin_product(a: Tensor, b: Tensor) -> Any:
    """``a @ b`` of two matrices, element by element where one dimension is that of coordinates or of fields.

    The compiler writes that into the loops around it, where a call of the matrix library costs more than its few
    operations.

    Returns:
        The product; ``NotImplemented`` where all dimensions are larger.
    """
    if a.shape[1] <= THIN:
        terms = [column * row for column, row in zip(a.split(1, dim=1), b.split(1), strict=True)]
        return sum(terms[1:], start=terms[0])
    if b.shape[1] <= THIN:
        columns = [(a * column.mT).sum(1, keepdim=True) for column in b.split(1, dim=1)]
        return torch.cat(columns, dim=1) if len(columns) > 1 else columns[0]
    if a.shape[0] <= THIN:
        return thin_product(b.mT, a.mT).mT
    return NotImplemented


@cache
def mkl_is_slow() -> bool:
    """Whether torch calls MKL on a processor of which it leaves half unused, and has oneDNN as well.

    On processors of AMD, MKL multiplies by instructions for 256 bits; from family 26 (Zen 5) on, those for 512 do
    twice as much. Measured with two cores of such an EPYC in float32: 105 Gflop/s per core by MKL, 230 by oneDNN.
    """
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    family = _amd_family()
    return family is not None and family >= 26 and torch.backends.cpu.get_cpu_capability() == "AVX512"


def _amd_family(information: Path = Path("/proc/cpuinfo")) -> int | None:
    """The family of a processor of AMD's under Linux; ``None`` for any other."""
    if not information.is_file():
        return None
    lines = (line.partition(":") for line in information.read_text().splitlines())
    known = {name.strip(): value.strip() for name, _, value in lines}
    return int(known["cpu family"]) if known.get("vendor_id") == "AuthenticAMD" else None
