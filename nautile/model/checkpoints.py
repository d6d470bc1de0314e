"""Checkpoints by name: the one that ships, a folder, the released weights, or a repository on the Hugging Face hub."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import logging as hub_logging
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedModel,
)
from transformers.utils import logging

from nautile.errors import NautileError, first_line
from nautile.model.config import NautileConfig, vocabulary_of
from nautile.model.heads import (
    NautileForCausalLM,
    NautileForSequenceClassification,
    NautileForTokenClassification,
)
from nautile.model.model import NautileModel
from nautile.model.places import check_new, locate, make_readable, part_at, read_config
from nautile.model.released import from_released, is_released
from nautile.model.tokenizer import NautileTokenizer

LANGUAGE = "language"
HEADS: dict[str, type[PreTrainedModel]] = {
    "NautileForCausalLM": NautileForCausalLM,
    "NautileForSequenceClassification": NautileForSequenceClassification,
    "NautileForTokenClassification": NautileForTokenClassification,
    "NautileModel": NautileModel,
}


def register() -> None:
    """Make the Auto classes, `pipeline` and `Trainer` of transformers know Nautile."""
    AutoConfig.register("nautile", NautileConfig, exist_ok=True)
    AutoModel.register(NautileConfig, NautileModel, exist_ok=True)
    AutoModelForCausalLM.register(NautileConfig, NautileForCausalLM, exist_ok=True)
    AutoModelForSequenceClassification.register(NautileConfig, NautileForSequenceClassification, exist_ok=True)
    AutoModelForTokenClassification.register(NautileConfig, NautileForTokenClassification, exist_ok=True)
    AutoTokenizer.register(NautileConfig, NautileTokenizer, exist_ok=True)


def load(
    model: str | Path = "nautile-mini",
    dtype: torch.dtype = torch.float32,
    *,
    revision: str | None = None,
    token: str | None = None,
) -> PreTrainedModel:
    """The model itself, with the head it was saved with, in evaluation mode.

    Args:
        model: "nautile-mini", a folder written by `save_pretrained`, the released weights, or a hub id.
        dtype: of the parameters.
        revision: branch, tag or commit of a hub repository.
        token: for a private hub repository.

    Raises:
        NautileError: an unknown model, a damaged file, or tensors that do not fit, each one named.
    """
    place = locate(model)
    if Path(place).exists() and is_released(Path(place)):
        return from_released(Path(place)).to(dtype)
    if (part := part_at(Path(place))) is not None:
        raise NautileError(f"{place}: holds {part}, no whole model; nautile.classify(texts, model=…) takes it")
    if (own := Path(place) / "config.json").is_file() and (kind := read_config(own).get("model_type")) != "nautile":
        raise NautileError(f"{place}: holds a model of type {kind!r}, not a Nautile checkpoint")
    options = {"revision": revision or "main", "token": token}
    try:
        with without_bars():
            config = NautileConfig.from_pretrained(place, **options)
        head = HEADS.get((config.architectures or ["NautileForCausalLM"])[0])
        if head is None:
            raise NautileError(f"{place}: architecture {config.architectures} is not one of {', '.join(HEADS)}")
        with without_bars():
            loaded, info = head.from_pretrained(
                place, config=config, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, **options
            )
    except (SafetensorError, HfHubHTTPError, HFValidationError, OSError, RuntimeError) as error:
        reason = first_line(error)
        raise NautileError(f"{place}: cannot be loaded ({reason})") from None
    problems = [f"{kind.removesuffix('_keys')} {key}" for kind, keys in info.items() for key in sorted(map(str, keys))]
    if problems:
        raise NautileError(f"{place}: its tensors do not fit the configuration: {'; '.join(problems)}")
    return loaded.eval()


@contextmanager
def without_bars() -> Iterator[None]:
    """Without transformers' bar for the few tensors of a checkpoint, and without the hub's report of each try."""
    shown, verbosity = logging.is_progress_bar_enabled(), hub_logging.get_verbosity()
    logging.disable_progress_bar()
    hub_logging.set_verbosity_error()
    try:
        yield
    finally:
        hub_logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()


def convert(source: Path, output: Path) -> NautileForCausalLM:
    """Write the released weights as a checkpoint folder of ours, with its tokenizer."""
    if not is_released(source) and source.exists():
        ours = (own := source / "config.json").is_file() and read_config(own).get("model_type") == "nautile"
        hint = "it is a checkpoint of ours and needs no conversion" if ours else "give the released file or its folder"
        raise NautileError(f"{source}: not in the released layout; {hint}")
    check_new(output)
    model = from_released(source)
    save(model, output)
    return model


def save(model: PreTrainedModel, folder: Path) -> None:
    """Write a checkpoint folder: configuration, weights, and the tokenizer that belongs to them."""
    with without_bars():
        model.save_pretrained(folder)
    make_readable(Path(folder))
    vocabulary = vocabulary_of(model.config)
    NautileTokenizer(vocabulary.layout, vocabulary.ranks).save_pretrained(folder)


class Nautile:
    """The language model of a checkpoint: `Nautile.from_pretrained("released.pt")`."""

    @staticmethod
    def from_pretrained(
        model: str | Path,
        dtype: torch.dtype = torch.float32,
        *,
        revision: str | None = None,
        token: str | None = None,
    ) -> NautileForCausalLM:
        """See `load`; where the backbone of a folder was trained for other tasks, as nautile-mini's, LANGUAGE in it.

        Raises:
            NautileError: as `load`, and for a checkpoint with another head.
        """
        own = Path(locate(model)) / LANGUAGE
        found = load(own if own.is_dir() else model, dtype, revision=revision, token=token)
        if not isinstance(found, NautileForCausalLM):
            raise NautileError(f"{model}: holds a {type(found).__name__}, no language model; nautile.load reads it")
        return found


register()
