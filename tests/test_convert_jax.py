"""Checkpoints between PyTorch and JAX: exact both ways, refused in one line when anything is amiss."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
import tiny
import torch
from flax import nnx
from safetensors import SafetensorError
from test_released import CONFIG, released_tensors, write

from nautile.cli import main
from nautile.errors import NautileError
from nautile.model.architecture import Architecture, preset
from nautile.model.checkpoints import load, save
from nautile.model.config import NautileConfig
from nautile.model.heads import NautileForCausalLM, NautileForTokenClassification
from nautile.pretraining import convert
from nautile.pretraining.convert import convert_to_jax, convert_to_torch, from_torch, torch_name
from nautile.pretraining.folder import is_jax_folder, parameter_shapes
from nautile.pretraining.model import NautileLM

RELEASED = {"vocab_size": 100_300, "tokenizer_layout": "released", "eos_token_id": 100_282}
VARIANTS: dict[str, dict[str, Any]] = {
    "relative": {"rope_base": 5000.0, "norm_eps": 1e-5, "expand": 1.5},
    "released": {**tiny.BOUNDARY, **RELEASED, "final_norm": False, "attention_every": 2},
    "anchors": {**tiny.UNCLIPPED, "anchor_heads": 1, "spectral_points": 1, "conv_kernel": 3},
    "anchors only": {"anchor_heads": 4, "query_heads": 4, "readout_expand": 2},
}
RELEASE = CONFIG | {"vocab_size": 100_300}
ODD_VALUES = torch.tensor([-0.0, 1e-45, -3.4028235e38, 1.1754942e-38, 0.1])
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "JAX_PLATFORMS": "cpu"}


def written(folder: Path, **changes: Any) -> NautileForCausalLM:
    """A tiny language model, saved in `folder` as our PyTorch checkpoint."""
    model = tiny.model(NautileForCausalLM, **{"vocab_size": 300, **changes})
    with torch.no_grad():
        model.model.embed_tokens.weight[0, : len(ODD_VALUES)] = ODD_VALUES
    save(model, folder)
    return model


@pytest.fixture(scope="module")
def torch_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("torch") / "tiny"
    written(folder, **tiny.BOUNDARY)
    return folder


@pytest.fixture(scope="module")
def jax_folder(torch_folder: Path) -> Path:
    folder = torch_folder.parent / "jax"
    convert_to_jax(torch_folder, folder)
    return folder


def same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[name].view(torch.int32), other[name].view(torch.int32)) for name in one
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refusal(capfd: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a conversion ends in."""
    assert main(["convert", *map(str, arguments)]) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize("name", VARIANTS)
