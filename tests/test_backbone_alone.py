"""The backbone without transformers: it says what transformers' model says, and leaves odd folders to it."""

import json
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from tiny import pad, tokens

from nautile.engine.reader import Reader
from nautile.errors import NautileError
from nautile.model.backbone import Backbone, read_backbone
from nautile.model.checkpoints import load, save
from nautile.model.heads import NautileForSequenceClassification
from nautile.model.model import NautileModel
from nautile.tasks.heads.loading import base_reader

TEXTS = ["a red fox by the old gate", "", "rain " * 90]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tiny.model(NautileModel, vocab_size=300, pairs=9), tmp_path)
    return tmp_path


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_says_what_the_model_of_transformers_says(folder: Path, dtype: torch.dtype) -> None:
    alone, model = read_backbone(folder, dtype), load(folder, dtype)
    assert type(alone) is Backbone
    assert (alone.dtype, alone.device, alone.training) == (model.dtype, model.device, model.training)
    assert alone.config.architecture() == model.config.architecture()
    ids_BL, mask_BL = pad([tokens(9), tokens(4, seed=2)], "left")
    with torch.no_grad():
        one, two = (each(ids_BL, mask_BL, use_cache=True, output_hidden_states=True) for each in (alone, model))
        assert all(torch.equal(*both) for both in zip(one.hidden_states, two.hidden_states, strict=True))
        after = [each(tokens(2, 3), cache=found.cache)[0] for each, found in ((alone, one), (model, two))]
        assert torch.equal(*after)
    assert torch.equal(Reader(alone)(TEXTS).vectors_ND, Reader(model)(TEXTS).vectors_ND)


def test_reading_it_draws_no_random_numbers(folder: Path) -> None:
    before = torch.random.get_rng_state()
    read_backbone(folder)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_folders_of_anything_else_are_left_to_transformers(folder: Path, tmp_path: Path) -> None:
    save(tiny.model(NautileForSequenceClassification, vocab_size=300), tmp_path / "head")
    save_file({"x": torch.ones(1)}, tmp_path / "lone.safetensors")
    assert read_backbone(tmp_path / "head") is None
    assert read_backbone(tmp_path / "lone.safetensors") is None
    assert read_backbone(tmp_path / "nothing") is None
    assert base_reader(str(tmp_path / "head"))(TEXTS).vectors_ND.shape == (3, 32)


def damaged_weights(folder: Path, damage: str) -> None:
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    if damage == "cut off":
        weights.write_bytes(weights.read_bytes()[:-7])
    elif damage == "missing":
        weights.unlink()
    else:
        norm = tensors.pop("norm.weight")
        save_file(tensors | ({"normed": norm} if damage == "renamed" else {"norm.weight": norm[:5]}), weights)


@pytest.mark.parametrize("damage", ["cut off", "renamed", "of another shape", "missing"])
def test_what_is_wrong_with_the_weights_is_said_as_ever(folder: Path, damage: str) -> None:
    damaged_weights(folder, damage)
    assert read_backbone(folder) is None
    with pytest.raises(NautileError, match=r"cannot be loaded|do not fit"):
        base_reader(str(folder))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "llama"}, "holds a model of type 'llama'"),
        ({"model_type": None}, "not a Nautile checkpoint"),
        ({"architectures": ["LlamaModel"]}, "is not one of NautileForCausalLM"),
        ({"vocab_size": 10**12}, "cannot be loaded"),
        ({"d_model": 36}, "even multiple of num_heads"),
    ],
)
def test_what_is_wrong_with_the_configuration_is_said_as_ever(
    folder: Path, changes: dict[str, object], said: str
) -> None:
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    with pytest.raises(NautileError, match=said):
        base_reader(str(folder))


@pytest.mark.parametrize("part", ["head.safetensors", "adapter_config.json"])
def test_a_part_is_no_backbone_even_beside_one(folder: Path, part: str) -> None:
    (folder / part).write_text("{}")
    assert read_backbone(folder) is None
    with pytest.raises(NautileError, match="no whole model"):
        base_reader(str(folder))


def test_keys_in_another_type_are_left_to_transformers(folder: Path) -> None:
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    save_file(tensors | {"embed_pairs.keys": tensors["embed_pairs.keys"].to(torch.int32)}, weights)
    assert read_backbone(folder) is None
    assert base_reader(str(folder)).model.embed_pairs.keys.dtype == torch.int64
