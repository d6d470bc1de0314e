"""Judging models by name: built-in tasks, heads on a base, peft adapters, checkpoints with labels of their own."""

import json
from functools import lru_cache
from pathlib import Path

import torch
from transformers import PreTrainedModel

from nautile.engine.reader import Reader
from nautile.errors import NautileError
from nautile.model.checkpoints import load, locate
from nautile.model.heads import NautileForSequenceClassification
from nautile.tasks.heads.head import Head, load_head, read_about
from nautile.tasks.question import BASE

TASKS = ("sentiment", "emotion", "intent", "topic")
KEPT = 4  # models kept in memory


def load_task(task: str) -> tuple[Reader, Head]:
    """A built-in task: its head, and the reader of the shared backbone.

    Raises:
        NautileError: an unknown task.
    """
    if not isinstance(task, str) or task not in TASKS:
        raise NautileError(f"unknown task {task!r}; there are: {', '.join(TASKS)}")
    return base_reader(BASE), load_head(Path(locate(BASE)) / "heads" / task)


def load_judging(model: str | Path) -> tuple[Reader, Head]:
    """The reader and head of a fine-tuned folder (adapter, head or checkpoint), or of a checkpoint with labels.

    Raises:
        NautileError: no such model, a damaged one, or one without labels.
    """
    place = Path(locate(model))
    if (place / "head.safetensors").is_file():
        head = load_head(place)
        return base_reader(str(head.about.get("base", BASE))), head
    if (place / "adapter_config.json").is_file():
        known = read_about(place)
        scored = _adapted(place, known)
    else:
        known = read_about(place) if (place / "head.json").is_file() else {}
        scored = load(model)
    if not isinstance(scored, NautileForSequenceClassification):
        raise NautileError(
            f"{model}: a {type(scored).__name__} has no labels; give a sequence classification checkpoint"
        )
    return Reader(scored), _head_of(scored, known)


@lru_cache(maxsize=KEPT)
def base_reader(base: str) -> Reader:
    """The reader of a base model; several heads share it."""
    return Reader(load(base))


def _head_of(model: NautileForSequenceClassification, known: dict[str, object]) -> Head:
    labels = tuple(str(model.config.id2label[n]) for n in range(model.config.num_labels))
    weight, bias = model.score.weight.detach().float().cpu(), model.score.bias.detach().float().cpu()
    fields = {"labels": labels, "kind": "single", **known}
    return Head(weight_CD=weight, bias_C=bias, **fields)  # type: ignore[arg-type]


def _adapted(place: Path, known: dict[str, object]) -> PreTrainedModel:
    """The base with the adapter merged into it."""
    try:
        from peft import PeftModel
    except ModuleNotFoundError:
        raise NautileError(f'{place}: an adapter needs peft: pip install "nautile[finetune]"') from None
    config = json.loads((place / "adapter_config.json").read_text(encoding="utf-8"))
    base = str(config.get("base_model_name_or_path") or BASE)
    labels = known["labels"]
    assert isinstance(labels, tuple)
    model = with_labels(base, labels)
    try:
        merged = PeftModel.from_pretrained(model, str(place)).merge_and_unload()
    except (ValueError, RuntimeError, KeyError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise NautileError(f"{place}: the adapter does not fit {base} ({reason})") from None
    return merged.eval()


def with_labels(
    base: str, labels: tuple[str, ...], dtype: torch.dtype = torch.float32
) -> NautileForSequenceClassification:
    """A base model with a fresh `score` layer for `labels`.

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
        }
    )
    fresh = NautileForSequenceClassification(config).to(dtype)
    fresh.model.load_state_dict(backbone.state_dict())
    return fresh
