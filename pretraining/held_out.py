"""Held-out loss and bits per byte of each source, and how the model continues a prompt."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec

from nautile.model.vocabulary import Vocabulary
from nautile.pretraining.curriculum import Curriculum, Stage
from nautile.pretraining.data import batches, report
from nautile.pretraining.step import Batch, Trainer

SAMPLE_TOKENS = 48
BLOCK = 16  # held-out documents read at a time: each stands for `held_out` rows that must be come by
TEMPERATURE = 0.8
MIXTURE = "(mixture)"


class Score(NamedTuple):
    """Of a source: mean loss in nats a target, bits a byte of the targets' text, and the targets.

    The source `MIXTURE` is the mean of a stage's sources, each with its share.
    """

    source: str
    loss: float
    bits_per_byte: float
    targets: int


def bytes_per_token(vocabulary: Vocabulary) -> np.ndarray:
    """How many bytes of text each id stands for, float32 (V,); none for control and unassigned ids."""
    table = np.zeros(vocabulary.size, np.float32)
    control = set(vocabulary.control.values())
    for token, piece in vocabulary.pieces.items():
        table[token] = 0 if token in control else len(piece)
    return table


class HeldOut:
    """The rows that a stage's sources keep from training, the same at each evaluation of a run.

    At least `rows` packed rows a source are read, in batches of `at_once`; where a source holds out less, again.
    """

    def __init__(self, trainer: Trainer, curriculum: Curriculum, stage: Stage, rows: int, at_once: int) -> None:
        self._trainer = trainer
        self._bytes_V = jnp.asarray(bytes_per_token(curriculum.vocabulary))
        everywhere = NamedSharding(trainer.mesh, PartitionSpec())
        self._evaluate = jax.jit(trainer.evaluate, out_shardings=everywhere)
        self._shares = stage.shares
        smaller = replace(curriculum, rows=at_once, block=min(curriculum.block, BLOCK))
        self.corrupt: dict[str, tuple[str, ...]] = {}
        self._batches: dict[str, list[Batch]] = {}
        for source in stage.sources:
            alone = Stage(source.name, (source,), tokens=1)
            self._batches[source.name], self.corrupt[source.name] = _first(smaller, alone, -(-rows // at_once))

    def scores(self, params: nnx.State) -> Iterator[Score]:
        """One score for each source, in the order of the stage, then the mixture's where there are several."""
        found = []
        for source, parts in self._batches.items():
            sums = [self._evaluate(params, self._trainer.put(part), self._bytes_V) for part in parts]
            nats, targets, size = np.sum([np.asarray(part, np.float64) for part in sums], axis=0)
            found.append(Score(source, nats / targets, nats / math.log(2) / size, int(targets)))
        yield from found
        if len(found) > 1:
            loss = sum(self._shares[score.source] * score.loss for score in found)
            bits = sum(self._shares[score.source] * score.bits_per_byte for score in found)
            yield Score(MIXTURE, loss, bits, sum(score.targets for score in found))


def _first(curriculum: Curriculum, stage: Stage, count: int) -> tuple[list[Batch], tuple[str, ...]]:
    """The first held-out batches of a stage with one source, and what was passed over as corrupt on the way."""
    iterator = batches(curriculum, stage, jax.process_index(), jax.process_count(), evaluate=True, prefetch=1)
    try:
        found = [Batch(**next(iterator)) for _ in range(count)]
        return found, report([iterator.get_state()])[stage.name].corrupt
    finally:
        iterator.close()


class Continuation:
    """Continues prompts by up to `SAMPLE_TOKENS` tokens, sampled with a fixed seed.

    Each token reads the whole row again, so that a sample comes from the very computation that is trained.
    """

    def __init__(self, graph: nnx.GraphDef, vocabulary: Vocabulary) -> None:
        self._graph, self._vocabulary = graph, vocabulary
        self._extend = jax.jit(self._extended)

    def __call__(self, params: nnx.State, prompt: str) -> str:
        """The text after the prompt, up to the end of the document."""
        vocabulary = self._vocabulary
        ids = vocabulary.encode(prompt) or [vocabulary.eos_id]
        row = np.full(len(ids) + SAMPLE_TOKENS, vocabulary.pad_id, np.int32)
        row[: len(ids)] = ids
        found = np.asarray(self._extend(params, row, len(ids)))[len(ids) :].tolist()
        end = found.index(vocabulary.eos_id) if vocabulary.eos_id in found else len(found)
        return vocabulary.decode(found[:end])

    def _extended(self, params: nnx.State, row_L: Array, start: Array) -> Array:
        model = nnx.merge(self._graph, params)

        def extend(at: Array, row_L: Array) -> Array:
            logits_V = model(row_L[None])[0, at - 1] / TEMPERATURE
            return row_L.at[at].set(jax.random.categorical(jax.random.key(at), logits_V))

        return jax.lax.fori_loop(start, len(row_L), extend, row_L)
