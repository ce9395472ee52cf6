"""Argument types that state their range; configuration values are checked against them."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import Field

T = TypeVar("T", int, float)

Positive = Annotated[T, Field(gt=0)]
NonNegative = Annotated[T, Field(ge=0)]
Few = Annotated[int, Field(gt=0, le=1000)]  # of what is built or carried out one by one
Fraction = Annotated[float, Field(ge=0, lt=1)]
