"""A training step on short texts: nautile-mini (without vectors of pairs), MiniLM-L6 beside it."""

import torch
from torch.optim import AdamW
from transformers import PreTrainedModel

from nautile.engine.memory import keep_pages
from nautile.tasks.bench.speed.loop import with_and_without, without
from nautile.tasks.bench.speed.models import MINILM, body_bytes, language_model, token_flops
from nautile.tasks.bench.speed.session import Case, Session, Work
from nautile.tasks.question import BASE

SHAPE, TINY_SHAPE = (32, 32), (4, 8)  # rows, tokens a row
PAIRS = ((BASE, MINILM), (BASE, without(BASE)))
PASSES = 3  # backward takes two products for each that forward takes


def training(session: Session) -> None:
    """Tokens a second, forward, backward and AdamW together; the peak of memory."""
    keep_pages()
    rows, length = TINY_SHAPE if session.settings.tiny else SHAPE
    for dtype in session.settings.dtypes:
        models = {name: language_model(name, "float32", session.settings.tiny) for name in (BASE, MINILM)}
        works = {name: training_work(model, rows, length, dtype) for name, model in models.items()}
        case = Case("training", f"{rows}×{length}", dtype, "token")
        works |= with_and_without(BASE, works[BASE])
        pairs = [pair for pair in PAIRS if works.keys() >= set(pair)]
        session.compare(case, works, pairs)
        session.compare_peaks(case, works, pairs)


def training_work(model: PreTrainedModel, rows: int, length: int, dtype: str) -> Work:
    """A step on random ids (rows, length) towards hidden states of zero, computed in `dtype`; float32 weights."""
    ids_BL = torch.randint(model.config.vocab_size, (rows, length))
    optimizer = AdamW(model.parameters(), fused=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = model(ids_BL).last_hidden_state.float().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return Work(step, rows * length, PASSES * rows * length * token_flops(model), body_bytes(model))
