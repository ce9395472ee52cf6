from __future__ import annotations

import pytest
import torch

from ntkrun.runtime.distributed import join

join()  # where torchrun has started several processes that run the same tests

# The networks here are small; two threads only wait for each other.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)
