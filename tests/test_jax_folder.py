"""The JAX checkpoint folder: plain orbax, exact, and refused in one line when anything in it is amiss."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tiny
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from nautile.cli import main
from nautile.errors import NautileError
from nautile.model.architecture import Architecture
from nautile.pretraining.folder import is_jax_folder, load_folder, named, save_folder, unnamed
from nautile.pretraining.model import NautileLM
from nautile.pretraining.optimizer import OptimizerConfig

ARCHITECTURE = Architecture(**tiny.config(vocab_size=300, **tiny.BOUNDARY).architecture())


@pytest.fixture(scope="module")
def params() -> nnx.State:
    return nnx.state(NautileLM(ARCHITECTURE, nnx.Rngs(0)), nnx.Param)


@pytest.fixture(scope="module")
def jax_folder(params: nnx.State, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jax") / "tiny"
    save_folder(params, ARCHITECTURE, "nautile", folder)
    return folder


@pytest.fixture
def copy(jax_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(jax_folder, tmp_path / "copy"))


def test_the_folder_is_plain_orbax(jax_folder: Path, params: nnx.State) -> None:
    assert json.loads((jax_folder / "config.json").read_text()) == {
        "model_type": "nautile-jax",
        "architecture": ARCHITECTURE.architecture(),
        "tokenizer_layout": "nautile",
    }
    with ocp.StandardCheckpointer() as checkpointer:
        arrays = checkpointer.restore(jax_folder / "params")
    assert {array.dtype for array in arrays.values()} == {np.dtype("float32")}
    np.testing.assert_array_equal(
        arrays["blocks/0/sca/in_proj/kernel"], params["blocks"][0]["sca"]["in_proj"]["kernel"][...]
    )


def test_what_is_written_is_read(jax_folder: Path, params: nnx.State) -> None:
    assert is_jax_folder(jax_folder)
    assert not is_jax_folder(jax_folder / "params")
    architecture, layout, read = load_folder(jax_folder)
    assert (architecture, layout) == (ARCHITECTURE, "nautile")
    assert jax.tree.structure(read) == jax.tree.structure(params)
    for name, array in named(read).items():
        assert isinstance(array, np.ndarray)
        np.testing.assert_array_equal(array, named(params)[name])
    assert read["embed"].get_metadata("axes") == ("vocab", "embed")


def configured(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config["architecture"].update(changes)
        (folder / "config.json").write_text(json.dumps(config))

    return change


def reconfigured(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps(config))

    return change


def rewritten(edit: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with ocp.StandardCheckpointer() as checkpointer:
            arrays = checkpointer.restore(folder / "params")
            edit(arrays)
            shutil.rmtree(folder / "params")
            checkpointer.save(folder / "params", arrays)

    return change


def without_a_field(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["architecture"]["rope_base"]
    (folder / "config.json").write_text(json.dumps(config))


def data_files(folder: Path) -> list[Path]:
    return [path for path in (folder / "params").rglob("*") if path.parent.name == "d"]


def cut_short(folder: Path) -> None:
    largest = max(data_files(folder), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])


def overwritten(folder: Path) -> None:
    for path in data_files(folder):
        path.write_bytes(b"\xff" * path.stat().st_size)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no params": (lambda folder: shutil.rmtree(folder / "params"), "params/ is missing"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
    "config cut short": (lambda folder: (folder / "config.json").write_text('{"model'), "config.json: not a readable"),
    "config a list": (lambda folder: (folder / "config.json").write_text("[]"), "holds a JSON list"),
    "no architecture": (reconfigured(architecture=None), "missing or unknown in architecture: anchor_heads, "),
    "another type": (reconfigured(model_type="bert"), "a model of type 'bert', not a JAX checkpoint"),
    "unknown layout": (reconfigured(tokenizer_layout="x"), "tokenizer_layout must be"),
    "lost field": (without_a_field, "missing or unknown in architecture: rope_base"),
    "unknown field": (configured(experts=3), "missing or unknown in architecture: experts"),
    "no truth value": (configured(clip_weights=1), "clip_weights must be true or false, not 1"),
    "contradiction": (configured(query_heads=3), "memory_heads must be a multiple of query_heads"),
    "another width": (configured(d_ff=47), r"ff_in/kernel is float32 (32, 96), expected float32 (32, 94)"),
    "another depth": (configured(num_layers=4), "missing blocks/3/norm/scale"),
    "no data": (lambda folder: shutil.rmtree(folder / "params" / "d"), "params: damaged (NOT_FOUND"),
    "no index": (lambda folder: (folder / "params" / "manifest.ocdbt").unlink(), "params: holds no arrays"),
    "data cut short": (cut_short, "params: damaged (OUT_OF_RANGE"),
    "data overwritten": (overwritten, "params: damaged (DATA_LOSS"),
    "array lost": (rewritten(lambda a: a.pop("embed")), "copy: these arrays do not fit: missing embed"),
    "array more": (rewritten(lambda a: a.update(extra=a["embed"])), "unexpected extra"),
    "array shorter": (rewritten(lambda a: a.update(embed=a["embed"][1:])), "embed is float32 (299, 32), expected"),
    "array turned": (rewritten(lambda a: a.update(embed=a["embed"].T)), "embed is float32 (32, 300), expected"),
    "array widened": (
        rewritten(lambda a: a.update(embed=np.asarray(a["embed"], np.float64))),
        "embed is float64 (300, 32)",
    ),
    "array infinite": (rewritten(lambda a: a.update(embed=np.full_like(a["embed"], np.inf))), "not finite in embed"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_folder_is_refused_in_one_line(copy: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    damage, message = DAMAGE[name]
    damage(copy)
    with pytest.raises(NautileError) as error:
        load_folder(copy)
    assert message in str(error.value)
    capfd.readouterr()
    output = copy.parent / "out"
    assert main(["convert", str(copy), str(output)]) == 2
    told = capfd.readouterr()
    assert told.out == ""
    assert told.err.startswith("nautile: error: ")
    assert told.err.count("\n") == 1
    assert not output.exists()


def test_a_folder_is_written_once_and_only_with_what_fits(jax_folder: Path, params: nnx.State, tmp_path: Path) -> None:
    with pytest.raises(NautileError, match="holds parameters already"):
        save_folder(params, ARCHITECTURE, "nautile", jax_folder)
    with pytest.raises(NautileError, match="tokenizer_layout must be 'nautile' or 'released', not 'gpt'"):
        save_folder(params, ARCHITECTURE, "gpt", tmp_path / "new")
    other = Architecture(**{**ARCHITECTURE.architecture(), "final_norm": False})
    with pytest.raises(NautileError, match="new: these arrays do not fit: unexpected norm/scale"):
        save_folder(params, other, "nautile", tmp_path / "new")
    assert not (tmp_path / "new").exists()


trees = st.recursive(
    st.floats(allow_nan=False).map(np.float64),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from("abc") | st.just("value"), inner, max_size=3)
        | inner.map(nnx.Param)
    ),
)


@given(st.dictionaries(st.sampled_from("xyz"), trees))
def test_a_tree_comes_back_from_its_names(tree: dict[str, Any]) -> None:
    back = unnamed(named(tree), tree)
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    assert jax.tree.leaves(back) == jax.tree.leaves(tree)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_the_state_of_an_optimiser_has_names_too(params: nnx.State, kind: Any) -> None:
    optimizer = OptimizerConfig(kind=kind).build(steps=200)
    names = named(optimizer.init(params))
    shapes = jax.eval_shape(optimizer.init, params)
    assert jax.tree.structure(unnamed(names, shapes)) == jax.tree.structure(shapes)
    moment = next(name for name in names if name.endswith("mu/blocks/2/attention/q_proj/kernel"))
    names["more"] = names.pop(moment)
    scalar = next(name for name in names if name.endswith("count"))
    names[scalar] = np.zeros(2, np.int32)
    with pytest.raises(NautileError, match=rf"missing {moment}; unexpected more; {scalar} is int32 \(2,\), expected"):
        unnamed(names, shapes)
