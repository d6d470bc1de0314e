"""What zero-shot adds to the backbone: a projection in which texts meet labels, and two scales."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHARED_WIDTH = 384  # that of the sentence encoder whose space it learns


class MatchingHead(nn.Module):
    """Scores of texts against labels: scaled cosines in a shared space.

    `scale` serves the choice of one label (softmax), `fit_scale` and `fit_bias` whether each label fits (sigmoid).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, SHARED_WIDTH, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(20.0)))
        self.fit_log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.fit_bias = nn.Parameter(torch.tensor(-3.0))

    def embed(self, vectors: Tensor) -> Tensor:
        """Unit vectors (…, 384) of pooled hidden states (…, D)."""
        return F.normalize(self.project(vectors.float()), dim=-1)

    def forward(self, texts_BD: Tensor, labels_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B,N) of the choice of one label, and of each label's fit by itself."""
        return self.scores(self.embed(texts_BD), self.embed(labels_ND))

    def scores(self, texts_BE: Tensor, labels_NE: Tensor) -> tuple[Tensor, Tensor]:
        """The same of unit vectors in the shared space."""
        cosine_BN = texts_BE @ labels_NE.T
        return cosine_BN * self.log_scale.exp(), cosine_BN * self.fit_log_scale.exp() + self.fit_bias
