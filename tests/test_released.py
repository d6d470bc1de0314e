"""The importer, on random weights written here in the layout of the released checkpoint."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import nautile
from nautile.cli import main
from nautile.errors import NautileError
from nautile.model.checkpoints import convert, load, locate
from nautile.model.released import from_released

CONFIG = {
    "d_model": 32,
    "d_ff": 40,
    "num_layers": 3,
    "vocab_size": 512,
    "maxlen": 64,
    "num_heads": 4,
    "num_kv_heads": 2,
    "qk_norm": True,
    "qk_norm_eps": 1e-6,
    "seqcond_heads": 4,
    "num_query_heads": 2,
    "num_thetas": 2,
    "conv_kernel_size": 4,
    "expand_factor": 2,
    "out_expand_factor": 3,
    "seqcond_ratio": 2,
    "num_anchor_heads": 0,
}


def released_tensors(config: dict, seed: int = 0) -> dict[str, Tensor]:
    """Every tensor of the release, from the shapes that architecture.md lists."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * 0.1

    D, F, V = config["d_model"], config["d_ff"], config["vocab_size"]
    K, Q, M, A = (config[n] for n in ("seqcond_heads", "num_query_heads", "num_thetas", "num_anchor_heads"))
    H = int(D * config["expand_factor"]) // (K * M)
    P = K * H + K + Q * H * M * 2
    E = D // config["num_heads"]
    tensors = {"embedding.weight": rand(V, D)}
    for i in range(config["num_layers"]):
        b = f"blocks.{i}."
        if (i + 1) % (config["seqcond_ratio"] + 1) == 0:
            kv = config["num_kv_heads"] * E
            shapes = {"norm1.scale": (D,), "norm2.scale": (D,), "attn.q_proj.weight": (D, D)}
            shapes |= {"attn.k_proj.weight": (kv, D), "attn.v_proj.weight": (kv, D), "attn.out_proj.weight": (D, D)}
            shapes |= {"ff_in.weight": (2 * F, D), "ff_in.bias": (2 * F,), "ff_out.weight": (D, F), "ff_out.bias": (D,)}
        else:
            theta = "attn.theta_raw" if M == 1 else "attn.theta_d_raw"
            shapes = {"norm.scale": (D,), "attn.in_proj.weight": (P, D), "attn.conv_weight": (P, 1, 4)}
            shapes |= {theta: (1, 1, K, H, M), "attn.w_int_raw": (1, 1, Q, K // Q, H, M)}
            shapes |= {"attn.decay_slopes": (K - A,)} | ({"attn.anchor_slopes": (A,)} if A else {})
            shapes |= {f"attn.{name}": (K,) for name in ("score_scale", "score_bias", "phase_scale")}
            shapes |= {"attn.gate_proj.weight": (2 * K * H, D), "attn.gated_norm.weight": (2 * K * H,)}
            shapes |= {"attn.W_readout": (K, 2 * H, 6 * H), "attn.out_proj.weight": (D, 3 * K * H)}
        tensors |= {b + name: rand(*shape) for name, shape in shapes.items()}
    return tensors


def write(path: Path, config: dict | None, tensors: dict[str, Tensor]) -> Path:
    if path.suffix == ".safetensors":
        save_file(tensors, path)
        if config is not None:
            (path.parent / "config.json").write_text(json.dumps(config))
    else:
        torch.save(tensors if config is None else {"config": config, "state_dict": tensors}, path)
    return path


@pytest.mark.parametrize("changes", [{}, {"num_thetas": 1}, {"num_anchor_heads": 1}, {"num_query_heads": 4}])
@pytest.mark.parametrize("name", ["released.pt", "released.bin", "released.safetensors"])
@pytest.mark.parametrize("prefix", ["", "model."])
def test_every_variant_gives_the_same_tensors(tmp_path: Path, changes: dict, name: str, prefix: str) -> None:
    config = CONFIG | changes
    tensors = released_tensors(config)
    written = {prefix + key: value for key, value in tensors.items()}
    model = from_released(write(tmp_path / name, config, written))
    sca, attention = model.model.blocks[0].sca, model.model.blocks[2]
    assert torch.equal(model.model.embed_tokens.weight, tensors["embedding.weight"])
    assert torch.equal(sca.readout, tensors["blocks.0.attn.W_readout"])
    theta = "theta_raw" if config["num_thetas"] == 1 else "theta_d_raw"
    assert torch.equal(sca.theta_raw, tensors[f"blocks.0.attn.{theta}"][0, 0])
    assert torch.equal(sca.w_int_raw, tensors["blocks.0.attn.w_int_raw"][0, 0])
    assert torch.equal(attention.feed_forward.ff_in.bias, tensors["blocks.2.ff_in.bias"])
    assert torch.equal(attention.norm2.weight, tensors["blocks.2.norm2.scale"])
    imported = sum(parameter.numel() for parameter in model.parameters())
    assert imported == sum(tensor.numel() for tensor in tensors.values())
    assert model.config.decay == "boundary"
    assert model.config.clip_weights
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_caches_and_a_tied_head_among_the_tensors_are_no_matter(tmp_path: Path) -> None:
    tensors = released_tensors(CONFIG)
    extra = {"lm_head.weight": tensors["embedding.weight"].clone(), "cos_emb": torch.ones(3)}
    extra |= {"sin_emb": torch.ones(3), "blocks.0.attn._theta_cached": torch.ones(2)}
    plain = from_released(write(tmp_path / "a.pt", CONFIG, tensors))
    with_extra = from_released(write(tmp_path / "b.pt", CONFIG, {**tensors, **extra}))
    ids = torch.arange(1, 9)[None]
    assert torch.equal(plain(ids).logits, with_extra(ids).logits)


def test_converted_folder_loads_like_any_checkpoint_and_gives_the_same_logits(tmp_path: Path) -> None:
    config = CONFIG | {"vocab_size": 100_300}
    source = write(tmp_path / "released.pt", config, released_tensors(config))
    convert(source, tmp_path / "out")
    ids = torch.arange(1, 20)[None]
    direct = nautile.Nautile.from_pretrained(source)
    assert torch.equal(load(tmp_path / "out")(ids).logits, direct(ids).logits)
    nautile.register()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path / "out")(ids).logits, direct(ids).logits)
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("<|im_start|> hello")["input_ids"][0] != 100_278


