"""Zero-shot judgments: the label list is read once, every text continues from it.

A text costs its own tokens (once for each order of the list), however many labels there are: label vectors come from
the prefix, and the scores of all labels are one small matrix product. To a label's vector in the list is added what
it is by itself in several wordings, read once as well: a word or two alone say much by chance (prompt ensembles,
Radford et al. 2021). "none of these" always stands at the end of the list, whether or not it may be answered; what it
takes is missing from the legal mass.
"""

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file

from nautile.engine.prefix import Prefix
from nautile.engine.prefixes import Counts
from nautile.engine.reader import Reader
from nautile.errors import NautileError
from nautile.model.places import locate
from nautile.tasks.calibrate import probabilities
from nautile.tasks.decide import given, thresholds_of
from nautile.tasks.heads.loading import base_reader
from nautile.tasks.judge import Finished, Judge, Measured
from nautile.tasks.kinds import Array
from nautile.tasks.question import BASE, Question
from nautile.tasks.zero_shot.head import MatchingHead
from nautile.tasks.zero_shot.labels import NONE, WORDINGS, heard, lay_out_labels, spoken


class ZeroShotJudge(Judge):
    """Choose among `labels` (names with descriptions), averaged over `permutations` orders of the list.

    Columns beside the labels: `legal_mass`, what "none of these" leaves to the labels; with several permutations
    `agreement`, the share of orders in which the row's answer is the same as on average.
    """

    def __init__(self, reader: Reader, matching: MatchingHead, asked: Question) -> None:
        assert asked.labels is not None
        names = [name for name, _ in asked.labels]
        read = [heard(name) for name in names]
        self.listed = [f"{spoken(name)}: {said}" if said else spoken(name) for name, said in asked.labels]
        self.none = read.index(NONE) if NONE in read else len(names)
        if NONE not in read:
            self.listed.append(NONE)
        shown = [*names, NONE] if asked.none_of_these and NONE not in read else names
        super().__init__(shown, "multi" if asked.multi_label else "single", None, asked.policy)
        self.alone = self.none if self.none < len(shown) else None
        self.reader, self.matching = reader, matching.eval()
        self.worded: tuple[Prefix, torch.Tensor] | None = None  # the labels by themselves, as read with that list
        self.orders = orders(len(asked.labels), asked.permutations)
        self.tokens = 0  # read so far, label lists and texts
        self.counts = Counts()  # of the label list in its orders

    @property
    def more(self) -> tuple[str, ...]:
        """`legal_mass`, and `agreement` where there are several orders."""
        return ("legal_mass", "agreement") if len(self.orders) > 1 else ("legal_mass",)

    @property
    def spared(self) -> str:
        """How often label lists were read, and how often texts continued from them."""
        counts = self.counts
        read = f"read {'once' if counts.reads == 1 else f'{counts.reads:,} times'} ({counts.read_tokens:,} tokens)"
        return f"label list {read if counts.reads else 'kept'}, continued {counts.hits:,} times" if counts.hits else ""

    def judge(self, texts: Sequence[str], finished: Finished) -> Measured:
        """Read the texts after each order of the label list, all in one stream of batches, and average."""
        before = self.reader.prefixes.counts
        prefixes = [self._prefix(order) for order in self.orders]
        if self.worded is None or self.worded[0] is not prefixes[0]:
            self.worded = prefixes[0], self._worded()
        worded_NE = self.worded[1]
        each = [prefix for prefix in prefixes for _ in texts]
        read = self.reader([*texts] * len(prefixes), each, self._at_the_last(finished, len(texts)))
        self.counts += (spent := self.reader.prefixes.counts - before)
        self.tokens += spent.read_tokens + read.tokens
        vectors_PND = read.vectors_ND.unflatten(0, (len(prefixes), len(texts)))
        labels_PNE = [self._labels(*one, worded_NE) for one in zip(prefixes, self.orders, strict=True)]
        found, legal = zip(*map(self._scores, vectors_PND, labels_PNE), strict=True)
        average_NC = np.mean(found, axis=0)
        more = {"legal_mass": np.mean(legal, axis=0).tolist()}
        if len(found) > 1:
            more["agreement"] = self._agreement(found, average_NC).tolist()
        return Measured(average_NC, read.windows[: len(texts)], more)

    @torch.inference_mode()
    def _worded(self) -> torch.Tensor:
        """(N,384): unit vectors of the labels in all wordings, averaged; zero for "none of these"."""
        read = self.reader([wording.format(label) for label in self.listed for wording in WORDINGS])
        self.tokens += read.tokens
        units_NWE = self.matching.embed(read.vectors_ND).unflatten(0, (len(self.listed), len(WORDINGS)))
        worded_NE = F.normalize(units_NWE.sum(1), dim=-1)
        worded_NE[self.none] = 0
        return worded_NE

    def _prefix(self, order: Sequence[int]) -> Prefix:
        listed = [*(self.listed[n] for n in order), *self.listed[len(order) :]]
        return self.reader.prefixes.read(*lay_out_labels(self.reader.vocabulary, listed))

    def _at_the_last(self, finished: Finished, texts: int) -> Finished:
        """Calls `finished` for a text once it was read after every order."""
        left = [len(self.orders)] * texts

        def note(index: int) -> None:
            text = index % texts
            left[text] -= 1
            if not left[text]:
                finished(text)

        return note

    @torch.inference_mode()
    def _labels(self, prefix: Prefix, order: Sequence[int], worded_NE: torch.Tensor) -> torch.Tensor:
        """Unit vectors (N,384) of the labels in the order that the user gave."""
        back = torch.tensor([*np.argsort(order), *range(len(order), len(self.listed))])
        return F.normalize(self.matching.embed(prefix.spans_ND.cpu()[back]) + worded_NE, dim=-1)

    @torch.inference_mode()
    def _scores(self, vectors_ND: torch.Tensor, labels_NE: torch.Tensor) -> tuple[Array, Array]:
        """Probabilities (N,C) of the labels, and the legal mass (N)."""
        choice, fit = self.matching.scores(self.matching.embed(vectors_ND), labels_NE)
        mass_NC = probabilities(choice.double().numpy(), "single")
        refused_N = mass_NC[:, self.none]
        if self.kind == "multi":
            return probabilities(fit.double().numpy(), "multi")[:, : len(self.labels)], 1 - refused_N
        kept_NC = mass_NC[:, : len(self.labels)]
        return kept_NC / kept_NC.sum(axis=1, keepdims=True), 1 - refused_N

    def _agreement(self, found: Sequence[Array], average_NC: Array) -> Array:
        def answers(scores_NC: Array) -> NDArray[Any]:
            if self.kind == "multi":
                return given(scores_NC, thresholds_of(self.policy, self.calibration), self.alone)
            return scores_NC.argmax(axis=1)[:, None]

        same: Array = np.mean([(answers(one) == answers(average_NC)).all(axis=1) for one in found], axis=0)
        return same


def orders(count: int, permutations: int, seed: int = 0) -> list[list[int]]:
    """The given order, then random ones, no two alike and the same each time; all there are, if these are fewer."""
    rng = random.Random(f"{seed}/{count}")
    found = {tuple(range(count)): None}
    while len(found) < min(permutations, math.factorial(count)):
        found[tuple(rng.sample(range(count), count))] = None
    return list(map(list, found))


def load_zero_shot(asked: Question) -> ZeroShotJudge:
    """The judge of a label list on nautile-mini, or on a folder with a matching head.

    Raises:
        NautileError: a model that has not learned to match texts with labels.
    """
    base = asked.model or BASE
    matching = load_matching(base)
    return ZeroShotJudge(base_reader(base, asked.precision, asked.device), matching, asked)


def load_matching(base: str) -> MatchingHead:
    """The matching head beside a checkpoint; raises NautileError where there is none."""
    path = Path(locate(base)) / "heads" / "zero_shot" / "head.safetensors"
    if not path.is_file():
        raise NautileError(f"{base}: has no head for labels that it was not trained on; nautile-mini has one")
    tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
    head = MatchingHead(tensors["project.weight"].shape[1])
    head.load_state_dict(tensors)
    return head
