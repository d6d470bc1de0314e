"""The teacher's vectors of the gathered texts, computed once and kept: training then needs no teacher at its side.

python -m nautile.tasks.backbone.vectors RUN [--count 400000]      # resumes, and may run while training does
"""

import itertools
import json
import random
from bisect import bisect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from nautile.engine.memory import keep_pages
from nautile.model.vocabulary import Vocabulary
from nautile.tasks.backbone.teacher import WIDTH, Teacher

LONGEST = 200  # characters; longer texts have no vector (zeros stand in their place)
SHORT = 48  # characters: what may stand as a label
BLOCK = 2048
POOL = 16_384  # so many texts are compared to find some that are alike


class Vectors:
    """(n, width) in float16, one row for each of a list's first texts; n grows while the file is appended to."""

    def __init__(self, path: Path, width: int = WIDTH) -> None:
        self.path, self.width = path, width

    def __len__(self) -> int:
        return self.path.stat().st_size // (2 * self.width) if self.path.exists() else 0

    def __getitem__(self, rows: Sequence[int]) -> Tensor:
        """(len(rows), width), float32."""
        table = np.memmap(self.path, np.float16, "r", shape=(len(self), self.width))
        return torch.from_numpy(table[list(rows)]).float()

    def fill(self, texts: Sequence[str], teacher: Callable[[list[str]], Tensor]) -> None:
        """Go on to the last of the texts, with a progress bar."""
        with Progress(console=Console(stderr=True)) as bar:
            job = bar.add_task(self.path.name, total=len(texts), completed=len(self))
            while (done := len(self)) < len(texts):
                self.extend(texts[done : done + BLOCK], teacher)
                bar.update(job, completed=len(self))

    def extend(self, texts: Sequence[str], teacher: Callable[[list[str]], Tensor]) -> None:
        """Append the vectors of texts that follow those already there."""
        read = [row for row, text in enumerate(texts) if len(text) <= LONGEST]
        block = np.zeros((len(texts), self.width), np.float16)
        block[read] = teacher([texts[row] for row in read]).half().numpy()
        whole = len(self) * 2 * self.width
        with self.path.open("r+b" if self.path.exists() else "xb") as file:
            file.truncate(whole)  # half a row that a killed process left
            file.seek(whole)
            file.write(block.tobytes())


class Taught:
    """The texts that have a vector of the teacher's, by their number of tokens: batches need hardly any padding."""

    def __init__(self, texts: Sequence[str], vectors: Vectors, vocabulary: Vocabulary) -> None:
        known = texts[: len(vectors)]
        self.texts, self.vectors = texts, vectors
        self.lengths = [max(1, len(row)) for row in vocabulary.encode_batch(known)]
        self.rows = sorted((n for n, text in enumerate(known) if len(text) <= LONGEST), key=self.lengths.__getitem__)
        self.ends = list(itertools.accumulate(self.lengths[row] for row in self.rows))
        self.short = [row for row in self.rows if len(texts[row]) <= SHORT]

    def draw(self, tokens: int, rng: random.Random) -> tuple[list[str], Tensor]:
        """Texts of about one length, `tokens` in all, each text equally likely, and their vectors (N, width)."""
        around, count = self._around(tokens, len(self.rows) // 200, rng)
        return self.take(rng.sample(around, count))

    def draw_short(self, count: int, rng: random.Random) -> tuple[list[str], Tensor]:
        """Texts that may stand as labels, and their vectors."""
        return self.take(rng.sample(self.short, min(count, len(self.short))))

    def draw_near(self, labels: int, tokens: int, rng: random.Random) -> tuple[tuple[list[str], Tensor], ...]:
        """Texts that may stand as labels, near each other in meaning, and texts of about one length near them."""
        assert self.short, "no text is short enough for a label"
        pool = rng.sample(self.short, min(POOL, len(self.short)))
        near, vectors = self.take(self._nearest(pool, self.vectors[pool[:1]][0], labels, rng))
        around, count = self._around(tokens, min(POOL, len(self.rows) // 20), rng)
        return (near, vectors), self.take(self._nearest(around, vectors.mean(0), count, rng))

    def _around(self, tokens: int, reach: int, rng: random.Random) -> tuple[list[int], int]:
        """Some `reach` rows of about one length, a length as likely as it has tokens; how many make `tokens`."""
        middle = bisect(self.ends, rng.random() * self.ends[-1])
        count = max(2, min(len(self.rows), tokens // self.lengths[self.rows[middle]]))
        reach = max(4 * count, reach)
        start = max(0, min(middle - reach // 2, len(self.rows) - reach))
        around = self.rows[start : start + reach]
        return around, min(count, len(around))

    def _nearest(self, rows: Sequence[int], vector: Tensor, count: int, rng: random.Random) -> list[int]:
        """A random half of the rows that are nearest to the vector: `count` of them."""
        near = (self.vectors[rows] @ vector).topk(min(2 * count, len(rows))).indices.tolist()
        return [rows[n] for n in rng.sample(near, min(count, len(near)))]

    def take(self, rows: Sequence[int]) -> tuple[list[str], Tensor]:
        """The texts and vectors of rows."""
        return [self.texts[row] for row in rows], self.vectors[rows]


def main(
    run: Annotated[Path, typer.Argument(help="folder with texts.json: gets vectors.f16")],
    count: Annotated[int, typer.Option(help="how many of the texts, 0: all")] = 0,
    device: str = "cpu",
    encoder: Annotated[Path | None, typer.Option(help="folder of all-MiniLM-L6-v2, in place of the package")] = None,
) -> None:
    """Read the gathered texts with the teacher."""
    keep_pages()
    texts: list[str] = json.loads((run / "texts.json").read_text())[: count or None]
    Vectors(run / "vectors.f16").fill(texts, Teacher(encoder).to(device))


if __name__ == "__main__":
    typer.run(main)
