"""Judging models by name: built-in tasks, heads on a base, peft adapters, checkpoints with labels of their own."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel

from nautile.engine.reader import Reader
from nautile.errors import NautileError, first_line
from nautile.model.checkpoints import load
from nautile.model.heads import NautileForSequenceClassification
from nautile.model.places import Stamp, fingerprint, locate, stamp
from nautile.model.released import read_config
from nautile.quiet import quiet
from nautile.tasks.heads.folder import unfinished
from nautile.tasks.heads.head import Head, load_head, read_about
from nautile.tasks.heads.precision import convert, dtype_of, settled
from nautile.tasks.kinds import Kind
from nautile.tasks.question import BASE, check_device, check_precision, check_task

KEPT = 4  # models kept in memory
# What transformers calls the kinds of judgment: which loss it takes, and whether `pipeline` ends in a softmax.
PROBLEMS: dict[Kind, str] = {
    "single": "single_label_classification",
    "ordinal": "single_label_classification",
    "multi": "multi_label_classification",
}


def load_task(task: str, precision: str = "float32", device: str = "cpu") -> tuple[Reader, Head]:
    """A built-in task: its head, and the reader of the shared backbone, or of its own where it has one.

    Raises:
        NautileError: an unknown task.
    """
    check_task(task)
    return load_judging(Path(locate(BASE)) / "heads" / task, precision, device)


def load_judging(model: str | Path, precision: str = "float32", device: str = "cpu") -> tuple[Reader, Head]:
    """The reader and head of a fine-tuned folder (adapter, head or checkpoint), or of a checkpoint with labels.

    The backbone is in `precision` on `device`, the head in float32 on the CPU.

    Raises:
        NautileError: no such model, a damaged one, one without labels, or one whose base has changed.
    """
    check_precision(precision)
    check_device(device)
    return _load_judging(str(locate(model)), stamp(model), *settled(precision, device))


@lru_cache(maxsize=KEPT)
def _load_judging(model: str, stamp: Stamp, precision: str, device: str) -> tuple[Reader, Head]:
    place = Path(model)
    if unfinished(place):
        raise NautileError(f"{model}: an unfinished run of nautile finetune; its command, given again, goes on with it")
    if (place / "head.safetensors").is_file():
        head = load_head(place)
        base = str(head.about.get("base", BASE))
        _check_base(place, base, head.about)
        return base_reader(base, precision, device), head
    known = read_about(place) if (place / "head.json").is_file() else {}
    scored = _adapted(place, known) if (place / "adapter_config.json").is_file() else load(model)
    if not isinstance(scored, NautileForSequenceClassification):
        kind = type(scored).__name__
        raise NautileError(f"{model}: a {kind} has no labels: give some, a task, or the folder of a fine-tuned model")
    head = _head_of(scored, known)
    return _reader_in(precision, device, scored), head


def base_reader(base: str, precision: str = "float32", device: str = "cpu") -> Reader:
    """The reader of a base model; several heads share it as long as its files stay as they are."""
    check_precision(precision)
    check_device(device)
    return _base_reader(base, stamp(base), *settled(precision, device))


@lru_cache(maxsize=KEPT)
def _base_reader(base: str, stamp: Stamp, precision: str, device: str) -> Reader:
    return _reader_in(precision, device, load(base, dtype_of(precision)))


def _reader_in(precision: str, device: str, model: PreTrainedModel) -> Reader:
    reader = Reader(model)
    convert(reader.model, precision)
    reader.model.to(torch.device(device))
    return reader


def _check_base(place: Path, base: str, about: Mapping[str, Any]) -> None:
    """Raise NautileError where the base is not the one that the head or adapter was made on."""
    known = about.get("base_digest")
    if known and (found := fingerprint(base)) and found != known:
        raise NautileError(f"{place}: was made on other weights of {base} than those there now; fine-tune it again")


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
    _check_base(place, base, known["about"])
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
