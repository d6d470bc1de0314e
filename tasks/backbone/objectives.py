"""What the backbone is trained to do, each a loss from a student and a random generator."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nautile.engine.batching import pad_right
from nautile.engine.prefix import read_prefix
from nautile.model.config import NautileConfig
from nautile.model.model import NautileModel
from nautile.model.pooling import pool
from nautile.model.vocabulary import Vocabulary
from nautile.tasks.backbone.heads.sentiment_data import LABELS, NEUTRAL, Example
from nautile.tasks.backbone.label_set import LabelSet
from nautile.tasks.backbone.vectors import Taught
from nautile.tasks.heads.head import to_unit
from nautile.tasks.zero_shot.head import MatchingHead
from nautile.tasks.zero_shot.labels import NONE, lay_out_labels

LONGEST = 64  # tokens
POOL = 4  # so many times a batch is drawn, and a run of alike lengths taken from it
TEMPERATURE = 0.05  # of the teacher's similarities


class UnitLinear(nn.Linear):
    """A linear layer on vectors of unit size, as heads see them."""

    def forward(self, vectors: Tensor) -> Tensor:
        """(…, D) to (…, labels)."""
        return super().forward(to_unit(vectors))


class Student(nn.Module):
    """The backbone with the heads that are trained along with it."""

    def __init__(self, config: NautileConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.backbone = NautileModel(config)
        self.matching = MatchingHead(config.d_model)
        self.sentiment = UnitLinear(config.d_model, len(LABELS))

    @torch.no_grad()
    def begin(self, table_VD: Tensor, projection_ED: Tensor) -> None:
        """Start as the mean of token vectors in the teacher's space: what layers add to the stream begins at zero."""
        self.backbone.embed_tokens.weight.copy_(table_VD)
        self.matching.project.weight.copy_(projection_ED)
        for name, parameter in self.backbone.named_parameters():
            if name.endswith(("out_proj.weight", "ff_out.weight")):
                parameter.zero_()

    def read(self, texts: Sequence[str], labels: Sequence[str] = ()) -> tuple[Tensor, Tensor]:
        """Pooled texts (B,D), read after the label list if there is one, and pooled labels (N,D)."""
        prefix = read_prefix(self.backbone, *lay_out_labels(self.vocabulary, labels)) if labels else None
        rows = [row[:LONGEST] or [self.vocabulary.eos_id] for row in self.vocabulary.encode_batch(texts)]
        ids_BL, mask_BL = (part.to(self.backbone.device) for part in pad_right(rows))
        state = None if prefix is None else prefix.state.branch(len(rows))
        vectors = pool(self.backbone(ids_BL, mask_BL, cache=state).last_hidden_state.float(), mask_BL, "mean")
        return vectors, vectors[:0] if prefix is None else prefix.spans_ND


def alike(texts: Sequence[str], count: int, rng: random.Random) -> list[int]:
    """Indices of `count` random texts of about one length."""
    drawn = sorted((rng.randrange(len(texts)) for _ in range(POOL * count)), key=lambda index: len(texts[index]))
    start = rng.randrange(len(drawn) - count + 1)
    return drawn[start : start + count]


def distillation(target: Tensor, scores: Tensor) -> Tensor:
    """KL divergence of softmax(scores) from softmax(target), rows averaged."""
    return F.kl_div(scores.float().log_softmax(-1), target.log_softmax(-1), log_target=True, reduction="batchmean")


def distance(found: Tensor, target: Tensor) -> Tensor:
    """1 - cosine of unit vectors (N, 384), averaged."""
    return 1 - (found * target).sum(-1).mean()


def match(found: Tensor, target: Tensor) -> Tensor:
    """How far unit vectors (N, 384) are from the teacher's, one by one and in their similarities within the batch."""
    similar = distillation(target @ target.T / TEMPERATURE, found @ target.T / TEMPERATURE)
    return distance(found, target) + 0.5 * similar


@dataclass
class Embedding:
    """Match the teacher's vectors."""

    taught: Taught
    tokens: int

    def __call__(self, student: Student, rng: random.Random) -> Tensor:
        """1 - cosine, and the divergence of the similarities."""
        texts, vectors = self.taught.draw(self.tokens, rng)
        return match(student.matching.embed(student.read(texts)[0]), vectors.to(student.backbone.device))


