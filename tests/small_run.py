"""A run so small that a test can make it: a model of a few thousand parameters on made-up text."""

import json
import random
from pathlib import Path

import numpy as np

from nautile.pretraining.folder import read_arrays
from nautile.pretraining.recipe import Recipe, load_recipe

WORDS = [
    "the",
    "a",
    "of",
    "river",
    "stone",
    "light",
    "moves",
    "under",
    "over",
    "and",
    "slowly",
    "never",
    "old",
    "bright",
    "house",
    "sees",
]
RECIPE = """
[model]
d_model = 16
num_layers = 3
memory_heads = 2
query_heads = 2
num_heads = 2
num_kv_heads = 1
d_ff = 24

[curriculum]
ranks = 256
length = 24
rows = 8
held_out = 7
block = 8

[[curriculum.stages]]
name = "first"
tokens = 1_920
[[curriculum.stages.sources]]
name = "prose"
location = "{data}/prose.jsonl"
[[curriculum.stages.sources]]
name = "notes"
location = "{data}/notes.jsonl"
weight = 0.5

[[curriculum.stages]]
name = "second"
tokens = 1_920
[[curriculum.stages.sources]]
name = "notes"
location = "{data}/notes.jsonl"

[optimizer]
kind = "adamw"
learning_rate = 1e-2
warmup_steps = 3

[training]
dtype = "float32"
accumulate = 2
log_every = 2
save_every = 4
evaluate_every = 10
evaluate_rows = 4
"""
STEPS = 20


def write_texts(folder: Path) -> Path:
    """Files that the recipe's sources name."""
    folder.mkdir(exist_ok=True)
    for seed, name in enumerate(("prose", "notes")):
        rng = random.Random(seed)
        texts = [" ".join(rng.choices(WORDS, k=rng.randint(2, 12))) for _ in range(90)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return folder


def recipe(folder: Path, *changes: str) -> Recipe:
    """The recipe on the texts in `folder`, of `STEPS` steps."""
    path = folder / "small.toml"
    path.write_text(RECIPE)
    made = load_recipe(path, write_texts(folder / "texts"), changes)
    assert made.steps == STEPS
    return made


def arrays(run: Path, step: int = STEPS) -> dict[str, np.ndarray]:
    """Parameters and optimiser state of a checkpoint, as they lie on disk."""
    place = run / "checkpoints" / str(step)
    items = ((item, read_arrays(place / item)) for item in ("params", "optimizer"))
    return {f"{item}/{name}": value for item, found in items for name, value in found.items()}


def assert_equal_bits(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    """Same names, same bytes."""
    assert first.keys() == second.keys()
    different = [name for name in first if first[name].tobytes() != second[name].tobytes()]
    assert not different
