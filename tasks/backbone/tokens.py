"""What the layers start from: the pairs that get vectors, and all vectors fitted alone, thousands of texts a second."""

import random
from collections.abc import Callable, Sequence

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.optim import Adam, SparseAdam
from torch.optim.lr_scheduler import LambdaLR

from nautile.engine.processor import fast_autocast
from nautile.model.pairs import NO_PAIR, NO_TOKEN, pair_keys
from nautile.tasks.backbone.objectives import LONGEST, Student, match
from nautile.tasks.backbone.vectors import Taught

BATCH, READ, BLOCK = 512, 128, 8192  # texts: of a step, read at once, encoded at once
MOST = 300_000  # texts that pairs are fitted on, where a backbone reads them
TOKEN_RATE, PROJECTION_RATE = 1e-2, 1e-3
HELD = 0.6  # of pairs fitted to few texts: on others less of each does as well, and leaves sentiment as it was
STREAM = 4.0  # times larger at the end: norms undo it, and what untrained layers add to the stream weighs less


def read_tokens(student: Student, texts: list[str]) -> Tensor:
    """Pooled texts (B,D) of a backbone whose layers add nothing: what `Student.read` gives at the beginning."""
    backbone = student.backbone

    def read(before_N: Tensor, ids_N: Tensor) -> Tensor:
        pairs = 0 if backbone.embed_pairs is None else backbone.embed_pairs(before_N, ids_N)
        vectors_ND: Tensor = backbone.norm(backbone.embed_tokens(ids_N) + pairs)
        return vectors_ND

    return _means(student, texts, read)


def _means(student: Student, texts: Sequence[str], read: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """(B,D): the mean over each text's tokens of what `read` makes of the ids before them and their own."""
    rows = [row[:LONGEST] or [student.vocabulary.eos_id] for row in student.vocabulary.encode_batch(texts)]
    device = student.backbone.device
    ids_N = torch.tensor([token for row in rows for token in row], device=device)
    starts_B = torch.tensor([0, *(len(row) for row in rows[:-1])], device=device).cumsum(0)
    vectors_ND = read(ids_N.roll(1).index_fill(0, starts_B, NO_TOKEN), ids_N)
    offsets = torch.cat([starts_B, starts_B.new_tensor([len(ids_N)])])
    return torch.segment_reduce(vectors_ND, "mean", offsets=offsets)


def choose_pairs(student: Student, texts: Sequence[str]) -> None:
    """Give vectors to the pairs of tokens that are most frequent in the texts; they begin at zero."""
    if (pairs := student.backbone.embed_pairs) is None:
        return
    found = [np.empty(0, np.int64)]
    for start in range(0, len(texts), BLOCK):
        for row in student.vocabulary.encode_batch(texts[start : start + BLOCK]):
            ids = torch.tensor(row[:LONGEST], dtype=torch.int64)
            found.append(pair_keys(ids[:-1], ids[1:]).numpy())
    keys, counts = np.unique(np.concatenate(found), return_counts=True)
    frequent = np.sort(keys[np.argsort(-counts, kind="stable")[: len(pairs.keys)]])
    pairs.keys.fill_(NO_PAIR)[: len(frequent)] = torch.from_numpy(frequent)


def fit_tokens(student: Student, taught: Taught, passes: int, seed: int) -> None:
    """Bring the means of tokens' and pairs' vectors close to the teacher's: `passes` over all texts, with a bar."""
    optimizer = SparseAdam(sparse_tables(student), TOKEN_RATE)
    _fit(student, taught, taught.rows, lambda rows, texts: read_tokens(student, texts), optimizer, passes, seed)
    for table in sparse_tables(student):
        table.data.mul_(STREAM)


def fit_pairs(student: Student, taught: Taught, passes: int, seed: int) -> None:
    """The same for pairs and the projection, on top of a backbone that has learned without them and is taken as it is.

    What a pair adds at the beginning is taken to arrive at the last norm as it is, at the size that the norm gives it.
    """
    pairs = student.backbone.embed_pairs
    assert pairs is not None
    chosen = random.Random(seed).sample(taught.rows, min(MOST, len(taught.rows)))
    known_ND, size_D = _read_once(student, taught, chosen)
    place = {row: n for n, row in enumerate(chosen)}

    def read(rows: list[int], texts: list[str]) -> Tensor:
        return known_ND[[place[row] for row in rows]].float() + size_D * _means(student, texts, pairs)

    rate = STREAM * TOKEN_RATE
    _fit(student, taught, chosen, read, SparseAdam(sparse_tables(student)[1:], rate), passes, seed)
    pairs.vectors.get_parameter("weight").data.mul_(HELD)


@torch.no_grad()
def _read_once(student: Student, taught: Taught, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Pooled texts (N,D) in float16, and how large (D) the last norm makes what it gets."""
    found_ND = torch.zeros(len(rows), student.backbone.config.d_model, dtype=torch.float16)
    order = sorted(range(len(rows)), key=lambda n: taught.lengths[rows[n]])
    means: list[Tensor] = []
    hook = student.backbone.norm.register_forward_pre_hook(lambda _, x: means.append(x[0].float().square().mean()))
    for start in track(range(0, len(order), READ), "texts, as they are read now", console=Console(stderr=True)):
        part = order[start : start + READ]
        with fast_autocast(student.backbone.device):
            found_ND[part] = student.read([taught.texts[rows[n]] for n in part])[0].half().cpu()
    hook.remove()
    weight_D = student.backbone.norm.weight
    assert isinstance(weight_D, Tensor)
    return found_ND.to(weight_D.device), weight_D.detach() / torch.stack(means).mean().sqrt()


def _fit(
    student: Student,
    taught: Taught,
    rows: Sequence[int],
    read: Callable[[list[int], list[str]], Tensor],
    optimizer: SparseAdam,
    passes: int,
    seed: int,
) -> None:
    """Teach what `optimizer` holds, and the projection, by what `read` makes of rows and their texts."""
    rng = random.Random(seed)
    projection = student.matching.project
    optimizers = [optimizer, Adam(projection.parameters(), PROJECTION_RATE)]
    steps = max(1, passes * len(rows) // BATCH)
    schedules = [LambdaLR(each, lambda step: 1 - step / steps) for each in optimizers]
    for _ in track(range(steps), "token vectors", console=Console(stderr=True)):
        drawn = rng.sample(rows, min(BATCH, len(rows)))
        texts, vectors = taught.take(drawn)
        loss = match(student.matching.embed(read(drawn, texts)), vectors.to(student.backbone.device))
        loss.backward()
        for each, schedule in zip(optimizers, schedules, strict=True):
            each.step()
            schedule.step()
        student.zero_grad()


def sparse_tables(student: Student) -> list[nn.Parameter]:
    """The vectors of tokens and of pairs: most of all parameters. Their gradients are sparse from here on."""
    pairs = student.backbone.embed_pairs
    found = [student.backbone.embed_tokens, *([] if pairs is None else [pairs.vectors])]
    for table in found:
        table.sparse = True
    return [table.get_parameter("weight") for table in found]
