"""Vectors of texts, each read once: within a call, and from call to call as long as the cache has room."""

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from nautile.errors import NautileError
from nautile.model.places import SHIPPED, Stamp, stamp
from nautile.quiet import quiet
from nautile.tasks.kinds import Array

CACHED_BYTES = 256 * 2**20

Vector = NDArray[np.float32]


class VectorCache:
    """The vectors that were used last, by text and the stamp of what read it; safe to share between threads."""

    def __init__(self, most_bytes: int = CACHED_BYTES) -> None:
        self.most_bytes = most_bytes
        self._kept: OrderedDict[tuple[Stamp, bytes], Vector] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0

    def find(self, base: Stamp, texts: Sequence[str]) -> dict[str, Vector]:
        """The vectors that are kept."""
        with self._lock:
            found = {text: vector for text in texts if (vector := self._kept.get(_key(base, text))) is not None}
            for text in found:
                self._kept.move_to_end(_key(base, text))
        return found

    def keep(self, base: Stamp, vectors: dict[str, Vector]) -> None:
        """Add, and drop what was not used for longest."""
        with self._lock:
            for text, vector in vectors.items():
                if _key(base, text) not in self._kept:
                    self._kept[_key(base, text)] = vector
                    self._bytes += vector.nbytes
            while self._bytes > self.most_bytes:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes


CACHE = VectorCache()


def absolute(base: str | Path) -> str:
    """The base by a name that holds in every working directory: a path as an absolute one, other names as they are."""
    there = str(base) not in SHIPPED and Path(base).exists()
    return str(Path(base).absolute()) if there else str(base)


def groups_of(texts: Sequence[str | None]) -> NDArray[np.int64]:
    """(N): a number for each text, the same at every call; equal where texts are equal, and where there are none."""
    return np.frombuffer(b"".join(_digest(text or "", 8) for text in texts), dtype=np.int64)


def read_vectors(base: str, texts: Sequence[str | None]) -> Vector:
    """(N,D) of unit mean square, by the base's reader; zeros for a row without text. Changed files are another base.

    Raises:
        NautileError: an unknown or damaged base.
    """
    with quiet():
        from nautile.tasks.heads.head import to_unit
        from nautile.tasks.heads.loading import base_reader

    files = stamp(base)
    reader = base_reader(base)
    distinct = list(dict.fromkeys(text for text in texts if text is not None))
    known = CACHE.find(files, distinct)
    if fresh := [text for text in distinct if text not in known]:
        read = dict(zip(fresh, to_unit(reader(fresh).vectors_ND).numpy(), strict=True))
        CACHE.keep(files, {text: vector.copy() for text, vector in read.items()})
        known |= read
    found = np.zeros((len(texts), reader.model.config.d_model), dtype=np.float32)
    for n, text in enumerate(texts):
        if text is not None:
            found[n] = known[text]
    return found


def read_names(base: str, classes: np.ndarray) -> Vector | None:
    """(C,D): vectors of what classes are called, means of several wordings; None unless all are texts with letters."""
    from nautile.tasks.zero_shot.labels import WORDINGS, spoken

    names = classes.tolist()
    if not all(isinstance(name, str) and any(map(str.isalpha, name)) for name in names):
        return None
    worded = [wording.format(spoken(name)) for name in names for wording in WORDINGS]
    found: Vector = read_vectors(base, worded).reshape(len(names), len(WORDINGS), -1).mean(axis=1)
    return found


def read_likeness(base: str) -> Array | None:
    """(D,D): turns vectors so that products are half their own, half the base's matching head's; None without a head.

    The head's say what texts are about, their own sentiment as well. Tried by hand, accuracy after 8 rows a class of
    Banking77's training split: .751 by their own, .766 by half of each, .769 by the head's; of SST-2's dev split: .787,
    .778, .728.
    """
    from nautile.tasks.zero_shot.judge import load_matching

    try:
        matching = load_matching(base)
    except NautileError:
        return None
    project_ED = matching.project.weight.detach().double().numpy()
    product_DD = project_ED.T @ project_ED
    D = len(product_DD)
    values_D, directions_DD = np.linalg.eigh((np.eye(D) + product_DD * D / np.trace(product_DD)) / 2)
    found: Array = directions_DD * np.sqrt(values_D) @ directions_DD.T
    return found


def read_words(base: str, texts: Sequence[str | None]) -> csr_array:
    """(N,S): which words each text holds (see `engine/words.py`), by the base's vocabulary; none without text."""
    with quiet():
        from nautile.engine.words import words_of
        from nautile.tasks.heads.loading import base_reader

    vocabulary = base_reader(base).vocabulary
    found_NS = words_of([text or "" for text in texts], vocabulary)
    return csr_array((found_NS.values().double().numpy(), found_NS.indices().numpy()), shape=tuple(found_NS.shape))


def _key(base: Stamp, text: str) -> tuple[Stamp, bytes]:
    return base, _digest(text, 16)


def _digest(text: str, size: int) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).digest()
