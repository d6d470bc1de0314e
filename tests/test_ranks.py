"""Several processes that train one model: started by torchrun, as a user starts them."""

import json
import subprocess
import sys
from pathlib import Path

import torch

CODE = """
import json, sys
from pathlib import Path
import torch
from torch import nn
from nautile.tasks.backbone.ranks import agree, average, join, rank

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
"""


def test_gradients_are_those_of_both_batches_and_all_agree(tmp_path: Path) -> None:
    script = tmp_path / "step.py"
    script.write_text(CODE)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script, tmp_path]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
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
