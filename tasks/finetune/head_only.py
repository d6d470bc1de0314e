"""Training the head only: every text is read once, then a linear layer is fitted to the vectors.

Whether it looks at the texts' words as well, and asks the rows nearest to a text, validation rows decide: of few texts
words say little. With `refit`, the head of the best regularisation is fitted anew on training and validation rows
together. What is then said of the validation rows is said by five heads, each fitted on everything but a fifth of them.
Where one label is true of a text and no rows are asked, the head's biases may then be moved to fit the validation rows.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nautile.engine.reader import Reader
from nautile.model.heads import NautileForSequenceClassification
from nautile.tasks.finetune.losses import Loss, balanced, make_loss
from nautile.tasks.finetune.options import Options
from nautile.tasks.finetune.split import Split
from nautile.tasks.finetune.validate import scores
from nautile.tasks.folds import FOLDS, folds_of_texts
from nautile.tasks.heads.head import Head, linear_head, to_unit
from nautile.tasks.heads.neighbours import MOST, Neighbours
from nautile.tasks.heads.offsets import fit_offsets
from nautile.tasks.kinds import Array
from nautile.tasks.labelled import Labelled

STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # scikit-learn's C, on standardised vectors
USUAL = 0.1
START = 0.01  # weak, so that training still has something to learn
ITERATIONS, HISTORY = 200, 20  # steps of L-BFGS; those it keeps, each as large as the head


class Features(NamedTuple):
    """What a head is fitted to: vectors (N,D) of unit size and, unless they are left out, words (N,S), sparse."""

    vectors_ND: Tensor
    words_NS: Tensor | None = None

    @classmethod
    def of(cls, reader: Reader, texts: Sequence[str]) -> "Features":
        """Of texts."""
        found = reader(texts, words=True)
        return cls(to_unit(found.vectors_ND.double()), found.words_NS)

    def without_words(self) -> "Features":
        """The vectors alone."""
        return Features(self.vectors_ND)

    def take(self, rows: np.ndarray) -> "Features":
        """Those of some rows, which are given as booleans (N)."""
        index = torch.from_numpy(np.flatnonzero(rows))
        return Features(self.vectors_ND[index], None if self.words_NS is None else self.words_NS.index_select(0, index))

    def and_of(self, others: "Features") -> "Features":
        """These rows, then the others."""
        vectors_ND = torch.cat([self.vectors_ND, others.vectors_ND])
        if self.words_NS is None or others.words_NS is None:
            assert self.words_NS is others.words_NS, "both with words, or neither"
            return Features(vectors_ND)
        return Features(vectors_ND, torch.cat([self.words_NS, others.words_NS]))

    def logits(self, head: Head) -> Array:
        """(N,C), of a head that was fitted to such features."""
        return head.logits(self.vectors_ND, self.words_NS)


def train_head(reader: Reader, split: Split, options: Options) -> tuple[Head, Array, list[dict[str, Any]]]:
    """The head, its logits (N,C) of the validation rows, and how each regularisation did on them.

    The best regularisation is then tried with words as well, and the best of all with neighbours.
    """
    train, valid = (Features.of(reader, part.texts) for part in (split.train, split.valid))
    weigh, sign = options.class_weights == "balanced", 1 if options.monitor == "macro_f1" else -1
    if not split.valid.texts:
        head = fit_head(train.without_words(), split.train, USUAL, weigh)
        return replace(head, unit=True), valid.logits(head), []
    fits: list[tuple[float, Head, Features]] = []
    history: list[dict[str, Any]] = []

    def note(strength: float, head: Head, judged: Features) -> None:
        fits.append((strength, head, judged))
        tried = {"C": strength, "words": judged.words_NS is not None, "neighbours": head.neighbours is not None}
        found = scores(judged.logits(head), split.valid)
        history.append({**tried, **{f"eval_{name}": value for name, value in found.items()}})

    def attempt(strength: float, words: bool) -> None:
        learned, judged = (part if words else part.without_words() for part in (train, valid))
        note(strength, fit_head(learned, split.train, strength, weigh), judged)

    def best() -> int:
        return int(np.argmax([sign * record[f"eval_{options.monitor}"] for record in history]))

    for strength in STRENGTHS:
        attempt(strength, words=False)
    attempt(history[best()]["C"], words=True)
    if options.neighbours and split.train.kind == "single" and len(split.train.texts) <= MOST:
        strength, head, judged = fits[best()]
        note(strength, with_neighbours(head, train, split.train), judged)
    strength, head, judged = fits[best()]
    if options.refit:
        learned = train if judged.words_NS is not None else train.without_words()
        head, logits_NC = _refitted(learned, judged, split, strength, weigh, head.neighbours is not None)
    else:
        logits_NC = judged.logits(head)
    return replace(head, unit=True), logits_NC, history


def with_neighbours(head: Head, features: Features, data: Labelled) -> Head:
    """The head, which from now on asks these rows as well."""
    return replace(head, neighbours=Neighbours.of(features.vectors_ND, torch.from_numpy(data.truth)))


def _refitted(
    train: Features, valid: Features, split: Split, strength: float, weigh: bool, neighbours: bool
) -> tuple[Head, Array]:
    """The head of all rows, and the validation rows' logits (N,C) by heads that did not learn from their fifth."""
    folds = folds_of_texts(split.valid.texts)

    def fitted(learned: np.ndarray) -> Head:
        data = split.train._replace(truth=np.concatenate([split.train.truth, split.valid.truth[learned]]))
        features = train.and_of(valid.take(learned))
        head = fit_head(features, data, strength, weigh)
        return with_neighbours(head, features, data) if neighbours else head

    logits_NC = np.empty((len(split.valid.texts), len(split.valid.labels)))
    for fold in range(FOLDS):
        logits_NC[folds == fold] = valid.take(folds == fold).logits(fitted(folds != fold))
    head = fitted(np.ones(len(split.valid.texts), dtype=bool))
    if head.kind != "single" or neighbours:
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
        head = fit_head(Features(vectors_ND), split.train, START, options.class_weights == "balanced")
    model.score.weight.copy_(head.weight_CD)
    model.score.bias.copy_(head.bias_C)


