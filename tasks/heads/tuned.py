"""Fine-tuned models as transformers and peft know them: adapters, and checkpoints with labels of their own."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel

from nautile.errors import NautileError, first_line
from nautile.model.checkpoints import load
from nautile.model.heads import NautileForSequenceClassification
from nautile.model.places import read_config
from nautile.quiet import quiet
from nautile.tasks.heads.folder import check_base
from nautile.tasks.heads.head import Head, read_about
from nautile.tasks.kinds import Kind
from nautile.tasks.question import BASE

# What transformers calls the kinds of judgment: which loss it takes, and whether `pipeline` ends in a softmax.
PROBLEMS: dict[Kind, str] = {
    "single": "single_label_classification",
    "ordinal": "single_label_classification",
    "multi": "multi_label_classification",
}


def load_tuned(model: str) -> tuple[NautileForSequenceClassification, Head]:
    """The model of an adapter's or a checkpoint's folder (or of a hub id), and its `score` layer as a head.

    Raises:
        NautileError: no such model, a damaged one, one without labels, or one whose base has changed.
    """
    place = Path(model)
    known = read_about(place) if (place / "head.json").is_file() else {}
    scored = _adapted(place, known) if (place / "adapter_config.json").is_file() else load(model)
    if not isinstance(scored, NautileForSequenceClassification):
        kind = type(scored).__name__
        raise NautileError(f"{model}: a {kind} has no labels: give some, a task, or the folder of a fine-tuned model")
    return scored, _head_of(scored, known)


def _head_of(model: NautileForSequenceClassification, known: dict[str, Any]) -> Head:
    """Its `score` layer; what `head.json` does not say, the configuration does."""
    if model.config.problem_type == "regression":
        raise NautileError(f"{model.name_or_path}: gives numbers (problem_type is regression), not labels")
    labels = tuple(str(model.config.id2label[n]) for n in range(model.config.num_labels))
    kind = "multi" if model.config.problem_type == PROBLEMS["multi"] else "single"
    weight, bias = model.score.weight.detach().float().cpu(), model.score.bias.detach().float().cpu()
    fields = {"labels": labels, "kind": kind, **known}
    return Head(weight_CD=weight, bias_C=bias, **fields)


def _adapted(place: Path, known: dict[str, Any]) -> PreTrainedModel:
    """The base with the adapter merged into it."""
    try:
        from peft import PeftModel
    except ModuleNotFoundError:
        raise NautileError(f'{place}: an adapter needs peft: pip install "nautile[finetune]"') from None
    for name in ("head.json", "adapter_model.safetensors"):
        if not (place / name).is_file():
            raise NautileError(f"{place}: {name} is missing, so this is no finished run of nautile finetune")
    base = str(read_config(place / "adapter_config.json").get("base_model_name_or_path") or BASE)
    check_base(place, base, known["about"])
    try:
        with quiet():
            fresh = with_labels(base, known["labels"], known["kind"])
            merged = PeftModel.from_pretrained(fresh, str(place)).merge_and_unload()
    except (ValueError, RuntimeError, KeyError, OSError, TypeError, AttributeError, SafetensorError) as error:
        reason = first_line(error)
        raise NautileError(f"{place}: the adapter does not fit {base} ({reason})") from None
    return merged.eval()


def with_labels(
    base: str, labels: tuple[str, ...], kind: Kind = "single", dtype: torch.dtype = torch.float32
) -> NautileForSequenceClassification:
    """A base model with a fresh `score` layer for `labels`; its configuration says which kind of judgment it gives.

    Raises:
        NautileError: no such model.
    """
    source = load(base, dtype)
    backbone = source if not hasattr(source, "model") else source.model
    config = type(source.config)(
        **{
            **source.config.to_dict(),
            "architectures": ["NautileForSequenceClassification"],
            "id2label": dict(enumerate(labels)),
            "label2id": {label: n for n, label in enumerate(labels)},
            "problem_type": PROBLEMS[kind],
        }
    )
    fresh = NautileForSequenceClassification(config).to(dtype)
    fresh.model.load_state_dict(backbone.state_dict())
    return fresh
