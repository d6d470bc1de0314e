"""The losses of the three kinds: sums over rows, divided by a given count, so that accumulation changes nothing."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nautile.tasks.kinds import Kind

Loss = Callable[[Tensor, Tensor, Tensor | int], Tensor]
HEAVIEST = 20.0


def make_loss(kind: Kind, weights_C: Tensor | None) -> Loss:
    """The loss of logits (B,C), truth (B), for "multi" (B,C) in 0 and 1, and the count to divide the sum by.

    `weights_C` weighs rows by their label, for "multi" the rows that have the label.
    """
    summed = {"single": _single, "ordinal": _ordinal, "multi": _multi}[kind]

    def loss(logits_BC: Tensor, truth: Tensor, count: Tensor | int) -> Tensor:
        weights = None if weights_C is None else weights_C.to(logits_BC.device)
        return summed(logits_BC.float(), truth, weights) / count

    return loss


def _single(logits_BC: Tensor, truth_B: Tensor, weights_C: Tensor | None) -> Tensor:
    rows_B = F.cross_entropy(logits_BC, truth_B, reduction="none")
    return (rows_B if weights_C is None else rows_B * weights_C[truth_B]).sum()


def _ordinal(logits_BC: Tensor, truth_B: Tensor, weights_C: Tensor | None) -> Tensor:
    """Cross-entropy plus the squared difference of the cumulative distributions (the ranked probability score)."""
    found_BC = logits_BC.softmax(-1).cumsum(-1)
    steps_C = torch.arange(logits_BC.shape[-1], device=logits_BC.device)
    true_BC = (steps_C >= truth_B[:, None]).to(found_BC.dtype)
    rows_B = F.cross_entropy(logits_BC, truth_B, reduction="none") + (found_BC - true_BC).square().sum(-1)
    return (rows_B if weights_C is None else rows_B * weights_C[truth_B]).sum()


def _multi(logits_BC: Tensor, truth_BC: Tensor, weights_C: Tensor | None) -> Tensor:
    return F.binary_cross_entropy_with_logits(
        logits_BC, truth_BC.to(logits_BC.dtype), pos_weight=weights_C, reduction="sum"
    )


def balanced(truth: np.ndarray, kind: Kind, labels: int) -> Tensor:
    """(C): weights under which every label counts the same, their mean over the rows 1; 1 for a label without rows.

    For "multi" how many rows lack the label for one that has it, at most 20.
    """
    if kind == "multi":
        have_C = truth.sum(axis=0)
        ratio_C = np.where(have_C > 0, (len(truth) - have_C) / np.maximum(have_C, 1), 1.0)
        return torch.from_numpy(np.clip(ratio_C, 1.0, HEAVIEST)).float()
    counts_C = np.bincount(truth, minlength=labels)
    there = (counts_C > 0).sum()
    return torch.from_numpy(np.where(counts_C > 0, len(truth) / (there * np.maximum(counts_C, 1)), 1.0)).float()
