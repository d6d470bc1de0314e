"""The transformers face of the vocabulary: padding, truncation, tensors, chat templates, saving.

A literal control token in a user's text stays text everywhere: in ``tokenizer(text)`` and inside a chat. Only
`NautileTokenizer.apply_chat_template` writes control ids, where the template itself has them. For text whose control
tokens are to be trusted, such as a chat rendered before, say so: ``tokenizer(text, split_special_tokens=False)``.
"""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from transformers import AddedToken, PreTrainedTokenizer

from nautile.errors import NautileError
from nautile.model.vocabulary import Layout, Vocabulary, without_surrogates

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}
{{- '<|im_start|>user\\n' + message['content'] + '\\n<|im_end|>' -}}
{%- elif message['role'] == 'assistant' -%}
{{- '<|im_start|>assistant\\n<|think_start|>' + message.get('reasoning_content', '') -}}
{{- '<|think_end|>\\n' + message['content'] + '\\n<|im_end|>' -}}
{%- else -%}
{{- raise_exception("Nautile's chat has the roles user and assistant, not " + message['role']) -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n<|think_start|>' -}}
{%- endif -%}
"""

_FIRST_MARK = 0xD800


class NautileTokenizer(PreTrainedTokenizer):
    """`Vocabulary(layout, ranks)` as a transformers tokenizer; `vocabulary` is the one underneath.

    It adds nothing of its own to a text and pads on the left unless told otherwise. ``tokenizer_config.json`` keeps
    the layout and the number of ranks; the ranks themselves come with the package. Tokens cannot be added to it.
    Unassigned ids below `Vocabulary.size` are called ``<|unassigned_n|>``.

    Raises NautileError as `Vocabulary` does, and for a special token that the vocabulary does not have.
    """

    vocab_files_names: dict[str, str] = {}  # noqa: RUF012 - transformers declares it so
    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012
    padding_side = "left"

    def __init__(self, layout: Layout = "nautile", ranks: int = 32_000, **kwargs: Any) -> None:
        self.vocabulary = Vocabulary(layout, ranks)
        kwargs.pop("added_tokens_decoder", None)
        named = {"pad_token": "<|pad|>", "eos_token": "<|endoftext|>"}
        extra = [token for token in self.vocabulary.control if token not in named.values()]
        defaults = {"extra_special_tokens": extra, "chat_template": CHAT_TEMPLATE, "split_special_tokens": True}
        super().__init__(layout=layout, ranks=ranks, **(named | defaults | kwargs))

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding, unassigned ids included."""
        return self.vocabulary.size

    def get_vocab(self) -> dict[str, int]:
        """Every id below `vocab_size` by its token, bytes written in GPT-2's printable alphabet."""
        return dict(_ids(self.vocabulary))

    def tokenize(self, text: str, *, marked: bool = False, **kwargs: Any) -> list[str]:
        """The tokens of `text`; `marked` says that its control tokens stand there as marks."""
        if kwargs.get("return_offsets_mapping"):
            raise NautileError("return_offsets_mapping is not here: use tokenizer.vocabulary.encode_with_offsets(text)")
        if not marked:
            return super().tokenize(text, **kwargs)
        marks = {mark: token for token, mark in self._marks().items()}
        pieces = re.split(f"([{''.join(marks)}])", text)
        return [t for piece in pieces for t in ([marks[piece]] if piece in marks else self._tokenize(piece))]

    def apply_chat_template(
        self,
        conversation: list[dict[str, str]] | list[list[dict[str, str]]],
        tools: list[Any] | None = None,
        documents: list[dict[str, str]] | None = None,
        chat_template: str | None = None,
        *,
        tokenize: bool = True,
        tokenizer_kwargs: dict[str, Any] | None = None,
        sanitize_control_tokens: bool = True,
        **kwargs: Any,
    ) -> Any:
        """As in transformers, except that what callers pass in never becomes a control id.

        So `sanitize_control_tokens` is always on, whatever its value. With `tokenize` the template's own control
        tokens are swapped for marks before rendering: lone surrogates, which are taken out of everything that callers
        pass in (they would be U+FFFD in the ids anyway). A template that looks for a literal control token in the
        contents therefore finds none. Without `tokenize` the answer is a plain string in which the two can no longer
        be told apart.

        Raises NautileError for contents other than text, numbers, lists and dicts.
        """
        given = {"tools": tools, "documents": documents, "conversation": conversation, **kwargs}
        template = self.get_chat_template(chat_template, tools)
        if not tokenize:
            return super().apply_chat_template(**given, chat_template=template, tokenize=False)
        marks = self._marks()
        for token, mark in marks.items():
            template = template.replace(token, mark)
        named = {name: marks.get(token, token) for name, token in self.special_tokens_map.items()}
        given = named | {name: _without_marks(value) for name, value in given.items()}
        tokenizer_kwargs = {**(tokenizer_kwargs or {}), "marked": True}
        return super().apply_chat_template(**given, chat_template=template, tokenizer_kwargs=tokenizer_kwargs)

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """The text of `tokens`; U+FFFD for one that is not in the vocabulary."""
        return self.vocabulary.decode(_ids(self.vocabulary).get(token, -1) for token in tokens)

    def _marks(self) -> dict[str, str]:
        return {token: chr(_FIRST_MARK + n) for n, token in enumerate(self.vocabulary.control)}

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        tokens = _tokens(self.vocabulary)
        return [tokens[i] for i in self.vocabulary.encode(text)]

    def _convert_token_to_id(self, token: str) -> int | None:
        return _ids(self.vocabulary).get(token)

    def _convert_id_to_token(self, index: int) -> str:
        tokens = _tokens(self.vocabulary)
        return tokens[index] if 0 <= index < len(tokens) else f"<|unassigned_{index}|>"

    def _decode(
        self,
        token_ids: int | list[int],
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        **kwargs: Any,
    ) -> str:
        ids = [token_ids] if isinstance(token_ids, int) else token_ids
        text = self.vocabulary.decode(ids, skip_control=skip_special_tokens)
        return self.clean_up_tokenization(text) if clean_up_tokenization_spaces else text

    def _add_tokens(self, new_tokens: list[str] | list[AddedToken], special_tokens: bool = False) -> int:
        for token in map(str, new_tokens):
            if token not in self.vocabulary.control:
                known = ", ".join(self.vocabulary.control)
                raise NautileError(f"token {token!r} cannot be added, the vocabulary is fixed: use one of {known}")
        return super()._add_tokens(new_tokens, special_tokens)


def _without_marks(value: Any) -> Any:
    if isinstance(value, str):
        return without_surrogates(value)
    if isinstance(value, Mapping):
        return {_without_marks(key): _without_marks(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_marks(item) for item in value]
    if value is None or isinstance(value, int | float) or callable(value):
        return value
    raise NautileError(f"a chat holds text, numbers, lists and dicts, not a {type(value).__name__}")


def _alphabet() -> list[str]:
    """GPT-2's printable character for each byte: itself where printable, else the next one from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    substitutes = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(substitutes)) for byte in range(256)]


@cache
def _tokens(vocabulary: Vocabulary) -> list[str]:
    alphabet = _alphabet()
    tokens = [f"<|unassigned_{i}|>" for i in range(vocabulary.size)]
    for i, piece in vocabulary.pieces.items():
        tokens[i] = "".join(alphabet[byte] for byte in piece)
    return tokens


@cache
def _ids(vocabulary: Vocabulary) -> dict[str, int]:
    return {token: i for i, token in enumerate(_tokens(vocabulary))}
