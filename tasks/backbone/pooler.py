"""The pooler's layers, fitted alone to what a backbone makes of texts now: thousands of texts a second.

The backbone reads each text once; then a step costs no more than these layers, and can take many texts. Sentiment is
learned along, so that they keep it.
"""

import random
from collections.abc import Callable, Sequence

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR

from nautile.tasks.backbone.heads.sentiment_data import Example
from nautile.tasks.backbone.objectives import Student, annotated, distance, judged_alike
from nautile.tasks.backbone.run import adamw
from nautile.tasks.backbone.tokens import read_once
from nautile.tasks.backbone.vectors import Taught

MOST = 80_000  # texts of a lesson
BATCH, JUDGED_BATCH = 1024, 256  # texts of a step: with vectors, with judgments or labels
RATE, WARMUP = 2e-3, 0.1  # at its highest; of the steps

Loss = Callable[[Tensor, list[int]], Tensor]


class Lesson:
    """Random texts as a backbone pools them; `loss` gets what becomes of some of them, and which these are."""

    def __init__(self, student: Student, texts: Sequence[str], batch: int, loss: Loss, rng: random.Random) -> None:
        self.rows = rng.sample(range(len(texts)), min(MOST, len(texts)))
        self.pooled_ND = read_once(student, [texts[row] for row in self.rows])
        self.batch, self.loss = min(batch, len(self.rows)), loss

    def __call__(self, student: Student, rng: random.Random) -> Tensor:
        """The loss of a random batch."""
        drawn = rng.sample(range(len(self.rows)), self.batch)
        vectors_BD = student.backbone.pooler.refine(self.pooled_ND[drawn].float())
        return self.loss(vectors_BD, [self.rows[n] for n in drawn])


def fit_pooler(
    student: Student, taught: Sequence[Taught], judged: Taught, examples: Sequence[Example], passes: int, seed: int
) -> None:
    """Teach the pooler's layers, and the heads with them, by the teacher's vectors and by sentiment."""
    rng = random.Random(seed)

    def of_vectors(known: Taught) -> Lesson:
        def loss(vectors_BD: Tensor, rows: list[int]) -> Tensor:
            wanted = known.vectors[[known.rows[row] for row in rows]]
            return distance(student.matching.embed(vectors_BD), wanted.to(vectors_BD.device))

        return Lesson(student, [known.texts[row] for row in known.rows], BATCH, loss, rng)

    def opinions(vectors_BD: Tensor, rows: list[int]) -> Tensor:
        return judged_alike(judged.vectors[[judged.rows[row] for row in rows]], student.sentiment(vectors_BD))

    def labels(vectors_BD: Tensor, rows: list[int]) -> Tensor:
        return annotated(student.sentiment(vectors_BD), [examples[row] for row in rows])

    vectors = [of_vectors(known) for known in taught]
    sentiment = [
        Lesson(student, [judged.texts[row] for row in judged.rows], JUDGED_BATCH, opinions, rng),
        Lesson(student, [example.text for example in examples], JUDGED_BATCH, labels, rng),
    ]
    learning = (student.backbone.pooler, student.matching, student.sentiment)
    optimizer = adamw([named for module in learning for named in module.named_parameters()], RATE)
    steps = max(1, passes * sum(len(lesson.rows) for lesson in vectors) // BATCH)
    schedule = OneCycleLR(optimizer, RATE, steps, pct_start=WARMUP, cycle_momentum=False)
    for _ in track(range(steps), "pooler", console=Console(stderr=True)):
        losses = [lesson(student, rng) for lesson in (rng.choice(vectors), *sentiment)]
        torch.stack(losses).sum().backward()
        optimizer.step()
        schedule.step()
        student.zero_grad()
