"""`nautile.finetune`: from labelled rows to a run folder."""

import inspect
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from nautile.errors import NautileError
from nautile.model.places import fingerprint, make_readable
from nautile.quiet import quiet as quiet_libraries
from nautile.tasks.evaluate.checks import check_folder
from nautile.tasks.extras import require
from nautile.tasks.finetune import folder as run_folder
from nautile.tasks.finetune.base import check_base, lasting
from nautile.tasks.finetune.options import Options, make_options, parameters
from nautile.tasks.finetune.split import Split, given_split, split_rows
from nautile.tasks.kinds import Array
from nautile.tasks.labelled import Labelled, Layout, read_labelled
from nautile.tasks.wording import few

NEEDED = ("accelerate", "matplotlib", "peft", "scipy", "yaml")


class _Trained(NamedTuple):
    logits_NC: Array
    training: Any
    notes: tuple[str, ...]


@quiet_libraries()
def finetune(
    data: Any = None,
    *,
    validation: Any = None,
    config: str | Path | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    **options: Any,
) -> Path:
    """Tune a model on labelled rows; the folder `output` then holds the model and all that is known of it.

    The same call on an unfinished folder goes on from its last checkpoint.

    Args:
        data: a DataFrame, the path of a CSV, TSV, JSONL or Parquet file, or a Hugging Face dataset.
        validation: rows to validate on, in the same ways; without it a share of `data` is kept back.
        config: a YAML file of options; those given here come first.
        overwrite: replace a run that is there; it is kept as OUTPUT.previous until the new one is finished.
        quiet: no progress bar, no summary on standard error.
        options: `output="folder"`, and any other field of `Options`: text, label, base, kind, labels, method, …

    Returns the folder; raises NautileError for data, options or a folder that cannot be used.
    """
    require("finetune", *NEEDED)
    chosen = _chosen(data, validation, config, options)
    folder = _folder(chosen, overwrite, quiet)
    split = _split(data, validation, chosen)
    lasts = chosen.model_copy(update={"base": lasting(chosen.base)})
    digest = fingerprint(lasts.base)
    known = run_folder.identity(lasts, split, digest)
    run_folder.check(folder, known, lasts.base, overwrite)
    from nautile.tasks.finetune.train import undisturbed

    with undisturbed():
        model = _loaded(lasts, split)
        with run_folder.begun(folder, chosen, known, overwrite):
            visible = not quiet and Console(stderr=True).is_terminal
            outcome = _run(model, lasts, digest, split, folder, visible)
    if not quiet:
        from nautile.tasks.finetune.summary import show

        show(outcome, folder)
    return folder


def _chosen(data: Any, validation: Any, config: str | Path | None, options: dict[str, Any]) -> Options:
    """The options; rows that are not in a file have no place among them, whatever the config says."""
    rows = {"data": data, "validation": validation}
    paths = {name: value for name, value in rows.items() if isinstance(value, str | Path)}
    chosen = make_options({**options, **paths}, config)
    return chosen.model_copy(update=dict.fromkeys(n for n in rows if rows[n] is not None and n not in paths))


def _folder(options: Options, overwrite: bool, quiet: bool) -> Path:
    """The folder of the run; raises NautileError for what can be refused before any row is read."""
    for name, switch in (("overwrite", overwrite), ("quiet", quiet)):
        if not isinstance(switch, bool):
            raise NautileError(f"{name} must be True or False, not {switch!r}")
    if options.output is None:
        raise NautileError("give a folder for the run: output=… (on the command line -o)")
    check_base(options.base)
    folder = Path(options.output)
    check_folder(folder)
    return folder


def _split(data: Any, validation: Any, options: Options) -> Split:
    data = options.data if data is None else data
    validation = options.validation if validation is None else validation
    if data is None:
        raise NautileError("give the labelled rows: a DataFrame, a file, or `data:` in the config")

    def read(source: Any, kind: Any, labels: Any) -> Labelled:
        layout = Layout(options.encoding, options.delimiter)
        return read_labelled(source, options.text, options.label, kind, labels, options.separator, layout=layout)

    rows = read(data, options.kind, options.labels)
    if options.out_of_scope is not None and options.out_of_scope not in rows.labels:
        raise NautileError(f"out_of_scope={options.out_of_scope!r} is not one of the labels: {few(rows.labels)}")
    if validation is None:
        return split_rows(rows, options.validation_share, options.seed)
    return given_split(rows, read(validation, rows.kind, rows.labels))


