"""Sets of labels to learn matching from: public sets in many wordings. Banking77, CLINC150 and AG News stay out."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nautile.tasks.backbone.texts import held_out, key, passages
from nautile.tasks.documents import rows
from nautile.tasks.zero_shot.labels import spoken

STARS = {
    "very negative": ("very negative", "terrible", "one star", "the writer hated it"),
    "negative": ("negative", "bad", "two stars", "a complaint"),
    "neutral": ("neutral", "mixed", "three stars", "neither good nor bad"),
    "positive": ("positive", "good", "four stars", "the writer liked it"),
    "very positive": ("very positive", "excellent", "five stars", "the writer loved it"),
}
POLAR = {
    "negative": ("negative", "bad", "unfavourable", "negative sentiment", "the writer is unhappy", "dislike"),
    "positive": ("positive", "good", "favourable", "positive sentiment", "the writer is happy", "praise"),
}
QUESTIONS = {
    "abbreviation": ("abbreviation", "asks what an abbreviation stands for"),
    "entity": ("entity", "asks about a thing", "an animal, food, colour, product or other thing"),
    "description": ("description", "asks for a definition, reason or explanation"),
    "human": ("human", "asks about a person or group", "who"),
    "location": ("location", "asks about a place", "where"),
    "number": ("number", "asks for a number, date or amount", "how many, how much or when"),
}
Wordings = Mapping[str, tuple[str, ...]]

FRAMES = ("{}", "{}", "{}", "about {}", "this is about {}", "{} in general", "the topic is {}", "category: {}")
FEELINGS = ("{}", "{}", "feeling of {}", "the writer feels {}", "emotion: {}")


@dataclass(frozen=True)
class LabelSet:
    """Texts, the labels each one carries, the wordings of each label, and frames around them."""

    texts: Sequence[str]
    labels: Sequence[Sequence[str]]
    wordings: Wordings
    frames: tuple[str, ...] = ("{}",)

    def wording(self, label: str, rng: random.Random) -> str:
        """One way to put the label."""
        return rng.choice(self.frames).format(rng.choice(self.wordings[label]))


def labelled(path: Path, wordings: Wordings, frames: tuple[str, ...], seen: set[str]) -> LabelSet:
    """The set of a file with `text` and `label` or `labels`; texts whose key is in `seen` are left out."""
    pairs = [(str(r["text"]), r.get("labels") or [r["label"]]) for r in rows(path)]
    pairs = [(text, list(map(str, labels))) for text, labels in pairs if key(text) and key(text) not in seen]
    names = sorted({label for _, labels in pairs for label in labels})
    known = {name: wordings.get(name.lower(), (spoken(name),)) for name in names}
    return LabelSet([text for text, _ in pairs], [labels for _, labels in pairs], known, frames)


def read_label_sets(data: Path, corpus: Path) -> list[LabelSet]:
    """All sets of `data` that may be learned from, and one of titles and their articles' sentences."""
    kept_back = held_out(data)
    chosen: list[tuple[str, Wordings, tuple[str, ...]]] = [
        ("sentiment/goemotions", {}, FEELINGS),
        ("sentiment/tweet_emotion", {}, FEELINGS),
        ("sentiment/sst2", POLAR, ("{}",)),
        ("sentiment/customer_reviews", POLAR, ("{}",)),
        ("sentiment/imdb", POLAR, ("{}",)),
        ("sentiment/sst5", STARS, ("{}",)),
        ("sentiment/amazon5", STARS, ("{}",)),
        ("sentiment/yelp5", STARS, ("{}",)),
        ("topic/dbpedia14", {}, FRAMES),
        ("topic/trec6", QUESTIONS, ("{}",)),
    ]
    sets = [labelled(data / name / "train.jsonl.xz", words, frames, kept_back) for name, words, frames in chosen]
    return [*sets, titles(corpus / "wikipedia.jsonl.xz"), titles(corpus / "medquad.jsonl.xz")]


def titles(path: Path, most: int = 30_000, seed: int = 0) -> LabelSet:
    """Each article's first line as the label of one of its later sentences."""
    rng = random.Random(f"{seed}/{path.name}")
    texts: list[str] = []
    labels: list[list[str]] = []
    for row in rows(path):
        title, _, body = str(row["text"]).partition("\n")
        sentences = list(passages(body[:1500], rng))
        if 3 < len(title) < 60 and sentences and len(texts) < most:
            texts.append(rng.choice(sentences))
            labels.append([title])
    return LabelSet(texts, labels, {title: (title,) for [title] in labels}, ("{}", "{}", "about {}"))
