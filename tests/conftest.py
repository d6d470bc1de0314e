"""Seeds, threads and hypothesis for all tests; makes the helpers beside this file importable."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import settings

from nautile.model.kernels.cpu import use_loop

if TYPE_CHECKING:
    from nautile.tasks.classifier import Classifier

sys.path.insert(0, str(Path(__file__).parent))

os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")  # tests compile for longer than they run
os.environ.setdefault("TRITON_INTERPRET", str(int(not torch.cuda.is_available())))  # before Triton is imported
torch.set_num_threads(1)
use_loop(False)  # compiling it takes longer than it spares; test_cpu_loops.py takes it
settings.register_profile("nautile", deadline=None, derandomize=True, max_examples=20)
settings.load_profile("nautile")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny backbone to put heads on."""
    import tiny

    from nautile.model.checkpoints import save
    from nautile.model.model import NautileModel

    folder = tmp_path_factory.mktemp("classifier") / "base"
    save(tiny.model(NautileModel, vocab_size=600, pooling="mean"), folder)
    return str(folder)


@pytest.fixture
def linear(base: str) -> "Classifier":
    """An estimator that is not fitted yet."""
    from nautile.tasks.classifier import Classifier

    return Classifier("linear", base, cv=3, random_state=0)


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small pretraining run that nothing disturbed; what is compiled for it serves others like it."""
    import jax
    import small_run

    from nautile.pretraining.train import begin, train

    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # by all workers
    jax.config.update("jax_compilation_cache_dir", str(shared / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    folder = tmp_path_factory.mktemp("whole")
    begin(small_run.recipe(folder), folder / "run")
    ending = train(folder / "run", visible=False)
    assert ending.step == ending.steps == small_run.STEPS
    return folder / "run"