def fit_head(features: Features, data: Labelled, strength: float, weigh: bool) -> Head:
    """The linear layer of least loss, with |W|² / 2C added to its sum.

    Vectors are standardised within, and a text's words made as long as such a vector is.
    """
    vectors_ND = features.vectors_ND
    mean_D, scale_D = vectors_ND.mean(0), vectors_ND.std(0, unbiased=False).clamp(min=1e-6)
    truth = torch.from_numpy(data.truth)
    weights = balanced(data.truth, data.kind, len(data.labels)) if weigh else None
    loss = make_loss(data.kind, weights)
    length = vectors_ND.shape[1] ** 0.5
    words_NS = None if features.words_NS is None else features.words_NS * length
    standardised = Features((vectors_ND - mean_D) / scale_D, words_NS)
    weight_CD, bias_C, words_SC = _minimise(standardised, truth, loss, len(data.labels), strength)
    weight_CD = weight_CD / scale_D
    head = linear_head(data.labels, weight_CD, bias_C - weight_CD @ mean_D, data.kind)
    return head if words_SC is None else replace(head, words_SC=(length * words_SC).half())  # as it is saved


def _minimise(
    features: Features, truth: Tensor, loss: Loss, labels: int, strength: float
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Weights of vectors (C,D), biases (C) and weights of words (S,C), if there are words."""
    vectors_ND, words_NS = features.vectors_ND.float(), features.words_NS
    rows = len(vectors_ND)
    weight_CD = torch.zeros(labels, vectors_ND.shape[1], requires_grad=True)
    bias_C = torch.zeros(labels, requires_grad=True)
    words_SC = torch.zeros(0 if words_NS is None else words_NS.shape[1], labels, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight_CD, bias_C, words_SC], max_iter=ITERATIONS, history_size=HISTORY, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits_NC = vectors_ND @ weight_CD.T + bias_C
        if words_NS is not None:
            logits_NC = logits_NC + torch.sparse.mm(words_NS, words_SC)
        square = weight_CD.square().sum() + words_SC.square().sum()
        total = loss(logits_NC, truth, rows) + square / (2 * strength * rows)
        total.backward()
        return total

    optimizer.step(closure)
    return weight_CD.detach().double(), bias_C.detach().double(), None if words_NS is None else words_SC.detach()
