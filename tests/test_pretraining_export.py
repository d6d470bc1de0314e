"""What comes out of a run: the folder that ships, curves, and the start of another run."""

from pathlib import Path

import jax
import numpy as np
import pytest
import small_run
import torch
from flax import nnx
from transformers import AutoTokenizer

from nautile.errors import NautileError
from nautile.model.checkpoints import load
from nautile.pretraining.convert import convert_to_jax
from nautile.pretraining.curves import draw
from nautile.pretraining.export import export
from nautile.pretraining.folder import fitting, read_arrays
from nautile.pretraining.log import read_metrics
from nautile.pretraining.train import begin, builder, recipe_of, train

pytestmark = pytest.mark.slow  # of the run that they export


def test_an_exported_run_is_the_same_model(trained_run: Path, tmp_path: Path) -> None:
    assert export(trained_run, tmp_path / "last", dtype="float32") == [20]
    recipe = recipe_of(trained_run)
    params = fitting(read_arrays(trained_run / "checkpoints" / "20" / "params"), recipe.model, trained_run)
    graph = nnx.split(nnx.eval_shape(builder(recipe)), nnx.Param)[0]
    ids = np.random.default_rng(0).integers(8, 264, (2, 30)).astype(np.int32)
    with torch.inference_mode():
        logits = load(tmp_path / "last")(torch.from_numpy(ids).long()).logits
    expected = jax.jit(lambda params, ids: nnx.merge(graph, params)(ids))(params, ids)
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert "the river" in AutoTokenizer.from_pretrained(tmp_path / "last").decode(
        load(tmp_path / "last").generate(
            torch.tensor([recipe.curriculum.vocabulary.encode("the river")]), max_length=20
        )[0]
    )


def test_exports_average_and_refuse(trained_run: Path, tmp_path: Path) -> None:
    assert export(trained_run, tmp_path / "mean", step=16, average=2, dtype="float32") == [12, 16]
    name = "blocks/0/sca/gate_proj/kernel"
    parts = [read_arrays(trained_run / "checkpoints" / step / "params")[name] for step in ("12", "16")]
    mean = load(tmp_path / "mean").state_dict()["model.blocks.0.sca.gate_proj.weight"]
    np.testing.assert_allclose(mean.numpy().T, (parts[0] + parts[1]) / 2, rtol=1e-6)
    with pytest.raises(NautileError, match=r"no checkpoint of step 3; .* has the checkpoints: 12, 16, 20"):
        export(trained_run, tmp_path / "none", step=3)
    with pytest.raises(NautileError, match="4 checkpoints cannot be averaged"):
        export(trained_run, tmp_path / "none", average=4)
    with pytest.raises(NautileError, match="exists already"):
        export(trained_run, tmp_path / "mean")
    with pytest.raises(NautileError, match="dtype 'int3' is not one of"):
        export(trained_run, tmp_path / "none", dtype="int3")
    assert not (tmp_path / "none").exists()


def test_a_run_may_start_from_converted_weights(trained_run: Path, tmp_path: Path) -> None:
    export(trained_run, tmp_path / "torch", dtype="float32")
    convert_to_jax(tmp_path / "torch", tmp_path / "jax")
    begin(small_run.recipe(tmp_path, f"training.start={tmp_path / 'jax'}"), tmp_path / "run")
    train(tmp_path / "run", minutes=0, visible=False)
    last = [r for r in read_metrics(trained_run) if r["kind"] == "evaluation"][-1]
    first = next(r for r in read_metrics(tmp_path / "run") if r["kind"] == "evaluation" and r["source"] == "notes")
    assert first["step"] == 0
    np.testing.assert_allclose(first["bits_per_byte"], last["bits_per_byte"], rtol=1e-5)
    other = small_run.recipe(tmp_path, f"training.start={tmp_path / 'jax'}", "model.d_ff=30")
    with pytest.raises(NautileError, match="another architecture"):
        begin(other, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_curves_are_drawn(trained_run: Path, tmp_path: Path) -> None:
    draw([trained_run], tmp_path / "curve.svg")
    assert (tmp_path / "curve.svg").read_text().count("<path") > 20
    with pytest.raises(NautileError, match="no figures of training yet"):
        draw([tmp_path], tmp_path / "none.png")
    with pytest.raises(NautileError, match="pictures are"):
        draw([trained_run], tmp_path / "curve.txt")
