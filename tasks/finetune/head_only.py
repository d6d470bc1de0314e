"""Training the head only: every text is read once, then a linear layer is fitted to the vectors.

With `refit`, the head of the best regularisation is fitted anew on training and validation rows together. What is then
said of the validation rows is said by five heads, each fitted on everything but a fifth of them. Where one label is
true of a text, the head's biases are then moved to fit the validation rows.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nautile.engine.reader import Reader
from nautile.model.heads import NautileForSequenceClassification
from nautile.tasks.calibrate import FOLDS, Array, folds_of_texts
from nautile.tasks.finetune.losses import Loss, balanced, make_loss
from nautile.tasks.finetune.options import Options
from nautile.tasks.finetune.split import Split
from nautile.tasks.finetune.validate import scores
from nautile.tasks.heads.head import Head, linear_head, to_unit
from nautile.tasks.heads.offsets import fit_offsets
from nautile.tasks.labelled import Labelled

STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # scikit-learn's C, on standardised vectors
USUAL = 0.1
START = 0.01  # weak, so that training still has something to learn
ITERATIONS = 200


def train_head(reader: Reader, split: Split, options: Options) -> tuple[Head, Array, list[dict[str, Any]]]:
    """The head, its logits (N,C) of the validation rows, and how each regularisation did on them."""
    train_ND, valid_ND = (to_unit(reader(part.texts).vectors_ND.double()) for part in (split.train, split.valid))
    fits, history = [], []
    for strength in STRENGTHS if split.valid.texts else (USUAL,):
        head = fit_head(train_ND, split.train, strength, options.class_weights == "balanced")
        fits.append((head, head.logits(valid_ND)))
        if split.valid.texts:
            found = scores(fits[-1][1], split.valid)
            history.append({"C": strength, **{f"eval_{name}": value for name, value in found.items()}})
    sign = 1 if options.monitor == "macro_f1" else -1
    best = int(np.argmax([sign * record[f"eval_{options.monitor}"] for record in history])) if history else 0
    if options.refit and history:
        strength, weigh = history[best]["C"], options.class_weights == "balanced"
        head, logits_NC = _refitted(train_ND, valid_ND, split, strength, weigh)
    else:
        head, logits_NC = fits[best]
    return replace(head, unit=True), logits_NC, history


def _refitted(train_ND: Tensor, valid_ND: Tensor, split: Split, strength: float, weigh: bool) -> tuple[Head, Array]:
    """The head of all rows, and the validation rows' logits (N,C) by heads that did not learn from their fifth."""
    folds = folds_of_texts(split.valid.texts)

    def fitted(learned: np.ndarray) -> Head:
        vectors_ND = torch.cat([train_ND, valid_ND[torch.from_numpy(learned)]])
        truth = np.concatenate([split.train.truth, split.valid.truth[learned]])
        return fit_head(vectors_ND, split.train._replace(truth=truth), strength, weigh)

    logits_NC = np.empty((len(valid_ND), len(split.valid.labels)))
    for fold in range(FOLDS):
        logits_NC[folds == fold] = fitted(folds != fold).logits(valid_ND[torch.from_numpy(folds == fold)])
    head = fitted(np.ones(len(valid_ND), dtype=bool))
    if head.kind != "single":
        return head, logits_NC
    offsets_C, logits_NC = fit_offsets(logits_NC, split.valid.truth, folds)
    return replace(head, bias_C=head.bias_C + torch.from_numpy(offsets_C).float()), logits_NC


@torch.no_grad()
def start_score(model: NautileForSequenceClassification, split: Split, options: Options) -> None:
    """Let `score` begin as the linear head that fits the untouched vectors, so that training need not find it first.

    Linear probing before fine-tuning: Kumar et al. 2022.
    """
    vectors_ND = Reader(model)(split.train.texts).vectors_ND.double()
    with torch.enable_grad():
        head = fit_head(vectors_ND, split.train, START, options.class_weights == "balanced")
    model.score.weight.copy_(head.weight_CD)
    model.score.bias.copy_(head.bias_C)


def fit_head(vectors_ND: Tensor, data: Labelled, strength: float, weigh: bool) -> Head:
    """The linear layer of least loss, with |W|² / 2C added to its sum; vectors are standardised within."""
    mean_D, scale_D = vectors_ND.mean(0), vectors_ND.std(0, unbiased=False).clamp(min=1e-6)
    truth = torch.from_numpy(data.truth)
    weights = balanced(data.truth, data.kind, len(data.labels)) if weigh else None
    loss = make_loss(data.kind, weights)
    weight_CD, bias_C = _minimise((vectors_ND - mean_D) / scale_D, truth, loss, len(data.labels), strength)
    weight_CD = weight_CD / scale_D
    return linear_head(data.labels, weight_CD, bias_C - weight_CD @ mean_D, data.kind)


def _minimise(vectors_ND: Tensor, truth: Tensor, loss: Loss, labels: int, strength: float) -> tuple[Tensor, Tensor]:
    vectors_ND = vectors_ND.float()
    weight_CD = torch.zeros(labels, vectors_ND.shape[1], requires_grad=True)
    bias_C = torch.zeros(labels, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight_CD, bias_C], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        rows = len(vectors_ND)
        total = loss(vectors_ND @ weight_CD.T + bias_C, truth, rows) + weight_CD.square().sum() / (2 * strength * rows)
        total.backward()
        return total

    optimizer.step(closure)
    return weight_CD.detach().double(), bias_C.detach().double()
