"""The compiled parts of SCA against the plain ones, forward and gradient; in a process of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
sys.path.insert(0, {folder!r})
import tiny, torch
from nautile.model.compiled import compile_sca
from nautile.model.model import NautileModel
from nautile.model.spectral import CPU_CHUNK
from nautile.model.state import NautileState

def results():
    found = []
    for length in (7, 16):
        model = tiny.model(NautileModel).train()
        ids, mask = tiny.tokens(3, length), torch.ones(3, length, dtype=torch.long)
        mask[1, max(1, length - 3):] = 0
        for after_a_prefix in (False, True):
            state = NautileState(model.config)
            if after_a_prefix:
                model(tiny.tokens(1, 5), cache=state)
            past = state.branch(3) if after_a_prefix else None
            hidden = model(ids, mask, cache=past).last_hidden_state
            (hidden.square() * mask[..., None]).sum().backward()
            found += [hidden * mask[..., None], *(p.grad.clone() for p in model.parameters() if p.grad is not None)]
    with torch.inference_mode():
        ids, mask = tiny.tokens(2, 3 * CPU_CHUNK + 5), torch.ones(2, 3 * CPU_CHUNK + 5, dtype=torch.long)
        mask[1, CPU_CHUNK + 1:] = 0
        found.append(model(ids, mask).last_hidden_state * mask[..., None])
    return found

plain = results()
compile_sca()
for one, other in zip(plain, results(), strict=True):
    largest = one.abs().max().clamp(min=1)  # gradients are sums over all tokens: measured against their own size
    tiny.close(other / largest, one / largest)
compile_sca(False)
assert all(map(torch.equal, plain, results()))
print("equal")
"""


@pytest.mark.slow
def test_compiled_sca_equals_the_plain_one() -> None:
    code = CODE.format(folder=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "equal", done.stderr[-2000:]