@dataclass
class SoftLabels:
    """Short texts stand as labels; labels and texts match the teacher's vectors, and its choice.

    Half of the time labels and texts are near each other, so that the choice is hard; half of the time labels are read
    one by one, else as a list that the texts continue from.
    """

    taught: Sequence[Taught]  # one is drawn from, each as often
    tokens: int

    def __call__(self, student: Student, rng: random.Random) -> Tensor:
        """1 - cosine of texts and of labels, and the divergence of the student's choice from the teacher's."""
        taught, count = rng.choice(self.taught), rng.choice((8, 16, 32, 64))
        if rng.random() < 0.5:
            (labels, label_vectors), (texts, vectors) = taught.draw_near(count, self.tokens, rng)
        else:
            (labels, label_vectors), (texts, vectors) = taught.draw_short(count, rng), taught.draw(self.tokens, rng)
        wanted, wanted_labels = (part.to(student.backbone.device) for part in (vectors, label_vectors))
        if rng.random() < 0.5:
            read, read_labels = student.read(texts, labels)
        else:
            read, read_labels = student.read(texts)[0], student.read(labels)[0]
        found, found_labels = student.matching.embed(read), student.matching.embed(read_labels)
        choice = distillation(wanted @ wanted_labels.T / TEMPERATURE, found @ found_labels.T / TEMPERATURE)
        return distance(found, wanted) + distance(found_labels, wanted_labels) + choice


@dataclass
class NamedLabels:
    """Public label sets in random wordings, subsets and orders, with distractors and "none of these"."""

    sets: Sequence[LabelSet]
    count: int

    def __call__(self, student: Student, rng: random.Random) -> Tensor:
        """Cross entropy of the choice, and binary cross entropy of each label's fit."""
        source, rows, names, labels = self.draw(rng)
        while len(set(labels)) < len(labels):  # two names in one wording
            source, rows, names, labels = self.draw(rng)
        fits = torch.tensor([[name in source.labels[row] for name in names] for row in rows])
        fits = torch.cat([fits, ~fits.any(1, keepdim=True)], dim=1).float().to(student.backbone.device)
        choice, fit = student.matching(*student.read([source.texts[row] for row in rows], labels))
        chosen = -(choice.float().log_softmax(-1) * fits / fits.sum(1, keepdim=True)).sum(1).mean()
        return chosen + F.binary_cross_entropy_with_logits(fit.float(), fits)

    def draw(self, rng: random.Random) -> tuple[LabelSet, list[int], list[str], list[str]]:
        """A set, rows of it, some of its labels, and a wording of each, with "none of these" as the last."""
        [source] = rng.choices(self.sets, [one.weight for one in self.sets])
        rows = alike(source.texts, self.count, rng)
        names = list(source.wordings)
        if len(names) > 40:  # titles: those of the batch, and some more
            own = {label for row in rows for label in source.labels[row]}
            names = [*own, *rng.sample(names, rng.randrange(16))]
        elif rng.random() < 0.5:
            names = rng.sample(names, rng.randint(2, len(names)))
        names = list(dict.fromkeys(names))
        rng.shuffle(names)
        return source, rows, names, [source.wording(name, rng) for name in names] + [NONE]


@dataclass
class Sentiment:
    """Three labels; where annotators had no neutral choice the loss is between the other two."""

    examples: Sequence[Example]
    count: int

    def __post_init__(self) -> None:
        self.texts = [example.text for example in self.examples]

    def __call__(self, student: Student, rng: random.Random) -> Tensor:
        """Cross entropy over the labels that the annotators could choose."""
        chosen = [self.examples[index] for index in alike(self.texts, self.count, rng)]
        device = student.backbone.device
        logits = student.sentiment(student.read([example.text for example in chosen])[0])
        barred = torch.tensor([[not e.has_neutral and n == NEUTRAL for n in range(len(LABELS))] for e in chosen])
        truth = torch.tensor([example.label for example in chosen], device=device)
        return F.cross_entropy(logits.float().masked_fill(barred.to(device), -1e4), truth)


@dataclass
class Opinions:
    """Match the probabilities that the critic gave to unlabelled texts."""

    judged: Taught
    tokens: int

    def __call__(self, student: Student, rng: random.Random) -> Tensor:
        """The divergence of the student's sentiment from the critic's."""
        texts, probabilities = self.judged.draw(self.tokens, rng)
        target = probabilities.clamp(min=1e-4).log().to(student.backbone.device)
        return distillation(target, student.sentiment(student.read(texts)[0]))
