"""Tokenised rows for the Trainer: what is cut is counted, alike lengths come together, batches are padded right."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from nautile.engine.batching import pad_right
from nautile.model.vocabulary import Vocabulary
from nautile.tasks.labelled import Labelled

POOL_BATCHES = 50


class Sample(NamedTuple):
    """Ids, at least one, and the truth: an index, for "multi" (C) booleans."""

    ids: list[int]
    truth: Any


class Samples(Dataset[Sample]):
    """The rows of `data`, tokenised; `cut` texts had more than `max_length` tokens."""

    def __init__(self, data: Labelled, vocabulary: Vocabulary, max_length: int) -> None:
        ids = vocabulary.encode_batch(data.texts)
        self.cut = sum(len(row) > max_length for row in ids)
        self.ids = [row[:max_length] for row in ids]
        self.truth = data.truth

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.ids[index], self.truth[index])


def collate(samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
    """What the model takes: ids and mask (B,L), labels (B) or (B,C)."""
    ids_BL, mask_BL = pad_right([sample.ids for sample in samples])
    labels = torch.from_numpy(np.stack([sample.truth for sample in samples]))
    labels = labels.float() if labels.dtype == torch.bool else labels
    return {"input_ids": ids_BL, "attention_mask": mask_BL, "labels": labels}


class AlikeLengths(Sampler[int]):
    """Every index once an epoch, batches of alike lengths, in an order that seed and epoch alone decide."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.seed, self.epoch = lengths, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Trainer calls it before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self.lengths))
        pool = POOL_BATCHES * self.batch_size
        for start in range(0, len(order), pool):
            rows = sorted(order[start : start + pool].tolist(), key=lambda row: self.lengths[row])
            groups = [rows[n : n + self.batch_size] for n in range(0, len(rows), self.batch_size)]
            full = [group for group in groups if len(group) == self.batch_size]
            for n in rng.permutation(len(full)):
                yield from full[n]
            yield from groups[-1] if len(groups) > len(full) else []
