"""The vocabulary: the pieces of cl100k_base under the model's ids, offline and without a deep-learning framework.

cl100k_base (OpenAI's tiktoken) is a byte-level BPE whose merges are ordered by rank, so its first N ranks are
themselves a valid BPE under the same regular expression. The ranks file ships inside the package.

Text is always text here: a literal ``<|im_start|>`` in it becomes ordinary pieces. Control ids come only from
`Vocabulary.control` and `Vocabulary.render_chat`.
"""

import base64
import codecs
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Literal, get_args

import tiktoken

from nautile.errors import NautileError

Layout = Literal["nautile", "released"]

ALL_RANKS = 100_256
CONTROLS = 8  # ids before the first rank, in the layout "nautile"
WINDOW = 1024  # code points; at this length even the quadratic merge of old tiktoken releases is linear in the text

_ASSET = "cl100k_base.tiktoken"
_SHA256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
_MARKERS = ("<|im_start|>", "<|im_end|>", "<|think_start|>", "<|think_end|>")
_CONTROL: dict[Layout, dict[str, int]] = {
    "nautile": {"<|pad|>": 0, "<|endoftext|>": 1} | {marker: 2 + n for n, marker in enumerate(_MARKERS)},
    "released": {"<|pad|>": 0, "<|endoftext|>": 100_282} | {marker: 100_278 + n for n, marker in enumerate(_MARKERS)},
}
_FIRST_RANK: dict[Layout, int] = {"nautile": CONTROLS, "released": 1}
_RELEASED_SIZE = 100_300
_SURROGATE = re.compile("[\ud800-\udfff]")
_REPLACEMENT = "\ufffd"
_UNASSIGNED = _REPLACEMENT.encode()


def rows_of(layout: str, ranks: int) -> int:
    """How many rows of an embedding a vocabulary needs."""
    return _RELEASED_SIZE if layout == "released" else CONTROLS + ranks


