"""How likely a language model finds texts: their log-probabilities, long ones read on in blocks."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from nautile.engine.batching import batches, pad_right
from nautile.errors import NautileError
from nautile.model.config import vocabulary_of
from nautile.model.heads import NautileForCausalLM
from nautile.model.state import NautileState

BLOCK = 256  # columns whose logits are held at once
BATCH_TOKENS = 2048


class Likelihood(NamedTuple):
    """Of a text as a document that begins with it: -log p in nats, its tokens, its bytes in UTF-8."""

    nats: float
    tokens: int
    size: int

    @property
    def bits_per_byte(self) -> float:
        """What a coder with this model would need; not a number for an empty text."""
        return self.nats / math.log(2) / self.size if self.size else math.nan


def score(model: NautileForCausalLM, texts: Iterable[str]) -> list[Likelihood]:
    """The likelihoods of `texts`, in their order, each from its first token to its last, however long it is.

    Raises:
        NautileError: a model that predicts no tokens, or what is no list of texts.
    """
    if model.get_output_embeddings() is None:
        raise NautileError(
            f"a {type(model).__name__} predicts no tokens; nautile.Nautile.from_pretrained reads one that does"
        )
    listed = list(texts)
    if isinstance(texts, str) or not all(isinstance(text, str) for text in listed):
        raise NautileError("score takes a list of texts, each a str")
    vocabulary = vocabulary_of(model.config)
    rows = [[vocabulary.eos_id, *ids] for ids in vocabulary.encode_batch(listed)]
    found = [Likelihood(0.0, 0, 0)] * len(rows)
    for group in batches([len(row) for row in rows], BATCH_TOKENS):
        for index, nats in zip(group, _nats(model, [rows[index] for index in group]), strict=True):
            found[index] = Likelihood(nats, len(rows[index]) - 1, len(listed[index].encode("utf-8", "surrogatepass")))
    return found


@torch.inference_mode()
def _nats(model: NautileForCausalLM, rows: Sequence[Sequence[int]]) -> list[float]:
    """-log p of each row's tokens but the first; the state goes on from block to block."""
    ids_BL, mask_BL = (part.to(model.device) for part in pad_right(rows))
    state = NautileState(model.config)
    total_B = torch.zeros(len(rows), dtype=torch.float64)
    for start in range(0, ids_BL.shape[1] - 1, BLOCK):
        end = min(start + BLOCK, ids_BL.shape[1] - 1)
        logits_BLV = model(ids_BL[:, start:end], mask_BL[:, start:end], cache=state).logits
        targets_BL = ids_BL[:, start + 1 : end + 1]
        nats_BL = F.cross_entropy(logits_BLV.float().flatten(0, 1), targets_BL.flatten(), reduction="none")
        total_B += (nats_BL.unflatten(0, targets_BL.shape) * mask_BL[:, start + 1 : end + 1]).sum(1).double().cpu()
    return total_B.tolist()
