"""What a fine-tuning run is made of: one model that is the keywords, the flags and the YAML file."""

import difflib
import inspect
from collections.abc import Iterable, Mapping, Set
from numbers import Real
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from nautile.errors import NautileError
from nautile.tasks.question import labels_from

LEARNING_RATES = {"lora": 2e-3, "full": 5e-4}
USUAL_EPOCHS, MOST_EPOCHS, USUAL_UPDATES = 8, 40, 600
ADAPTERS = ("rank", "alpha", "dropout", "targets")
TRAINING = (
    "epochs", "learning_rate", "batch_size", "accumulate", "max_length", "warmup", "weight_decay", "patience",
    "bf16", "gradient_checkpointing", "evaluate_every", "save_every",
)  # fmt: skip
# The options that a method has no use for.
HEADS = ("refit", "neighbours")
UNUSED = {"lora": HEADS, "full": (*ADAPTERS, *HEADS), "head": (*ADAPTERS, *TRAINING)}
TARGETS = ("in_proj", "gate_proj", "out_proj", "q_proj", "k_proj", "v_proj", "ff_in", "ff_out")


class Options(BaseModel):
    """The options of `finetune`; the defaults suit nautile-mini and a few hundred to some ten thousand rows."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    data: str | None = Field(None, description="File of labelled rows: CSV, TSV, JSONL or Parquet.")
    output: str | None = Field(None, description="Folder of the run.")
    text: str = Field("text", description="Column of texts.")
    label: str = Field("label", description="Column of labels (or `labels`, where that is there instead).")
    separator: str = Field(";", min_length=1, description="Between the labels of a cell, for multi.")
    encoding: str = Field("utf-8", min_length=1, description="Encoding of the text files, data and validation alike.")
    delimiter: str | None = Field(None, description="Between the cells of a CSV line (default: as the suffix says).")
    base: str = Field("nautile-mini", min_length=1, description="Model to start from: a name, folder or hub id.")
    kind: Literal["single", "ordinal", "multi"] | None = Field(
        None, description="One label a text, one of an ordered scale, or any number (default: as the data looks)."
    )
    labels: list[str] | None = Field(
        None,
        description="All labels in order, lowest first (a must for ordinal): comma-separated, or a .json or .txt file.",
    )
    out_of_scope: str | None = Field(None, description="The label that means: none of the others.")
    validation: str | None = Field(None, description="File of rows to validate on (default: a share of the data).")
    validation_share: float | None = Field(
        None, ge=0, lt=1, description="Share of the rows to validate on (default: 0.1, of few rows 20 or more)."
    )
    method: Literal["lora", "full", "head"] = Field("lora", description="What trains: an adapter, all, the head only.")
    refit: bool = Field(
        False,
        description="head: in the end learn from the validation rows too; figures are cross-fitted, but multi's F1.",
    )
    neighbours: bool = Field(
        True, description="head: it may keep its rows' vectors, and ask those nearest to a text, where that helps."
    )
    rank: int = Field(16, ge=1, description="Rank of the LoRA matrices.")
    alpha: float = Field(32.0, gt=0, description="LoRA updates are scaled by alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the LoRA matrices.")
    targets: list[str] = Field(
        list(TARGETS), min_length=1, description="Linear layers that LoRA adapts (default: those of every block)."
    )
    epochs: int | None = Field(None, ge=1, description="Passes over the data, at most (default: 8; more for few rows).")
    learning_rate: float | None = Field(None, gt=0, description="Highest learning rate (default: by method).")
    batch_size: int = Field(32, ge=1, description="Texts a step on each device.")
    accumulate: int = Field(1, ge=1, description="Steps whose gradients are added up before an update.")
    max_length: int = Field(128, ge=1, description="Tokens of a text to train on; the rest is cut.")
    warmup: float = Field(0.06, ge=0, lt=1, description="Share of the updates in which the learning rate rises.")
    weight_decay: float = Field(0.01, ge=0, description="Of AdamW, on matrices.")
    monitor: Literal["macro_f1", "log_loss"] = Field("macro_f1", description="What picks the best checkpoint.")
    patience: int = Field(5, ge=0, description="Validations without a better one before it stops; 0: never stop early.")
    class_weights: Literal["balanced", "none"] = Field("none", description="Weigh rare labels up, or not.")
    bf16: bool | Literal["auto"] = Field("auto", description="bfloat16 arithmetic; auto: where it is fast.")
    gradient_checkpointing: bool = Field(False, description="Less memory for more time.")
    seed: int = Field(0, ge=0, lt=2**32, description="Of the split, the start and the order.")
    evaluate_every: int | None = Field(None, ge=1, description="Updates between validations (default: an epoch).")
    save_every: int | None = Field(None, ge=1, description="Updates between checkpoints (default: each validation).")

    @field_validator("targets", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """Names may be parted by commas."""
        parts = [value] if isinstance(value, str) else value
        if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
            return value
        return [name.strip() for part in parts for name in part.split(",") if name.strip()]

    @field_validator("labels", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        """One text is a list as the command line takes it; numbers are labels too, true and false are not."""
        found = labels_from(value) if isinstance(value, str) else value
        if isinstance(found, Set):
            raise ValueError("a set has no order; give a list")
        if not isinstance(found, Iterable):
            return value
        return [_named(label) for label in found]

    @field_validator("out_of_scope", mode="before")
    @classmethod
    def _as_label(cls, value: Any) -> Any:
        return _named(value)

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if self.kind == "ordinal" and self.labels is None:
            raise ValueError("ordinal needs labels, lowest first")
        fields = type(self).model_fields
        if idle := [name for name in UNUSED[self.method] if getattr(self, name) != fields[name].default]:
            raise ValueError(
                f"method {self.method} does not use {', '.join(idle)}; leave that out or choose another method"
            )
        return self

    def epochs_for(self, rows: int) -> int:
        """The passes over so many rows; where none are given, enough for some hundred updates."""
        if self.epochs is not None:
            return self.epochs
        return min(MOST_EPOCHS, max(USUAL_EPOCHS, round(USUAL_UPDATES * self.batch_size * self.accumulate / rows)))

    @property
    def rate(self) -> float:
        """The learning rate, by method where none is given; a head alone is fitted without one."""
        return LEARNING_RATES.get(self.method, 0.0) if self.learning_rate is None else self.learning_rate


def _named(label: Any) -> Any:
    """A number by the name that it has as a label; what cannot be one stays for pydantic to refuse."""
    from nautile.tasks.labelled import label_name

    if isinstance(label, bool):
        raise ValueError(f"{label} is no text; in quotes it is one (YAML reads yes and no as true and false)")
    return label_name(label) if isinstance(label, Real) and label == label else label


def make_options(given: Mapping[str, Any], config: str | Path | None = None) -> Options:
    """The options of a YAML file, where there is one, and over them those `given` that are not None.

    Raises:
        NautileError: a file that cannot be read, an unknown option, a value that does not fit.
    """
    if not isinstance(config, str | Path | None):
        raise NautileError(f"config must be the path of a YAML file, not {config!r}")
    values = {} if config is None else _read(Path(config))
    given = {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
    given = {name: value for name, value in given.items() if value is not None}
    try:
        return Options.model_validate({**values, **given})
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0]) if problem["loc"] else ""
        where = f"{config}: " if config is not None and name in values and name not in given else ""
        raise NautileError(where + _explain(problem)) from None


def parameters() -> list[inspect.Parameter]:
    """Every option but `data` as a keyword, with its type and default."""
    return [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.annotation)
        for name, field in Options.model_fields.items()
        if name != "data"
    ]


def _explain(problem: ErrorDetails) -> str:
    name = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, Options.model_fields, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(Options.model_fields)}"
        return f"unknown option {name!r}; {hint}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{name}: {message}, not {problem['input']!r}" if name else message


def _read(path: Path) -> dict[str, Any]:
    from nautile.tasks.extras import require

    require("finetune", "yaml")
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            named = [name.value for name, _ in node.value] if isinstance(node, yaml.MappingNode) else []
            if twice := [name for n, name in enumerate(named) if name in named[:n]]:
                raise yaml.YAMLError(f"{twice[0]} stands twice")
            return super().construct_mapping(node, deep)

    try:
        found = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise NautileError(f"{path}: cannot be read as YAML ({reason})") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise NautileError(f"{path}: must hold options as `name: value` lines, not a {type(found).__name__}")
    return {str(name): value for name, value in found.items()}


def write_config(options: Options, path: Path) -> None:
    """Write the options as YAML that `make_options` reads back to the same ones."""
    import yaml

    header = "# The options of this run; nautile finetune --config takes this file.\n"
    path.write_text(
        header + yaml.safe_dump(options.model_dump(), sort_keys=False, allow_unicode=True), encoding="utf-8"
    )
