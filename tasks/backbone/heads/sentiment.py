"""The head of sentiment: the layer that learned together with the backbone."""

from dataclasses import replace
from pathlib import Path

from nautile.model.places import fingerprint
from nautile.tasks.backbone.export import load_student
from nautile.tasks.backbone.heads.sentiment_data import LABELS
from nautile.tasks.heads.head import Head, linear_head


def sentiment_head(run: Path, base: Path) -> Head:
    """The layer of a run of the backbone, not calibrated; `base` is what was exported from that run."""
    layer = load_student(run).sentiment
    head = linear_head(LABELS, layer.weight.detach(), layer.bias.detach(), unit=True)
    return replace(head, about={"base_digest": fingerprint(base), "method": "trained with the backbone"})
