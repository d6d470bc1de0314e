"""The configuration as transformers knows it: the architecture plus what a checkpoint's folder holds."""

from typing import Any, Self, cast

from transformers import PreTrainedConfig

from nautile.errors import NautileError
from nautile.model.architecture import Architecture, preset
from nautile.model.vocabulary import ALL_RANKS, CONTROLS, Layout, Vocabulary

TOKENIZER_LAYOUTS = ("nautile", "released")
POOLINGS = ("mean", "last")


class NautileConfig(Architecture, PreTrainedConfig):
    """Configuration of every Nautile model class.

    `tokenizer_layout` names how cl100k ranks become ids (see `vocabulary.py`); `pooling` says how a text's tokens
    become one vector for sequence classification: the mean over its tokens, or the last one's. `ranks` is how many
    ranks the vocabulary has; None: all of `vocab_size` but the 8 control ids, as before the embedding was resized.
    """

    model_type = "nautile"
    keys_to_ignore_at_inference = ["cache"]  # noqa: RUF012 - transformers declares it as a plain list
    attribute_map = {  # noqa: RUF012
        "hidden_size": "d_model",
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_heads",
        "num_key_value_heads": "num_kv_heads",
        "intermediate_size": "d_ff",
        "max_position_embeddings": "maxlen",
    }

    tokenizer_layout: str = "nautile"
    ranks: int | None = None
    pooling: str = "mean"
    use_cache: bool = True
    tie_word_embeddings: bool = True
    pad_token_id: int | None = 0
    eos_token_id: int | None = 1

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.check()
        for value, known, name in (
            (self.tokenizer_layout, TOKENIZER_LAYOUTS, "tokenizer_layout"),
            (self.pooling, POOLINGS, "pooling"),
        ):
            if value not in known:
                raise NautileError(f"model configuration: {name} must be one of {', '.join(known)}, not {value!r}")
        if self.ranks is not None and self.ranks + CONTROLS > self.vocab_size:
            raise NautileError(f"model configuration: {self.ranks} ranks leave no room for control ids")

    @property
    def vocabulary_ranks(self) -> int:
        """How many ranks of cl100k the vocabulary has."""
        if self.tokenizer_layout == "released":
            return ALL_RANKS
        return self.vocab_size - CONTROLS if self.ranks is None else self.ranks

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Self:
        """A named configuration, "nautile-mini" or "nautile-370m", with changes."""
        released = {"tokenizer_layout": "released", "eos_token_id": 100_282} if name == "nautile-370m" else {}
        return cls(**{**preset(name), **released, **changes})


def vocabulary_of(config: NautileConfig) -> Vocabulary:
    """The vocabulary that a model's ids belong to."""
    return Vocabulary(cast(Layout, config.tokenizer_layout), config.vocabulary_ranks)