def test_there_and_back_on_the_command_line_is_exact(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    first, between, last = (tmp_path / step for step in ("first", "between", "last"))
    model = written(first, **VARIANTS[name])
    capfd.readouterr()
    assert main(["convert", str(first), str(between), "--to", "jax"]) == 0
    assert main(["convert", str(between), str(last)]) == 0
    told = capfd.readouterr()
    assert told.out == ""
    told_again = [f"{folder}: {model.num_parameters():,} parameters, 3 layers" for folder in (between, last)]
    assert told.err.splitlines() == told_again
    back = load(last)
    assert same_bits(back.state_dict(), model.state_dict())
    assert back.state_dict()["model.embed_tokens.weight"].dtype == torch.float32
    assert back.lm_head.weight is back.model.embed_tokens.weight
    assert contents(last) == contents(first)


def test_a_model_in_half_precision_comes_back_with_its_values(tmp_path: Path) -> None:
    half = tiny.model(NautileForCausalLM, vocab_size=300).bfloat16()
    half.save_pretrained(tmp_path / "half")
    convert_to_jax(tmp_path / "half", tmp_path / "jax")
    back = convert_to_torch(tmp_path / "jax", tmp_path / "back")
    assert same_bits(back.state_dict(), half.float().state_dict())


def test_released_weights_convert_to_jax_at_once(tmp_path: Path) -> None:
    source = write(tmp_path / "released.pt", RELEASE, released_tensors(RELEASE))
    assert main(["convert", str(source), str(tmp_path / "direct")]) == 0
    assert main(["convert", str(source), str(tmp_path / "jax"), "--to", "jax"]) == 0
    assert main(["convert", str(tmp_path / "jax"), str(tmp_path / "torch"), "--to", "pytorch"]) == 0
    assert contents(tmp_path / "torch") == contents(tmp_path / "direct")


def test_every_parameter_of_the_full_size_has_its_tensor() -> None:
    architecture = Architecture(**preset("nautile-370m"))
    with torch.device("meta"):
        tensors = NautileForCausalLM(NautileConfig.preset("nautile-370m")).state_dict()
    hollow = {name: torch.zeros(1).expand(tensor.shape) for name, tensor in tensors.items()}
    shapes = parameter_shapes(architecture)
    filled = convert._from_tensors(hollow, shapes)
    assert {torch_name(path) for path, _ in nnx.to_flat_state(shapes)} == tensors.keys() - {"lm_head.weight"}
    assert jax.tree.map(np.shape, filled) == jax.tree.map(lambda leaf: leaf.shape, shapes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["lm_head.weight"].add_(1), r"lm_head\.weight differs from model\.embed_tokens\.weight"),
        (lambda t: t["model.norm.weight"].fill_(torch.nan), r"model\.norm\.weight holds values that are not finite"),
    ],
)
def test_a_tensor_that_jax_has_no_place_for_is_named(
    torch_folder: Path, change: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    model = load(torch_folder)
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    change(tensors)
    jax_model = nnx.eval_shape(lambda: NautileLM(Architecture(**model.config.architecture()), nnx.Rngs(0)))
    with pytest.raises(NautileError, match=message):
        from_torch(jax_model, tensors)


def test_what_cannot_be_converted_is_refused_in_one_line(
    torch_folder: Path, jax_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new"
    tagger = tmp_path / "tagger"
    save(tiny.model(NautileForTokenClassification, vocab_size=300), tagger)
    capfd.readouterr()
    for told, arguments in {
        "PyTorch checkpoint already; give --to jax": (torch_folder, new),
        "already; give --to jax": (torch_folder, new, "--to", "pytorch"),
        "a JAX checkpoint already": (jax_folder, new, "--to", "jax"),
        "exists already; give a new": (jax_folder, torch_folder),
        "exists already; give": (torch_folder, jax_folder / "config.json", "--to", "jax"),
        "a NautileModel; only a language model": ("nautile-mini", new, "--to", "jax"),
        "a NautileForTokenClassification; only": (tagger, new, "--to", "jax"),
        "unknown model": (tmp_path / "none", new, "--to", "jax"),
        "no such file": (tmp_path / "none", new),
        "'tpu'": (torch_folder, new, "--to", "tpu"),
    }.items():
        assert told in refusal(capfd, *arguments)
        assert not new.exists()
    assert is_jax_folder(jax_folder)


@pytest.mark.parametrize("existed", [True, False])
def test_a_failure_leaves_no_partial_output(
    torch_folder: Path, jax_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existed: bool
) -> None:
    output = tmp_path / "out"
    if existed:
        output.mkdir()

    def fail(*given: Any) -> None:
        (given[-1] / "half").mkdir(parents=True)
        raise OSError(28, "No space left on device", "half")

    monkeypatch.setattr(convert, "save_folder", fail)
    monkeypatch.setattr(convert, "save", fail)
    for action, source in ((convert_to_jax, torch_folder), (convert_to_torch, jax_folder)):
        with pytest.raises(OSError, match="No space left"):
            action(source, output)
        assert output.exists() == existed
        assert not existed or not any(output.iterdir())


def test_a_write_that_fails_is_one_line(
    torch_folder: Path,
    jax_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fail_with(error: Exception) -> Callable[..., None]:
        def fail(*_: Any, **__: Any) -> None:
            raise error

        return fail

    output = tmp_path / "out"
    full = ValueError("RESOURCE_EXHAUSTED: No space left on device [source locations='x']")
    with monkeypatch.context() as patch:
        patch.setattr("orbax.checkpoint.StandardCheckpointer.save", fail_with(full))
        told = refusal(capfd, torch_folder, output, "--to", "jax")
    assert told.endswith("out/params: cannot be written (RESOURCE_EXHAUSTED: No space left on device)\n")
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=50_000))
        told = refusal(capfd, torch_folder, output, "--to", "jax")
    assert re.search(r"out: needs 0\.\d MB, 0\.1 MB are free; make room", told)
    with monkeypatch.context() as patch:
        patch.setattr(convert, "save", fail_with(SafetensorError("No space left on device")))
        told = refusal(capfd, jax_folder, output)
    assert "out: cannot be written (No space left" in told
    assert not output.exists()


@pytest.mark.slow
def test_without_jax_only_what_needs_it_says_so(torch_folder: Path, jax_folder: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "released.pt", RELEASE, released_tensors(RELEASE))
    tries = [
        ["convert", str(torch_folder), str(tmp_path / "a"), "--to", "jax"],
        ["convert", str(jax_folder), str(tmp_path / "b")],
        ["convert", str(source), str(tmp_path / "c")],
    ]
    script = "import sys; sys.modules.update(dict.fromkeys(('jax', 'flax', 'orbax')))\n"
    script += f"from nautile.cli import main; print([main(given) for given in {tries!r}])"
    done = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout == "[2, 2, 0]\n"
    *needs, written_line = done.stderr.splitlines()
    assert len(needs) == 2
    assert all(line.endswith('needs JAX: pip install "nautile[pretraining]"') for line in needs)
    assert written_line.startswith(str(tmp_path / "c"))
    assert not (tmp_path / "a").exists()
