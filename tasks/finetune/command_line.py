"""`nautile finetune`: every option is a flag; nothing heavy is imported before it runs."""

import inspect
from typing import Annotated, Any, Literal, get_args, get_origin

from typer import Argument, Option

from nautile.errors import Stopped
from nautile.tasks.finetune.options import Options
from nautile.tasks.names import named
from nautile.tasks.question import labels_from

_HELP = """Tune a model on labelled rows of your own.

The folder -o then holds the model, its figures on rows kept back, curves, a
confusion matrix and a model card. Use it with nautile classify --model FOLDER.

\b
Examples:
  nautile finetune tickets.csv -o tickets                columns text and label
  nautile finetune posts.jsonl -o posts --label topic --class-weights balanced
  nautile finetune stars.csv -o stars --kind ordinal --labels "bad, fair, good"
  nautile finetune tags.csv -o tags --kind multi --separator "|"
  nautile finetune tickets.csv -o quick --method head    a linear head, the model as it is
  nautile finetune --config tickets/config.yaml -o again --seed 1

Stopped? The same command goes on from the last checkpoint.
"""
_SHORT = {"output": "-o", "text": "-t", "label": "-l"}


def finetune(**given: Any) -> None:
    """Run `nautile finetune`; see `Options` for what its flags mean."""
    from nautile.tasks.finetune.run import finetune as run

    for name in ("data", "output", "config", "validation"):
        named(name, given[name])
    if given["labels"] is not None:
        given["labels"] = [label for part in given["labels"] for label in labels_from(part)]
    try:
        run(**given)
    except KeyboardInterrupt as stop:
        same = "the same command without --overwrite" if given["overwrite"] else "the same command"
        notes: list[str] = getattr(stop, "__notes__", [])
        raise Stopped("; ".join([f"{same} goes on from the last checkpoint", *notes])) from None


def _flag(name: str) -> inspect.Parameter:
    """The flag of an option; its default is None, so that a config file can tell what was given."""
    field = Options.model_fields[name]
    default = "" if field.default is None or isinstance(field.default, list) else f" (default: {field.default})"
    flag = name.replace("_", "-")
    negated = f"/--no-{flag}" if field.default is True else ""
    names = [f"--{flag}{negated}", *([_SHORT[name]] if name in _SHORT else [])]
    told = f"{field.description}".removesuffix(".") + f"{default}."
    option = Option(*names, help=told, metavar=_choices(field.annotation), show_default=False)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[_type(field.annotation), option]
    )


def _choices(annotation: Any) -> str | None:
    """The values of a choice, to be shown in place of a type."""
    parts = [annotation, *get_args(annotation)]
    literal = next((get_args(part) for part in parts if get_origin(part) is Literal), ())
    return "|".join([*literal, *(["true", "false"] if bool in parts[1:] else [])]) or None


def _type(annotation: Any) -> Any:
    """What typer is to parse; pydantic checks the rest."""
    parts = [part for part in get_args(annotation) if part is not type(None)] or [annotation]
    if list[str] in parts:
        return list[str] | None
    simple = next((part for part in (bool, int, float) if parts == [part]), str)
    return simple | None


_DATA = Argument(metavar="FILE", help="Labelled rows: CSV, TSV, JSONL or Parquet.", show_default=False)
_CONFIG = Option(metavar="FILE", help="YAML file of options; flags come before it.", show_default=False)
_OVERWRITE = Option("--overwrite", help="Replace a run that is in the folder.")
_QUIET = Option("--quiet", "-q", help="No progress bar, no summary.")
_KEYWORD = inspect.Parameter.KEYWORD_ONLY
finetune.__doc__ = _HELP
finetune.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [
        inspect.Parameter("data", _KEYWORD, default=None, annotation=Annotated[str | None, _DATA]),
        _flag("output"),
        inspect.Parameter("config", _KEYWORD, default=None, annotation=Annotated[str | None, _CONFIG]),
        *(_flag(name) for name in Options.model_fields if name not in ("data", "output")),
        inspect.Parameter("overwrite", _KEYWORD, default=False, annotation=Annotated[bool, _OVERWRITE]),
        inspect.Parameter("quiet", _KEYWORD, default=False, annotation=Annotated[bool, _QUIET]),
    ]
)
