"""Zero-shot: what a text costs with few labels and with many."""

from collections.abc import Sequence

import torch

from nautile.engine.reader import Reader
from nautile.model.checkpoints import load
from nautile.tasks.bench.speed.models import body_bytes, token_flops
from nautile.tasks.bench.speed.session import Case, Session, Work
from nautile.tasks.bench.speed.texts import texts
from nautile.tasks.question import BASE, question
from nautile.tasks.zero_shot.judge import ZeroShotJudge, load_matching

COUNTS, TINY_COUNTS = (1, 2, 5, 10, 50, 100), (1, 5, 50)
FEW = 5  # the others are compared with
TEXTS, TINY_TEXTS = 512, 8
WORDS = 32


def labels(session: Session) -> None:
    """Milliseconds a text, all that `classify` does; the label list itself is read once, before the rounds."""
    tiny = session.settings.tiny
    read = texts(TINY_TEXTS if tiny else TEXTS, WORDS, WORDS)
    counts = TINY_COUNTS if tiny else COUNTS
    for dtype in session.settings.dtypes:
        reader = Reader(load(BASE, getattr(torch, dtype)).to(session.device))
        works = {_said(count): label_work(reader, read, count) for count in counts}
        case = Case("labels", f"{len(read):,} texts of about {WORDS} tokens", dtype, "text", cost=True)
        session.compare(case, works, [(_said(count), _said(FEW)) for count in counts if count != FEW])


def label_work(reader: Reader, read: Sequence[str], count: int) -> Work:
    """A choice among `count` labels of two words, or none of them."""
    asked = question(labels=texts(count, 2, 2), none_of_these=True)
    judge = ZeroShotJudge(reader, load_matching(BASE), asked)
    tokens = sum(map(len, reader.vocabulary.encode_batch(read)))
    return Work(lambda: judge(read), len(read), tokens * token_flops(reader.model), body_bytes(reader.model))


def _said(count: int) -> str:
    return f"{count} label{'s' * (count != 1)}"
