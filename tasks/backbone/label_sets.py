"""Sets of labels to learn matching from: public sets in many wordings. Banking77 and AG News stay out."""

from pathlib import Path

import pandas as pd

from nautile.tasks.backbone.corpus_sets import corpus_sets
from nautile.tasks.backbone.heads.rows import OUT_OF_SCOPE, intent_rows, part, topic_rows
from nautile.tasks.backbone.label_set import LabelSet, Wordings
from nautile.tasks.backbone.texts import held_out, key
from nautile.tasks.corpus import rows

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
TOPICS = {
    "arts and entertainment": (
        "arts and entertainment",
        "entertainment",
        "culture",
        "film, music and books",
        "the arts",
    ),
    "business and economy": ("business and economy", "business", "the economy", "companies and markets", "finance"),
    "conflict and security": ("conflict and security", "war", "armed conflict", "defence", "world news"),
    "crime and law": ("crime and law", "crime", "law", "courts", "justice"),
    "education": ("education", "schools and universities", "teaching"),
    "environment and weather": ("environment and weather", "environment", "nature", "climate", "weather and disasters"),
    "health": ("health", "medicine", "illness and treatment", "health care"),
    "politics and government": ("politics and government", "politics", "government", "elections", "public affairs"),
    "religion": ("religion", "faith", "religion and belief"),
    "science and technology": ("science and technology", "science", "technology", "research", "science/technology"),
    "sport": ("sport", "sports", "sports news", "athletes and competitions"),
}

FRAMES = ("{}", "{}", "{}", "about {}", "this is about {}", "{} in general", "the topic is {}", "category: {}")
INTENTS = ("{}", "{}", "{}", "asks about {}", "the user wants: {}", "intent: {}")
FEELINGS = ("{}", "{}", "feeling of {}", "the writer feels {}", "emotion: {}")


def labelled(path: Path, wordings: Wordings, frames: tuple[str, ...], seen: set[str]) -> LabelSet:
    """The set of a file with `text` and `label` or `labels`; texts whose key is in `seen` are left out."""
    pairs = [(str(r["text"]), r.get("labels") or [r["label"]]) for r in rows(path)]
    fit = [(text, list(map(str, labels))) for text, labels in pairs if key(text) and key(text) not in seen]
    return LabelSet.of(fit, wordings, frames)


def of_rows(frame: pd.DataFrame, wordings: Wordings, frames: tuple[str, ...], weight: float) -> LabelSet:
    """The set of a built-in head's rows, without those that are kept back for the head."""
    learned, _ = part(frame)
    labels = [[] if label == OUT_OF_SCOPE else [label] for label in learned["label"]]
    return LabelSet.of(zip(learned["text"], labels, strict=True), wordings, frames, weight)


def read_label_sets(data: Path, corpus: Path, run: Path, with_clinc150: bool = True) -> list[LabelSet]:
    """All sets of `data` that may be learned from, and those that the corpus holds."""
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
    sets.append(of_rows(topic_rows(data, corpus, run), TOPICS, FRAMES, weight=2))
    if with_clinc150:
        sets.append(of_rows(intent_rows(data, corpus, run), {}, INTENTS, weight=3))
    return [*sets, *corpus_sets(corpus)]
