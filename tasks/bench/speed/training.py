"""A training step: nautile-mini (without vectors of pairs) on short texts, on a GPU nautile-370m on longer ones."""

from inspect import signature

import torch
from torch.optim import AdamW
from transformers import PreTrainedModel

from nautile.engine.memory import keep_pages
from nautile.tasks.bench.speed.fast_paths import against_itself, with_and_without
from nautile.tasks.bench.speed.models import MINILM, NAUTILE, SMOLLM2, body_bytes, language_model, token_flops
from nautile.tasks.bench.speed.session import Case, Session, Work
from nautile.tasks.question import BASE

SHAPE, GPU_SHAPE, TINY_SHAPE = (32, 32), (8, 1024), (4, 8)  # rows, tokens a row
PASSES = 3  # backward takes two products for each that forward takes


def training(session: Session) -> None:
    """Tokens a second, forward, backward and AdamW together; the peak of memory."""
    keep_pages()
    tiny, device = session.settings.tiny, session.device
    (ours, peer), shape = ((NAUTILE, SMOLLM2), GPU_SHAPE) if device.type == "cuda" else ((BASE, MINILM), SHAPE)
    rows, length = TINY_SHAPE if tiny else shape
    for dtype in session.settings.dtypes:
        models = {name: language_model(name, "float32", tiny, device) for name in (ours, peer)}
        works = {name: training_work(model, rows, length, dtype) for name, model in models.items()}
        case = Case("training", f"{rows}×{length}", dtype, "token")
        works |= with_and_without(ours, works[ours], device)
        pairs = [pair for pair in ((ours, peer), *against_itself(ours)) if works.keys() >= set(pair)]
        session.compare(case, works, pairs)
        session.compare_peaks(case, works, pairs)


def training_work(model: PreTrainedModel, rows: int, length: int, dtype: str) -> Work:
    """A step on random ids (rows, length) towards hidden states of zero, computed in `dtype`; float32 weights."""
    ids_BL = torch.randint(model.config.vocab_size, (rows, length), device=model.device)
    options = {"use_cache": False} if "use_cache" in signature(model.forward).parameters else {}  # an encoder has none
    optimizer = AdamW(model.parameters(), fused=True)

    def step() -> None:
        with torch.autocast(model.device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = model(ids_BL, **options).last_hidden_state.float().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return Work(step, rows * length, PASSES * rows * length * token_flops(model), body_bytes(model))