def _loaded(options: Options, split: Split) -> Any:
    """The reader that a head is put on, or the model to train, which has the layers that `targets` name."""
    if options.method == "head":
        from nautile.engine.reader import Reader
        from nautile.model.checkpoints import load

        return Reader(load(options.base))
    from nautile.tasks.finetune.lora import matched
    from nautile.tasks.finetune.model import trainable

    model = trainable(options.base, split.train.labels, options.seed, split.train.kind)
    if options.method == "lora":
        matched(model.model, options.targets)
    return model


def _run(model: Any, options: Options, base_digest: str, split: Split, folder: Path, visible: bool) -> Any:
    from nautile.tasks.finetune.card import write_card
    from nautile.tasks.finetune.outcome import head_json, make_outcome, write_files

    if options.method == "head":
        trained = _head(model, options, split, folder)
    else:
        trained = _model(model, options, split, folder, visible)
    notes = (*split.train.notes, *split.notes, *trained.notes)
    outcome = make_outcome(options, split, trained.logits_NC, trained.training, notes)
    write_files(outcome, folder)
    write_card(outcome, folder)
    run_folder.finish(folder, head_json(outcome, base_digest))
    return outcome


def _head(reader: Any, options: Options, split: Split, folder: Path) -> _Trained:
    from nautile.tasks.finetune.head_only import train_head
    from nautile.tasks.finetune.outcome import Training

    began = time.monotonic()
    head, logits_NC, history = train_head(reader, split, options)
    head.save_weights(folder)
    lines = "".join(json.dumps(record) + "\n" for record in history)
    (folder / "metrics.jsonl").write_text(lines, encoding="utf-8")
    notes = [] if head.words_SC is None else ["the head looks at a text's words as well as at its vector"]
    if head.neighbours is not None:
        notes.append("the head keeps its rows' vectors, and asks those nearest to a text (`neighbours: false`: not)")
    return _Trained(logits_NC, Training(history, seconds=time.monotonic() - began), tuple(notes))


def _model(model: Any, options: Options, split: Split, folder: Path, visible: bool) -> _Trained:
    from nautile.model.checkpoints import save
    from nautile.model.config import vocabulary_of
    from nautile.tasks.finetune.head_only import start_score
    from nautile.tasks.finetune.lora import adapt, whole
    from nautile.tasks.finetune.outcome import Training
    from nautile.tasks.finetune.samples import Samples
    from nautile.tasks.finetune.train import newest_checkpoint, train
    from nautile.tasks.finetune.validate import logits_of

    began = time.monotonic()
    went_on = newest_checkpoint(folder / run_folder.CHECKPOINTS)
    if went_on is None:
        start_score(model, split, options)
    samples = Samples(split.train, vocabulary_of(model.config), options.max_length)
    model, reach = adapt(model, options) if options.method == "lora" else (model, whole(model))
    found = train(model, split, samples, options, folder, visible)
    if options.method == "lora":
        model.save_pretrained(folder, save_embedding_layers=False)
        make_readable(folder)
    else:
        save(model, folder)
    notes = list(reach.lines())
    if samples.cut:
        notes.append(f"{samples.cut:,} of {len(samples):,} texts were cut to {options.max_length} tokens in training")
    if went_on is not None:
        notes.append(f"the run was stopped; its minutes are those since {went_on.name}, from which it went on")
    training = Training(
        **found,
        seconds=time.monotonic() - began,
        weights=reach.weights,
        training_weights=reach.training,
        adapted_share=reach.adapted_share,
    )
    empty = np.zeros((0, len(split.valid.labels)))
    logits_NC = logits_of(model, split.valid.texts) if split.valid.texts else empty
    return _Trained(logits_NC, training, tuple(notes))


_OWN = [p for p in inspect.signature(finetune).parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
_NAMES = {parameter.name for parameter in _OWN}
finetune.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [*_OWN, *(parameter for parameter in parameters() if parameter.name not in _NAMES)], return_annotation=Path
)
