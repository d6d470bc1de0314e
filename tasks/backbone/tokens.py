"""What the layers start from: token vectors fitted alone, thousands of texts a second."""

import random

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.optim import Adam, SparseAdam
from torch.optim.lr_scheduler import LambdaLR

from nautile.tasks.backbone.objectives import LONGEST, Student, match
from nautile.tasks.backbone.vectors import Taught

BATCH = 512  # texts
TOKEN_RATE, PROJECTION_RATE = 1e-2, 1e-3
STREAM = 4.0  # times larger at the end: norms undo it, and what untrained layers add to the stream weighs less


def read_tokens(student: Student, texts: list[str]) -> Tensor:
    """Pooled texts (B,D) of a backbone whose layers add nothing: what `Student.read` gives at the beginning."""
    rows = [row[:LONGEST] or [student.vocabulary.eos_id] for row in student.vocabulary.encode_batch(texts)]
    device = student.backbone.device
    ids_N = torch.tensor([token for row in rows for token in row], device=device)
    starts_B = torch.tensor([0, *(len(row) for row in rows[:-1])], device=device).cumsum(0)
    vectors_ND = student.backbone.norm(student.backbone.embed_tokens(ids_N))
    return torch.segment_reduce(vectors_ND, "mean", offsets=torch.cat([starts_B, starts_B.new_tensor([len(ids_N)])]))


def fit_tokens(student: Student, taught: Taught, passes: int, seed: int) -> None:
    """Bring the means of token vectors close to the teacher's vectors: `passes` over all texts, with a progress bar."""
    rng = random.Random(seed)
    table, projection = student.backbone.embed_tokens, student.matching.project
    table.sparse = True
    optimizers = [SparseAdam(table.parameters(), TOKEN_RATE), Adam(projection.parameters(), PROJECTION_RATE)]
    steps = max(1, passes * len(taught.rows) // BATCH)
    schedules = [LambdaLR(optimizer, lambda step: 1 - step / steps) for optimizer in optimizers]
    for _ in track(range(steps), "token vectors", console=Console(stderr=True)):
        texts, vectors = taught.take(rng.sample(taught.rows, min(BATCH, len(taught.rows))))
        loss = match(student.matching.embed(read_tokens(student, texts)), vectors.to(student.backbone.device))
        loss.backward()
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        student.zero_grad()
    table.weight.data.mul_(STREAM)