def test_the_command_converts_and_answers_a_mistake_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = released_tensors(CONFIG)
    source = write(tmp_path / "released.pt", CONFIG, tensors)
    assert main(["convert", str(source), str(tmp_path / "out")]) == 0
    assert torch.equal(load(tmp_path / "out").model.embed_tokens.weight, tensors["embedding.weight"])
    capsys.readouterr()
    for wrong in ([str(source), str(tmp_path / "out")], [str(tmp_path / "none.pt"), str(tmp_path / "new")]):
        assert main(["convert", *wrong]) == 2
        error = capsys.readouterr().err
        assert error.startswith("nautile: error: ")
        assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("blocks.1.attn.W_readout"), "missing blocks.1.attn.W_readout"),
        (lambda t: t.update({"blocks.0.attn.q_norm.weight": torch.ones(3)}), "unexpected blocks.0.attn.q_norm.weight"),
        (lambda t: t.update({"blocks.2.ff_out.bias": torch.ones(31)}), r"blocks.2.ff_out.bias has shape \(31,\)"),
        (lambda t: t["blocks.2.norm1.scale"].fill_(float("nan")), "blocks.2.norm1.scale holds"),
        (
            lambda t: t.update({"blocks.2.ff_out.bias": torch.ones(32, dtype=torch.int8)}),
            "ff_out.bias holds torch.int8",
        ),
        (lambda t: t.update({"lm_head.weight": t["embedding.weight"] + 1}), "lm_head.weight differs"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(tmp_path: Path, change, message: str) -> None:
    tensors = released_tensors(CONFIG)
    change(tensors)
    with pytest.raises(NautileError, match=message):
        from_released(write(tmp_path / "released.pt", CONFIG, tensors))


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    torch.save({"config": CONFIG, "state_dict": {"x": Path("/")}}, tmp_path / "evil.pt")
    with pytest.raises(NautileError, match="pickled objects are refused"):
        from_released(tmp_path / "evil.pt")


def test_a_file_cut_short_is_named(tmp_path: Path) -> None:
    for name in ("released.pt", "released.safetensors"):
        path = write(tmp_path / name, CONFIG, released_tensors(CONFIG))
        path.write_bytes(path.read_bytes()[:-1000])
        with pytest.raises(NautileError, match=name):
            from_released(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qk_norm": False}, "qk_norm=False"),
        ({"num_heads": "x"}, "num_heads must be a whole number"),
        ({"num_layers": 2.5}, "num_layers must be a whole number"),
        ({"vocab_size": -1}, "vocab_size must be a whole number"),
        ({"expand_factor": "2"}, "expand must be a number"),
        ({"seqcond_ratio": None}, "seqcond_ratio must be a whole number"),
    ],
)
def test_an_unsupported_configuration_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    path = write(tmp_path / "released.pt", CONFIG | change, released_tensors(CONFIG))
    with pytest.raises(NautileError, match=message):
        from_released(path)


@pytest.mark.parametrize("config", ["{bad", "[]", "3", "\ufeff"])
def test_a_damaged_config_file_is_named(tmp_path: Path, config: str) -> None:
    (tmp_path / "config.json").write_text(config, encoding="utf-16")
    for action in (lambda: load(tmp_path), lambda: convert(tmp_path, tmp_path / "out")):
        with pytest.raises(NautileError, match=r"config\.json"):
            action()


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(NautileError, match="a model of type 'bert'"):
        load(tmp_path)
    with pytest.raises(NautileError, match="not in the released layout; give the released file"):
        convert(tmp_path, tmp_path / "out")


def test_a_tensor_of_ours_with_a_wrong_shape_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "ours"
    shutil.copytree(locate("nautile-mini"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"d_ff": 600}))
    with pytest.raises(NautileError, match=r"mismatched.*feed_forward\.ff_in\.weight"):
        load(folder)
