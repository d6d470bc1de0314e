"""Prefill: 1,024 tokens read at once, on a GPU 16,384, in batches from many short rows to a single long one."""

import torch
from transformers import PreTrainedModel

from nautile.tasks.bench.speed.fast_paths import against_itself, with_and_without
from nautile.tasks.bench.speed.models import NAUTILE, QWEN, SMOLLM2, body_bytes, language_model, token_flops
from nautile.tasks.bench.speed.session import Case, Session, Work

SHAPES = ((16, 64), (8, 128), (2, 512), (1, 1024))  # rows, tokens a row
GPU_SHAPES = ((256, 64), (128, 128), (32, 512), (16, 1024), (1, 16_384))
TINY_SHAPES = ((4, 8), (1, 32))
PAIRS = ((NAUTILE, SMOLLM2), (NAUTILE, QWEN), *against_itself(NAUTILE))


def prefill(session: Session) -> None:
    """Tokens a second, without logits and without keeping a state; the peak of memory of a single row."""
    tiny, device = session.settings.tiny, session.device
    shapes = TINY_SHAPES if tiny else GPU_SHAPES if device.type == "cuda" else SHAPES
    for dtype in session.settings.dtypes:
        models = {name: language_model(name, dtype, tiny, device) for name in (NAUTILE, SMOLLM2, QWEN)}
        for rows, length in shapes:
            case = Case("prefill", f"{rows}×{length:,}", dtype, "token")
            works = {name: prefill_work(model, rows, length) for name, model in models.items()}
            works |= with_and_without(NAUTILE, works[NAUTILE], device)
            pairs = [pair for pair in PAIRS if works.keys() >= set(pair)]
            session.compare(case, works, pairs)
            if rows == 1:
                session.compare_peaks(case, works, pairs)


def prefill_work(model: PreTrainedModel, rows: int, length: int) -> Work:
    """Reading random ids (rows, length)."""
    ids_BL = torch.randint(model.config.vocab_size, (rows, length), device=model.device)

    @torch.inference_mode()
    def read() -> object:
        return model(ids_BL, use_cache=False).last_hidden_state

    return Work(read, rows * length, rows * length * token_flops(model), body_bytes(model))
