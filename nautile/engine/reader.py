"""Texts to vectors: in batches of alike lengths, long ones in windows, alone or after a prefix."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nautile.engine.ahead import ahead
from nautile.engine.batching import batches, pad_right, token_budget, windows
from nautile.engine.prefix import Prefix, continued
from nautile.engine.prefixes import Prefixes
from nautile.engine.words import words_of
from nautile.errors import NautileError, first_line
from nautile.model.backbone import Backbone
from nautile.model.config import vocabulary_of
from nautile.model.pooling import pool

WINDOW_TOKENS = 128
BLOCK = 1024  # texts that are sorted by length; meanwhile the next ones are encoded
PREFIX_TOKENS = 16_384  # most that the rows of a batch continue from: attention's keys and values are copied for each


class Vectors(NamedTuple):
    """What was read: vectors (N,D) in float32, the number of windows of each text, and all tokens processed.

    Where words were asked for they are there as well, a sparse (N,S).
    """

    vectors_ND: Tensor
    windows: list[int]
    tokens: int
    words_NS: Tensor | None = None


class Reader:
    """Read texts with a backbone.

    A text of more than `window` tokens is read in even windows; their vectors are averaged, weighted by length.
    `prefixes` keeps what texts may continue from, and counts how often they do.
    """

    def __init__(self, model: nn.Module, window: int = WINDOW_TOKENS, batch_tokens: int | None = None) -> None:
        backbone = model if isinstance(model, Backbone) else getattr(model, "model", None)
        if not isinstance(backbone, Backbone):
            raise NautileError(f"a {type(model).__name__} cannot be read with: give a Nautile model")
        self.model = backbone.eval()
        self.prefixes = Prefixes(self.model)
        self.vocabulary = vocabulary_of(backbone.config)
        self.window, self.batch_tokens = window, batch_tokens  # None: by the device

    def __call__(
        self,
        texts: Sequence[str],
        prefix: Prefix | Sequence[Prefix] | None = None,
        finished: Callable[[int], None] = lambda index: None,
        words: bool = False,
    ) -> Vectors:
        """The vectors of `texts`, in their order; `finished` gets the index of each text that is done.

        Args:
            texts: any texts; an empty one has no window, and zero for a vector.
            prefix: what all texts continue from, or one prefix a text; a batch may hold texts after several of them.
            finished: is called once for each text that has a window.
            words: also which words each text holds (see `words.py`).

        Raises:
            NautileError: another number of prefixes than of texts.
        """
        prefixes = _one_each(prefix, len(texts))
        blocks = [slice(start, start + BLOCK) for start in range(0, len(texts), BLOCK)]
        encoded = self._encoded(texts, blocks)
        parts = [self._read([], [], 0, finished)]  # all there is where there are no texts
        for block, ids in zip(blocks, ahead(encoded) if len(blocks) > 1 else encoded, strict=True):
            parts.append(self._read(ids, prefixes[block], block.start, finished))
        vectors, counts, tokens = zip(*parts, strict=True)
        words_NS = torch.cat([words_of(texts[b], self.vocabulary) for b in (slice(0), *blocks)]) if words else None
        return Vectors(torch.cat(vectors), list(itertools.chain(*counts)), sum(tokens), words_NS)

    def _read(
        self, ids: list[list[int]], prefixes: list[Prefix], first: int, finished: Callable[[int], None]
    ) -> tuple[Tensor, list[int], int]:
        """Vectors, numbers of windows and all tokens of the texts that `ids` hold; the first has the index `first`."""
        counts = [len(windows(len(row), self.window)) for row in ids]
        spans = [(text, part) for text, row in enumerate(ids) for part in windows(len(row), self.window)]
        left = list(counts)
        total_ND = torch.zeros(len(ids), self.model.config.d_model, dtype=torch.float64)
        most = PREFIX_TOKENS // max((prefix.tokens for prefix in prefixes), default=1)
        tokens = self.batch_tokens or token_budget(self.model.config, self.model.device)
        for group in batches([end - start for _, (start, end) in spans], tokens, max(1, most)):
            texts = [spans[index][0] for index in group]
            rows = [ids[text][slice(*spans[index][1])] for index, text in zip(group, texts, strict=True)]
            weighted_BD = self._pooled(rows, [prefixes[text] for text in texts] if prefixes else [])
            total_ND.index_add_(0, torch.tensor(texts), weighted_BD * torch.tensor([[len(row)] for row in rows]))
            for text in texts:
                left[text] -= 1
                if not left[text]:
                    finished(first + text)
        self.prefixes.note(itertools.compress(prefixes, counts))
        lengths_N = torch.tensor([max(1, len(row)) for row in ids]).reshape(-1, 1)
        return (total_ND / lengths_N).float(), counts, sum(map(len, ids))

    def _encoded(self, texts: Sequence[str], blocks: Sequence[slice]) -> Iterator[list[list[int]]]:
        """The ids of each block's texts; a text is encoded once, and its ids are kept as long as blocks need them."""
        needed = Counter(text for block in blocks for text in set(texts[block]))
        known: dict[str, list[int]] = {}
        for block in blocks:
            distinct = dict.fromkeys(texts[block])
            fresh = [text for text in distinct if text not in known]
            known.update(zip(fresh, self.vocabulary.encode_batch(fresh, torch.get_num_threads()), strict=True))
            yield [known[text] for text in texts[block]]
            needed.subtract(list(distinct))
            for text in distinct:
                if not needed[text]:
                    del known[text]

    def _pooled(self, rows: list[list[int]], prefixes: list[Prefix]) -> Tensor:
        """(B,D); where the device has no memory for so many rows at once, in halves. NautileError: not for one."""
        try:
            return self._pooled_at_once(rows, prefixes)
        except torch.OutOfMemoryError as error:
            if len(rows) == 1:
                device, reason = self.model.device, first_line(error)
                raise NautileError(
                    f"{device} has no memory for a text of {len(rows[0])} tokens: {reason}; read on the CPU"
                ) from None
        torch.cuda.empty_cache()
        half = len(rows) // 2
        parts = [(rows[:half], prefixes[:half]), (rows[half:], prefixes[half:])]
        return torch.cat([self._pooled(*part) for part in parts])

    @torch.inference_mode()
    def _pooled_at_once(self, rows: list[list[int]], prefixes: list[Prefix]) -> Tensor:
        ids_BL, mask_BL = (part.to(self.model.device) for part in pad_right(rows))
        state = continued(prefixes) if prefixes else None
        hidden_BLD = self.model(ids_BL, mask_BL, cache=state).last_hidden_state
        return pool(hidden_BLD.float(), mask_BL, self.model.config.pooling).double().cpu()


def _one_each(prefix: Prefix | Sequence[Prefix] | None, texts: int) -> list[Prefix]:
    """A prefix for each text, or none at all."""
    if prefix is None:
        return []
    prefixes = [prefix] * texts if isinstance(prefix, Prefix) else list(prefix)
    if len(prefixes) != texts:
        raise NautileError(f"{len(prefixes)} prefixes for {texts} texts: give one for all of them, or one for each")
    return prefixes
