"""What the rows nearest to a text were labelled, beside what a linear head says of it.

A linear layer draws one line for each label; a label may also be many small groups of rows, and a text much like one of
them (interpolating with nearest neighbours: Khandelwal et al. 2020).
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

NEAREST = 20  # rows that are asked
WIDTH = 0.05  # of cosines: a row nearer by this much counts e times as much
SHARE = 0.3  # that the rows have in the answer
MOST = 20_000  # rows that are kept: asking them costs time
AT_ONCE = 256  # texts whose cosines to all rows are held


class Neighbours(NamedTuple):
    """Rows to ask: standardised vectors of unit length (N,D) in float16, labels (N), and how to standardise (D)."""

    rows_ND: Tensor
    labels_N: Tensor
    mean_D: Tensor
    scale_D: Tensor

    @classmethod
    def of(cls, vectors_ND: Tensor, labels_N: Tensor) -> "Neighbours":
        """The rows of these vectors."""
        vectors_ND = vectors_ND.float()
        mean_D, scale_D = vectors_ND.mean(0), vectors_ND.std(0, unbiased=False).clamp(min=1e-6)
        rows_ND = F.normalize((vectors_ND - mean_D) / scale_D, dim=-1)
        return cls(rows_ND.half(), labels_N.int(), mean_D, scale_D)

    def blend(self, logits_MC: Tensor, vectors_MD: Tensor) -> Tensor:
        """Log-probabilities (M,C): SHARE of the nearest rows' labels, the rest of what the logits say."""
        of_rows_MC = self._shares(vectors_MD.float(), logits_MC.shape[1])
        of_head_MC = logits_MC.log_softmax(dim=-1) + math.log(1 - SHARE)  # finite, however sure the head is
        return torch.logaddexp(of_head_MC, torch.log(SHARE * of_rows_MC))

    def _shares(self, vectors_MD: Tensor, labels: int) -> Tensor:
        rows_ND, labels_N = self.rows_ND.float(), self.labels_N.long()
        directions_MD = F.normalize((vectors_MD - self.mean_D) / self.scale_D, dim=-1)
        shares_MC = vectors_MD.new_zeros(len(vectors_MD), labels)
        for directions_mD, shares_mC in zip(directions_MD.split(AT_ONCE), shares_MC.split(AT_ONCE), strict=True):
            cosines_mK, nearest_mK = (directions_mD @ rows_ND.T).topk(min(NEAREST, len(rows_ND)), dim=-1)
            shares_mC.scatter_add_(1, labels_N[nearest_mK], (cosines_mK / WIDTH).softmax(dim=-1))
        return shares_MC
