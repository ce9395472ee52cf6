"""The tracing flag: whether operations are traced to be compiled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_TRACING: ContextVar[bool] = ContextVar("tracing", default=False)


def tracing() -> bool:
    """Whether what is done now is traced for all steps.

    The compiler makes one loop of products and their sums, which otherwise take memory for all products, but cannot do
    so with batched products of tiny matrices. What a network draws for a step must be read from buffers then.
    """
    return _TRACING.get()


@contextmanager
def traced() -> Iterator[None]:
    """Set the flag while inside."""
    before = _TRACING.set(True)
    try:
        yield
    finally:
        _TRACING.reset(before)
