"""Matrix products of compiled steps against those of float64."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._inductor.utils import run_and_get_code

from ntkrun.backend import matmul as products
from ntkrun.backend.matmul import faster_product, sum_of_outer_products, thin_product
from ntkrun.steps.graph import Graph

onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch comes without oneDNN")


@pytest.mark.parametrize(
    "shape", [(5, 1, 4), (5, 4, 1), (1, 5, 4), (1, 5, 1), (5, 3, 4), (5, 4, 3), (3, 5, 4), (2, 5, 3)]
)
def test_thin_products(shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(m, k, dtype=torch.float64, generator=generator)
    b = torch.randn(n, k, dtype=torch.float64, generator=generator).mT
    torch.testing.assert_close(thin_product(a, b), a @ b, rtol=1e-14, atol=1e-14)


def test_other_products_are_left_alone() -> None:
    assert thin_product(torch.ones(4, 4), torch.ones(4, 4)) is NotImplemented


@pytest.fixture
def slow_mkl(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor on which oneDNN takes over, at any size."""
    monkeypatch.setattr(products, "mkl_is_slow", lambda: True)
    monkeypatch.setattr(products, "BREAK_EVEN", 0)


def _factors(transposed: tuple[bool, bool]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)

    def draw(rows: int, columns: int, transposed: bool) -> Tensor:
        return (
            torch.randn(columns, rows, generator=generator).mT
            if transposed
            else torch.randn(rows, columns, generator=generator)
        )

    return draw(7, 40, transposed[0]), draw(40, 9, transposed[1])


@onednn
@pytest.mark.usefixtures("slow_mkl")
@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True), (True, True)])
def test_onednn_multiplies_in_single_precision(transposed: tuple[bool, bool]) -> None:
    """In no less, as its modes for half of the digits would."""
    a, b = _factors(transposed)
    expected = a.double() @ b.double()
    product = faster_product(a, b)
    assert product.dtype == torch.float32
    assert product.is_contiguous()
    error = (product - expected).norm() / expected.norm()
    assert error < 1e-6  # rounding of 40 products; with 8 bits it would be 1e-3


@onednn
@pytest.mark.usefixtures("slow_mkl")
def test_a_graph_calls_onednn() -> None:
    def step(a: Tensor, b: Tensor) -> list[Tensor]:
        return [(a @ b).sin(), a.mT @ a]

    def trial(k: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(k)
        return [torch.randn(shape, generator=generator) for shape in ((8, 6), (6, 5))]

    inputs = trial(2)
    graph = Graph(step, trial, nn.Identity(), inputs[0], {})
    with torch.profiler.profile() as profiler:
        outputs = graph(inputs)
    seen = [event.key for event in profiler.key_averages() if "onednn_product" in event.key and "::" in event.key]
    torch.testing.assert_close(outputs, step(*inputs), rtol=1e-5, atol=1e-6)
    assert seen == ["ntkrun::onednn_product"]


@pytest.mark.usefixtures("slow_mkl")
def test_double_precision_is_left_alone() -> None:
    a, b = _factors((False, False))
    assert faster_product(a.double(), b.double()) is NotImplemented


def test_small_products_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "mkl_is_slow", lambda: True)
    assert faster_product(*_factors((False, False))) is NotImplemented


@pytest.mark.parametrize(
    ("lines", "family"),
    [
        ("vendor_id\t: AuthenticAMD\ncpu family\t: 26\n\nvendor_id\t: AuthenticAMD\ncpu family\t: 26\n", 26),
        ("vendor_id\t: GenuineIntel\ncpu family\t: 6\n", None),
        ("Features\t: fp asimd\n", None),
    ],
)
def test_family_of_the_processor(lines: str, family: int | None, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(lines)
    assert products._amd_family(tmp_path / "cpuinfo") == family
    assert products._amd_family(tmp_path / "absent") is None


@onednn
@pytest.mark.usefixtures("slow_mkl")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sum_of_outer_products(dtype: torch.dtype) -> None:
    """By oneDNN in single precision, by a product of matrices in double precision."""
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(3, 10, 6, dtype=dtype, generator=generator)
    b = torch.randn(3, 10, 5, dtype=dtype, generator=generator)
    expected = torch.einsum("snp,snq->pq", a.double(), b.double())
    torch.testing.assert_close(sum_of_outer_products(a, b).double(), expected, rtol=1e-5, atol=1e-6)


@onednn
@pytest.mark.usefixtures("slow_mkl")
def test_scaled_rows_are_transposed_without_divisions() -> None:
    """As sums of outer products are made for; in one loop over streams and points, point k is k modulo their number."""

    def source(product: Callable[[Tensor, Tensor], Tensor]) -> str:
        def step(a: Tensor, c: Tensor, b: Tensor) -> list[Tensor]:
            return [product(a * c[:, None], b)]

        def trial(k: int) -> list[Tensor]:
            generator = torch.Generator().manual_seed(k)
            return [torch.randn(shape, generator=generator) for shape in ((4, 40, 32), (40,), (4, 40, 16))]

        with torch._inductor.utils.fresh_cache():
            _, sources = run_and_get_code(lambda: Graph(step, trial, nn.Identity(), torch.zeros(()), {}))
        return "".join(sources)

    assert "%" in source(lambda a, b: a.flatten(0, 1).mT @ b.flatten(0, 1))
    ours = source(sum_of_outer_products)
    assert "transpose" in ours
    assert "%" not in ours
