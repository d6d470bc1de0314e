"""Seeds, threads and hypothesis for all tests; makes the helpers beside this file importable."""

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

torch.set_num_threads(1)
settings.register_profile("nautile", deadline=None, derandomize=True, max_examples=20)
settings.load_profile("nautile")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
