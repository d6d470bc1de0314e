"""Several processes that train one model: started by torchrun, as a user starts them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from nautile.engine import processor
from nautile.errors import NautileError
from nautile.tasks.backbone import ranks

STEP = """
import json, sys
from pathlib import Path
import torch
from torch import nn
from nautile.tasks.backbone.ranks import agree, average, join, leave, rank

join("cpu")
torch.manual_seed(rank())  # each begins differently
model = nn.ModuleDict({"table": nn.Embedding(6, 3, sparse=True), "mix": nn.Linear(3, 3), "idle": nn.Linear(3, 3)})
agree(model)
rows = torch.tensor([[0, 1], [1, 4]][rank()])
model["mix"](model["table"](rows)).square().sum().backward()
seconds = average(model, 1.0 + rank())
found = {name: part.grad.to_dense().tolist() for name, part in model.named_parameters() if part.grad is not None}
weights = {name: part.tolist() for name, part in model.named_parameters()}
(Path(sys.argv[1]) / f"{rank()}.json").write_text(json.dumps([seconds, found, weights]))
leave()
"""

RUN = """
import json, sys
from pathlib import Path
import torch
from torch import nn
from nautile.tasks.backbone.ranks import join, leave, rank
from nautile.tasks.backbone.run import Part, Run, adamw
from nautile.tasks.backbone.train import _begin

join("cpu")
folder = Path(sys.argv[1])
_begin(folder, {"seed": 0})
drawn = []

def objective(model, rng):
    drawn.append(rng.random())
    return (model(torch.full((1, 2), drawn[-1])) - 1).square().mean()

for seconds in (0.2, 0.4):  # the second goes on from before the rate fell
    torch.manual_seed(rank())
    model = nn.Linear(2, 2)
    run = Run(model, [adamw(model.named_parameters(), 1e-2)], folder, seconds / 60, 0)
    run.train({"often": Part(objective), "seldom": Part(objective, share=0.3)})
    weights = [part.tolist() for part in model.parameters()]
    (folder / f"{rank()}.{seconds}.json").write_text(json.dumps([run.step, run.spent, weights, len(drawn)]))
(folder / f"drawn.{rank()}.json").write_text(json.dumps(drawn))
leave()
"""


def start(code: str, folder: Path) -> None:
    script = folder / "script.py"
    script.write_text(code)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script, folder]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen([str(part) for part in command], **pipes) as started:
        try:
            said, _ = started.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            started.terminate()  # torchrun ends its processes with it
            raise
    assert started.returncode == 0, said[-2000:]


@pytest.mark.slow
def test_gradients_are_those_of_both_batches_and_all_agree(tmp_path: Path) -> None:
    start(STEP, tmp_path)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    seconds, found, weights = first
    assert seconds == 1.5
    assert found.keys() == {"table.weight", "mix.weight", "mix.bias"}
    table, weight, bias = (torch.tensor(weights[name], requires_grad=True) for name in found)
    both = torch.nn.functional.linear(table[torch.tensor([0, 1, 1, 4])], weight, bias)
    (both.square().sum() / 2).backward()
    for name, alone in zip(found, (table, weight, bias), strict=True):
        torch.testing.assert_close(torch.tensor(found[name]), alone.grad)


@pytest.mark.slow
def test_a_run_of_two_stays_one_run_and_goes_on(tmp_path: Path) -> None:
    start(RUN, tmp_path)
    for seconds in (0.2, 0.4):
        first, second = (json.loads((tmp_path / f"{rank}.{seconds}.json").read_text()) for rank in range(2))
        assert first == second
        assert first[1] >= seconds
    own, other = (json.loads((tmp_path / f"drawn.{rank}.json").read_text()) for rank in range(2))
    assert len(own) == len(other) > 2
    assert not set(own) & set(other)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert (state["step"], state["spent"]) == tuple(first[:2])
    assert state["module"]["weight"].tolist() == first[2][0]


def test_only_processors_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks.dist, "is_torchelastic_launched", lambda: True)
    with pytest.raises(NautileError, match="on CPUs only, not on cuda"):
        ranks.join("cuda")


def test_training_is_prepared_for(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = torch.tensor([1e-39])
    monkeypatch.setattr(processor, "keep_pages", lambda: True)
    processor.prepare_training()
    try:
        assert (tiny * 1).item() == 0
    finally:
        torch.set_flush_denormal(False)
    assert (tiny * 1).item() > 0