@dataclass(frozen=True)
class Vocabulary:
    """Text to model ids and back; equal, hashable and cheap to pickle, its tables shared within a process.

    `layout` "nautile" (ours): 0 padding, 1 ``<|endoftext|>``, 2 ``<|im_start|>``, 3 ``<|im_end|>``,
    4 ``<|think_start|>``, 5 ``<|think_end|>``, 6 and 7 reserved, rank r at 8 + r.
    `layout` "released" (nautile-370m): rank r at 1 + r, 0 padding, the four markers at 100278 to 100281 and
    ``<|endoftext|>`` at 100282; only with all 100256 `ranks`.

    Raises NautileError for an unknown layout, a number of ranks that it cannot have, or a damaged ranks file.
    """

    layout: Layout = "nautile"
    ranks: int = 32_000

    def __post_init__(self) -> None:
        if self.layout not in get_args(Layout):
            raise NautileError(f"vocabulary layout {self.layout!r} is unknown: use 'nautile' or 'released'")
        if not isinstance(self.ranks, int) or not 256 <= self.ranks <= ALL_RANKS:
            raise NautileError(f"a vocabulary has 256 to {ALL_RANKS} ranks, not {self.ranks!r}")
        if self.layout == "released" and self.ranks != ALL_RANKS:
            raise NautileError(f"layout 'released' needs ranks={ALL_RANKS}, not {self.ranks}")

    @property
    def size(self) -> int:
        """Rows of the embedding: every id is below it, some below it are unassigned."""
        return rows_of(self.layout, self.ranks)

    @property
    def pad_id(self) -> int:
        """The id of padding, 0."""
        return self.control["<|pad|>"]

    @property
    def eos_id(self) -> int:
        """The id of ``<|endoftext|>``, which ends a document; an answer in a chat ends with ``<|im_end|>``."""
        return self.control["<|endoftext|>"]

    @property
    def control(self) -> Mapping[str, int]:
        """The control tokens' names and ids, padding among them."""
        return MappingProxyType(_CONTROL[self.layout])

    @property
    def pieces(self) -> Mapping[int, bytes]:
        """The bytes of every assigned id; a control id has those of its name."""
        return _pieces(self.layout, self.ranks)

    @property
    def encoding(self) -> tiktoken.Encoding:
        """The tiktoken encoding underneath, its token values the model's ids (not those of plain cl100k_base)."""
        return _encoding(self.layout, self.ranks)

    def encode(self, text: str) -> list[int]:
        """The ids of `text`; none of them is a control id.

        Surrogates (a Python string may hold them, UTF-8 may not) are read as U+FFFD, one each, so that
        ``decode(encode(text)) == text`` for every text without surrogates.

        tiktoken's time and stack may grow with the square of an unbroken run, so a text of more than `WINDOW`
        code points is encoded window by window. A window ends at its last place where cl100k's regular expression
        must break anyway, which leaves the ids unchanged; only where it has none (1024 letters, spaces or symbols
        without a break) does it end in the middle of the run.
        """
        encode = self.encoding.encode_ordinary
        return [i for window in _windows(without_surrogates(text)) for i in encode(window)]

    def encode_batch(self, texts: Iterable[str], num_threads: int | None = None) -> list[list[int]]:
        """`encode` for each text, in order, on `num_threads` threads (all processors, at most 8, if None)."""
        texts = list(texts)
        threads = min(num_threads or min(8, os.cpu_count() or 1), max(1, len(texts)))
        if threads == 1:
            return [self.encode(text) for text in texts]
        share = -(-len(texts) // threads)
        shares = [texts[start : start + share] for start in range(0, len(texts), share)]
        with ThreadPoolExecutor(threads) as pool:
            return [ids for done in pool.map(self._encode_all, shares) for ids in done]

    def _encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids of `text` and for each the code points ``text[start:end]`` that hold its bytes.

        The spans cover the text without a gap; those of ids that share a character overlap in it.
        """
        ids = self.encode(text)
        return ids, self.decode_offsets(ids)[1]

    def decode(self, ids: Iterable[int], skip_control: bool = False) -> str:
        """The text of `ids`, whatever they are: never raises for an integer.

        Bytes that are not UTF-8 (half a character) and unassigned ids become U+FFFD. Control ids become their
        names, or nothing with `skip_control`.
        """
        pieces = self.pieces
        hidden = frozenset(self.control.values()) if skip_control else frozenset()
        parts = [pieces.get(i, _UNASSIGNED) for i in map(int, ids) if i not in hidden]
        return b"".join(parts).decode("utf-8", "replace")

    def decode_offsets(self, ids: Iterable[int]) -> tuple[str, list[tuple[int, int]]]:
        """`decode(ids)` and for each id the span (start, end) of its code points in that text."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        pieces, parts, spans, end = self.pieces, [], [], 0
        for i in map(int, ids):
            part = decoder.decode(pieces.get(i, _UNASSIGNED))
            start, end = end, end + len(part)
            unfinished = bool(decoder.getstate()[0])
            spans.append((start, end + unfinished))
            parts.append(part)
        parts.append(decoder.decode(b"", final=True))
        return "".join(parts), spans

    def render_chat(self, query: str, reasoning: str | None = None, answer: str | None = None) -> list[int]:
        """The ids of one turn in the released template, markers as control ids, contents as plain text.

        Without an answer it is the prompt for generation and ends after ``<|im_start|>assistant\\n<|think_start|>``.
        Raises NautileError for reasoning without an answer.
        """
        if answer is None and reasoning is not None:
            raise NautileError("render_chat has reasoning but no answer: pass both, or neither to generate them")
        start, end, think, thought = (self.control[marker] for marker in _MARKERS)
        prompt = [start, *self.encode(f"user\n{query}\n"), end, start, *self.encode("assistant\n"), think]
        if answer is None:
            return prompt
        return [*prompt, *self.encode(reasoning or ""), thought, *self.encode(f"\n{answer}\n"), end]


def without_surrogates(text: str) -> str:
    """`text` with U+FFFD for each surrogate, so that code point offsets stay."""
    return text if text.isascii() else _SURROGATE.sub(_REPLACEMENT, text)


def _windows(text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > WINDOW:
        end = start + WINDOW
        end = next((i for i in range(end, start, -1) if _breaks(text[i - 1], text[i])), end)
        yield text[start:end]
        start = end
    yield text[start:]


def _breaks(before: str, after: str) -> bool:
    """Whether no match of cl100k's expression, in any text, spans these two neighbouring characters."""
    return (
        (before.isalpha() and not after.isalpha())
        or (after == " " and not before.isspace())
        or (before == "\n" and not after.isspace())
    )


@cache
def _merges(ranks: int) -> list[bytes]:
    """The bytes of cl100k_base's first pieces in the order of their ranks, from the shipped file."""
    file = resources.files("nautile") / "assets" / _ASSET
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise NautileError(f"nautile/assets/{_ASSET} is missing: install nautile again") from None
    if hashlib.sha256(content).hexdigest() != _SHA256:
        raise NautileError(f"nautile/assets/{_ASSET} is damaged (sha256 differs): install nautile again")
    return [base64.b64decode(line.split()[0]) for line in content.splitlines()[:ranks]]


@cache
def _pieces(layout: Layout, ranks: int) -> Mapping[int, bytes]:
    names = {i: name.encode() for name, i in _CONTROL[layout].items()}
    return MappingProxyType(names | dict(enumerate(_merges(ranks), _FIRST_RANK[layout])))


@cache
def _encoding(layout: Layout, ranks: int) -> tiktoken.Encoding:
    return tiktoken.Encoding(
        f"nautile-{layout}-{ranks}",
        pat_str=_PATTERN,
        mergeable_ranks={piece: i for i, piece in enumerate(_merges(ranks), _FIRST_RANK[layout])},
        special_tokens=_CONTROL[layout],
    )
