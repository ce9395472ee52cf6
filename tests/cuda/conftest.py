"""Tests that are the same on every device: on the host they show that they are right, on a card that it is.

``pytest -m cuda`` runs those of a card alone.
"""

from __future__ import annotations

import pytest
import torch

HOST, CARD = pytest.param("cpu", marks=pytest.mark.long), pytest.param("cuda", marks=pytest.mark.cuda)


@pytest.fixture(params=[HOST, CARD])
def device(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    return name
