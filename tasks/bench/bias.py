"""The run of `nautile bench bias`: does a sentiment model answer differently where only a text's surface differs?

The score of a text is the probability of "positive" less that of "negative", from -1 to 1. What rewritten texts and
names can show and what they cannot stands in `swaps`. 95 % intervals: Wilson's of the share of texts that flip, which
holds for few texts as well; the bootstrap's of mean shifts, and for names of both names and sentences.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nautile import __version__
from nautile.errors import NautileError
from nautile.tasks.bench.bias_results import FEWEST, POOLED, Bias, Change, Gap, Group
from nautile.tasks.bench.rows import sample
from nautile.tasks.bench.swaps import SENTENCES, families, name_groups
from nautile.tasks.calibrate import choose
from nautile.tasks.evaluate.bootstrap import LEVEL, bootstrap, interval, wilson
from nautile.tasks.evaluate.checks import check_folder, make_folder
from nautile.tasks.evaluate.contenders import Contender, find_contender
from nautile.tasks.evaluate.measures import mean_of
from nautile.tasks.evaluate.results import Estimate
from nautile.tasks.kinds import Array
from nautile.tasks.labelled import read_labelled
from nautile.tasks.progress import Meter

SETS = ("sst2", "sst5", "tweet_sentiment", "amazon5")
SHUFFLES = 1000  # of names, for the gap by chance


class Opinion(NamedTuple):
    """What a model says of a text: the index of the label, and the score."""

    label: int
    score: float


def bias(
    data: Path,
    model: str | Path = "sentiment",
    rows: int = 1000,
    output: Path | None = None,
    seed: int = 0,
    resamples: int = 1000,
    visible: bool = False,
) -> Bias:
    """Measure on random samples of at most `rows` texts (0: all) of the dev splits of SETS, and on names.

    With `output` bias.json and bias.md are written there; `visible` shows a bar.

    Raises:
        NautileError: no set is there, a model that does not judge sentiment, a folder that cannot be written to.
    """
    if output is not None:
        check_folder(output)
    texts, notes = read_texts(data, rows, seed)
    contender = find_contender(model)
    if output is not None:
        make_folder(output)
    found = measure(contender, texts, notes, seed, resamples, visible)
    if output is not None:
        found.save(output, "bias.json", "bias.md")
    return found


def read_texts(data: Path, rows: int, seed: int) -> tuple[dict[str, list[str]], list[str]]:
    """The sampled texts of each set that is there, and notes; raises NautileError where none is."""
    found, notes = {}, []
    paths = {name: data / "sentiment" / name / "dev.jsonl.xz" for name in SETS}
    for name, path in paths.items():
        if not path.is_file():
            notes.append(f"{name} is left out: {path} is not there")
            continue
        texts = read_labelled(path, fewest_labels=1).texts
        found[name] = [texts[place] for place in sample(len(texts), rows, seed)]
        notes.append(f"{name}: {len(found[name]):,} of the {len(texts):,} texts of its dev split")
    if not found:
        raise NautileError(f"{data}: no set is there; give the folder that holds KIND/NAME/, as in {paths[SETS[0]]}")
    return found, notes


def measure(
    contender: Contender,
    texts: Mapping[str, Sequence[str]],
    notes: Sequence[str] = (),
    seed: int = 0,
    resamples: int = 1000,
    visible: bool = False,
) -> Bias:
    """All figures of a model on texts by set, and on names; raises NautileError as `judge` does."""
    sets = {POOLED: list(dict.fromkeys(chain.from_iterable(texts.values()))), **texts}
    swaps = [(family, swap) for family, members in families(seed).items() for swap in members]
    rewrites = [{text: new for text in sets[POOLED] if (new := swap.rewrite(text)) is not None} for _, swap in swaps]
    traits = name_groups()
    named = (sentence.format(name) for names in traits["origin"].values() for name in names for sentence in SENTENCES)
    said = judge(contender, chain(sets[POOLED], *(new.values() for new in rewrites), named), visible)
    by_trait = [of_names(said, trait, groups, resamples, seed) for trait, groups in traits.items()]
    return Bias(
        version=__version__,
        model=contender.name,
        notes=list(notes),
        seed=seed,
        resamples=resamples,
        changes=[
            Change(family=family, rule=swap.name, data=name, **_figures(said, rewrite, mine, resamples, seed))
            for name, mine in sets.items()
            for (family, swap), rewrite in zip(swaps, rewrites, strict=True)
        ],
        groups=[group for groups, _ in by_trait for group in groups],
        gaps=[gap for _, gap in by_trait],
    )


def judge(contender: Contender, texts: Iterable[str], visible: bool = False) -> dict[str, Opinion]:
    """The opinion on each distinct text; raises NautileError for a model without positive or negative labels."""
    if contender.kind == "multi" or not {"negative", "positive"} <= set(contender.labels):
        raise NautileError(f"{contender.name} does not choose between negative and positive; give a model that does")
    distinct = list(dict.fromkeys(texts))
    with Meter(visible) as meter:
        meter.begin(len(distinct))
        found_NC = contender.measure_all(distinct, lambda done: meter.advance(done, judged=True))
    negative_N, positive_N = (found_NC[:, contender.labels.index(label)] for label in ("negative", "positive"))
    opinions = map(Opinion, choose(found_NC, contender.kind).tolist(), (positive_N - negative_N).tolist())
    return dict(zip(distinct, opinions, strict=True))


def of_names(
    said: Mapping[str, Opinion], trait: str, groups: Mapping[str, Sequence[str]], resamples: int, seed: int
) -> tuple[list[Group], Gap]:
    """Groups of names, all of one size, in the same sentences.

    A resample draws names within each group, and sentences for all names alike.
    """
    shape = (len(groups), len(next(iter(groups.values()))), len(SENTENCES))
    names = chain.from_iterable(groups.values())
    opinions = [said[sentence.format(name)] for name in names for sentence in SENTENCES]
    scores_GNT = np.array([opinion.score for opinion in opinions]).reshape(shape)
    labels_GNT = np.array([opinion.label for opinion in opinions]).reshape(shape)
    flips_GNT = labels_GNT != [np.bincount(labels_N).argmax() for labels_N in labels_GNT.reshape(-1, shape[2]).T]
    generator = np.random.default_rng(seed)
    weights = _drawn(generator, resamples, shape[:2]), _drawn(generator, resamples, shape[2:])
    scores_G, flips_G = scores_GNT.mean(axis=(1, 2)), flips_GNT.mean(axis=(1, 2))
    scores_RG, flips_RG = (np.einsum("rgn,rt,gnt->rg", *weights, value_GNT) for value_GNT in (scores_GNT, flips_GNT))
    found = [
        Group(
            trait=trait,
            group=group,
            names=list(listed),
            score=scores_G[n],
            difference=interval(scores_G[n] - scores_G.mean(), scores_RG[:, n] - scores_RG.mean(axis=1)),
            flips=interval(flips_G[n], flips_RG[:, n]),
        )
        for n, (group, listed) in enumerate(groups.items())
    ]
    low, high = scores_G.argmin(), scores_G.argmax()
    return found, Gap(
        trait=trait,
        lowest=found[low].group,
        highest=found[high].group,
        gap=interval(scores_G[high] - scores_G[low], scores_RG[:, high] - scores_RG[:, low]),
        by_chance=gap_by_chance(scores_GNT.mean(axis=2), generator),
    )


def gap_by_chance(scores_GN: Array, generator: np.random.Generator) -> float:
    """The largest gap that 95 % of random deals of the names to the groups stay under."""
    dealt_SN = generator.permuted(np.tile(scores_GN.ravel(), (SHUFFLES, 1)), axis=1)
    gaps_S = np.ptp(dealt_SN.reshape(-1, *scores_GN.shape).mean(axis=2), axis=1)
    return float(np.quantile(gaps_S, LEVEL))


def share(hits: int, rows: int) -> Estimate:
    """Hits among rows, with Wilson's 95 % interval."""
    low, high = map(float, wilson(hits, rows))
    return Estimate(value=hits / rows, low=low, high=high)


def _figures(
    said: Mapping[str, Opinion], rewrites: Mapping[str, str], texts: Sequence[str], resamples: int, seed: int
) -> dict[str, Any]:
    """Those of a `Change`, of the texts that have a rewritten one."""
    pairs = [(said[text], said[rewrites[text]]) for text in texts if text in rewrites]
    if not pairs:
        return {"texts": 0}
    shift_N = np.array([new.score - old.score for old, new in pairs])
    drawn = resamples if len(pairs) >= FEWEST else 0
    [shift] = bootstrap({"shift": mean_of(shift_N)}, len(pairs), drawn, seed)["shift"]
    flips = sum(new.label != old.label for old, new in pairs)
    return {"texts": len(pairs), "flips": share(flips, len(pairs)), "shift": shift}


def _drawn(generator: np.random.Generator, resamples: int, shape: tuple[int, ...]) -> Array:
    """(R, *shape): what share of draws, as many as the last axis has items, fell on each of these."""
    items = shape[-1]
    return generator.multinomial(items, np.full(items, 1 / items), size=(resamples, *shape[:-1])) / items
