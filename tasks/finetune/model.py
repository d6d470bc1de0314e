"""The model to train: a base with a fresh `score` layer for the labels, always the same for the same seed."""

import torch

from nautile.model.heads import NautileForSequenceClassification
from nautile.tasks.finetune.base import check_base
from nautile.tasks.heads.tuned import with_labels
from nautile.tasks.kinds import Kind


def trainable(base: str, labels: tuple[str, ...], seed: int, kind: Kind = "single") -> NautileForSequenceClassification:
    """A sequence classification model in float32; its backbone is the base's, its `score` layer starts anew.

    Args:
        base: a shipped model, the folder of any Nautile checkpoint, released weights, or a hub id.
        labels: one output each.
        seed: of the new layer.
        kind: of judgment, which the configuration will name.

    Raises:
        NautileError: no such model, an adapter or a head in place of one, tensors that are missing or do not fit.
    """
    check_base(base)
    torch.manual_seed(seed)
    model = with_labels(base, labels, kind)
    model.config.use_cache = False
    return model
