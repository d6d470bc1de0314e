"""Vectors of texts, each read once: within a call, and from call to call as long as the cache has room."""

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from threading import Lock

import numpy as np
from numpy.typing import NDArray

CACHED_BYTES = 256 * 2**20

Vector = NDArray[np.float32]


class VectorCache:
    """The vectors that were used last, by base and text; safe to share between threads."""

    def __init__(self, most_bytes: int = CACHED_BYTES) -> None:
        self.most_bytes = most_bytes
        self._kept: OrderedDict[tuple[str, bytes], Vector] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0

    def find(self, base: str, texts: Sequence[str]) -> dict[str, Vector]:
        """The vectors that are kept."""
        with self._lock:
            found = {text: vector for text in texts if (vector := self._kept.get(_key(base, text))) is not None}
            for text in found:
                self._kept.move_to_end(_key(base, text))
        return found

    def keep(self, base: str, vectors: dict[str, Vector]) -> None:
        """Add, and drop what was not used for longest."""
        with self._lock:
            for text, vector in vectors.items():
                if _key(base, text) not in self._kept:
                    self._kept[_key(base, text)] = vector
                    self._bytes += vector.nbytes
            while self._bytes > self.most_bytes:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes


CACHE = VectorCache()


def read_vectors(base: str, texts: Sequence[str | None]) -> Vector:
    """(N,D) with the base's reader; zeros for a row without text.

    Raises:
        NautileError: an unknown or damaged base.
    """
    from nautile.tasks.heads.loading import base_reader

    reader = base_reader(base)
    distinct = list(dict.fromkeys(text for text in texts if text is not None))
    known = CACHE.find(base, distinct)
    if fresh := [text for text in distinct if text not in known]:
        read = dict(zip(fresh, reader(fresh).vectors_ND.numpy(), strict=True))
        CACHE.keep(base, {text: vector.copy() for text, vector in read.items()})
        known |= read
    found = np.zeros((len(texts), reader.model.config.d_model), dtype=np.float32)
    for n, text in enumerate(texts):
        if text is not None:
            found[n] = known[text]
    return found


def _key(base: str, text: str) -> tuple[str, bytes]:
    return base, blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
