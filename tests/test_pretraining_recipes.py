"""Recipes: those that ship, changes from the command line, and one line for what cannot be."""

from pathlib import Path

import pytest

from nautile.errors import NautileError
from nautile.pretraining.recipe import Recipe, load_recipe, shipped

DATA = Path("texts")


@pytest.mark.parametrize("name", shipped())
def test_shipped_recipes_load_and_survive_their_own_json(name: str) -> None:
    recipe = load_recipe(name, DATA)
    assert recipe.name == name
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert recipe.model.vocab_size == recipe.curriculum.vocabulary.size
    assert all("{data}" not in source.location for stage in recipe.curriculum.stages for source in stage.sources)


def test_the_papers_curriculum() -> None:
    recipe = load_recipe("nautile_370m_v4_64", DATA)
    language, reasoning = recipe.curriculum.stages
    assert (language.tokens, reasoning.tokens) == (350_000_000_000, 250_000_000_000)
    assert language.sources[0].hub_name == "HuggingFaceFW/fineweb-edu"
    synth, augmented = reasoning.sources
    assert synth.hub_name == "PleIAs/SYNTH"
    assert (synth.format, augmented.format) == ("chat", "chat")
    assert recipe.model.vocab_size == 100_300


def test_every_mini_ends_with_instructions() -> None:
    for name in ("nautile_mini_cpu", "nautile_mini_gpu"):
        recipe = load_recipe(name, DATA)
        assert [stage.name for stage in recipe.curriculum.stages] == ["language", "instruction"]
        assert recipe.model.vocab_size == 32_008


def test_values_change_by_their_path() -> None:
    changes = ["optimizer.learning_rate=1e-4", "curriculum.stages.language.tokens=1_000_000", "training.remat=blocks"]
    recipe = load_recipe("smoke", DATA, [*changes, "curriculum.stages.language.sources.text.max_corrupt=3"])
    assert recipe.optimizer.learning_rate == 1e-4
    assert recipe.curriculum.stages[0].tokens == 1_000_000
    assert recipe.training.remat == "blocks"
    assert recipe.curriculum.stages[0].sources[0].max_corrupt == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("optimizer.learning_rat=3", "recipe smoke: optimizer.learning_rat: Unexpected keyword argument"),
        ("model.width=3", "the model of the recipe has no width"),
        ("model.vocab_size=7", "the model's vocab_size is 7, the curriculum's vocabulary 4008"),
        ("model.num_heads=3", "num_heads must be a multiple of num_kv_heads"),
        ("curriculum.stages.language.tokens=-1", "the budget is -1 tokens"),
        ("curriculum.stages.grammar.tokens=1", "the recipe has no 'grammar' there"),
        ("curriculum.rows=32.5", "curriculum.rows: Input should be a valid integer"),
        ("curriculum.ranks=3", "256 to 100256 ranks"),
        ("curriculum.rows.more=1", "curriculum.rows has no entries of its own"),
        ("model.pairs=3", "model.pairs: vectors of token pairs are not to be had in JAX"),
        ("training.data=0", "training.data is 0"),
        ("training.accumulate=7", r"curriculum.rows \(32\) must be a multiple of training.accumulate \(7\)"),
        ("training.remat=some", "training.remat: Input should be 'none', 'dots' or 'blocks'"),
        ("optimizer.kind=sgd", "optimizer.kind: Input should be 'adamw' or 'muon'"),
        ("optimizer.warmup_steps=20", "warmup_steps is 20, it must be below the run's 20 steps"),
        ("optimizer.clip_norm=0", "clip_norm must be positive; inf for no clipping"),
        ("optimizer.learning_rate=-1e-2", "learning_rate must be a positive number"),
        ("curriculum=3", "curriculum of the recipe must be a table, not 3"),
        ("learning_rate", "write it as path=value"),
    ],
)
def test_what_cannot_be_is_named_with_its_place(change: str, message: str) -> None:
    with pytest.raises(NautileError, match=message):
        load_recipe("smoke", DATA, [change])


def test_a_source_for_each_file_has_its_share_by_size(tmp_path: Path) -> None:
    for name, size in {"a.1.jsonl": 30, "a.2.jsonl": 10, "empty.jsonl": 0}.items():
        (tmp_path / "br[1]").mkdir(exist_ok=True)
        (tmp_path / "br[1]" / name).write_bytes(b"x" * size)
    stage = load_recipe("smoke", tmp_path / "br[1]").curriculum.stages[0]
    assert stage.shares == {"text/a.1.jsonl": 0.75, "text/a.2.jsonl": 0.25}
    assert [path.name for source in stage.sources for path in source.files()] == ["a.1.jsonl", "a.2.jsonl"]


def test_files_that_are_no_recipes(tmp_path: Path) -> None:
    with pytest.raises(NautileError, match=r"no recipe 'smok': give a \.toml file, or one of .*smoke"):
        load_recipe("smok")
    with pytest.raises(NautileError, match="source 'text' lies in the data folder: give it with --data"):
        load_recipe("smoke")
    (tmp_path / "broken.toml").write_text("[model\n")
    with pytest.raises(NautileError, match="not TOML"):
        load_recipe(tmp_path / "broken.toml")
    (tmp_path / "bare.toml").write_text("[model]\n")
    with pytest.raises(NautileError, match=r"curriculum\.stages"):
        load_recipe(tmp_path / "bare.toml")


def test_steps_belong_to_their_stages() -> None:
    recipe = load_recipe("nautile_mini_cpu", DATA)
    language, instruction = recipe.curriculum.stages
    first = recipe.curriculum.steps(language)
    assert recipe.stage_at(first - 1) == (language, first)
    assert recipe.stage_at(first) == (instruction, recipe.steps)
    with pytest.raises(NautileError, match="there is no step"):
        recipe.stage_at(recipe.steps)
