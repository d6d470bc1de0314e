"""Label sets that the corpus holds by its own structure: titles, categories, kinds of answers, traits, words.

All leave out the documents that language models are measured on (`documents.py`).
"""

import itertools
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from nautile.tasks.backbone.label_set import LabelSet, Wordings
from nautile.tasks.backbone.texts import passages
from nautile.tasks.corpus import documents

MOST = 30_000  # texts a set
LONGEST_TITLE = 90  # characters
SHORTEST = 30  # characters of a passage
SENTENCES_FROM = 1500  # characters of an article or answer
TITLED = ("wikipedia", "openstax", "us_gov_blogs", "arxiv_abstracts", "senate_press_releases")
ABOUT = ("{}", "{}", "about {}")
SUBJECTS = ("{}", "{}", "about {}", "a question about {}", "category: {}")
VAGUE = {"introduction", "general", "newest", "rated", "people", "for kids", "brain teasers"}
CATEGORIES = {
    "science technology": ("science and technology", "science", "technology"),
    "religion faith": ("religion", "religion and faith"),
    "movies": ("movies", "film", "cinema"),
    "sports": ("sports", "sport"),
    "television": ("television", "TV shows"),
    "world": ("the world", "countries and places"),
    "animals": ("animals", "nature and wildlife"),
    "celebrities": ("celebrities", "famous people"),
}
ANSWERS = {  # how MedQuAD's questions begin, and what their answers are about
    "what is (are)": ("a definition", "what a condition is", "general information"),
    "what are the symptoms": ("symptoms", "signs of a disease"),
    "what causes": ("causes", "why a disease happens"),
    "what are the treatments": ("treatment", "how a disease is treated", "therapy"),
    "how to diagnose": ("diagnosis", "medical tests", "how a disease is found"),
    "how to prevent": ("prevention", "how to avoid a disease"),
    "what is the outlook": ("outlook", "prognosis"),
    "who is at risk": ("risk factors", "who is at risk"),
    "how many people": ("how common a disease is", "frequency"),
    "what are the genetic": ("genetics", "genes and mutations"),
    "is ": ("inheritance", "whether a disease runs in families"),
    "what research": ("research", "clinical trials"),
    "what are the complications": ("complications", "what else a disease may lead to"),
    "what to do for": ("diet and self-care", "what patients can do"),
}
QUESTION = re.compile(r"(?m)^(?:What|How|Who|Is|what) [^\n]{5,200}\?$")
TRAIT = re.compile(r"someone with this trait: ([^\n]+)\.\n")
STATEMENT = re.compile(r"\"([^\"\n]+)\"\nAnswer: (Yes|No)")
ENTRY = re.compile(r"(?m)^([a-z][a-z -]+) \((?:noun|verb|adjective|adverb)\): ([^.\n]{15,200})\.")

Pair = tuple[str, list[str]]


def corpus_sets(corpus: Path) -> list[LabelSet]:
    """The sets of those sources that are there."""
    makers: list[tuple[str, Callable[[str, random.Random], Iterator[Pair]], Wordings, tuple[str, ...]]] = [
        *((name, titled, {}, ABOUT) for name in TITLED),
        ("open_trivia_qa", trivia, CATEGORIES, SUBJECTS),
        ("medquad", answers, ANSWERS, ABOUT),
        ("anthropic_evals", statements, {}, ("{}",)),
        ("wordset_dictionary", definitions, {}, ("{}",)),
    ]
    return [
        _gather(corpus / f"{name}.jsonl.xz", pairs_of, wordings, frames)
        for name, pairs_of, wordings, frames in makers
        if (corpus / f"{name}.jsonl.xz").is_file()
    ]


def titled(document: str, rng: random.Random) -> Iterator[Pair]:
    """The first line as the label of one of the later sentences; capitals, as press releases have them, made small."""
    title, _, body = document.partition("\n")
    if 3 < len(title) < LONGEST_TITLE and title.lower() not in VAGUE and (found := _passages(body, rng)):
        yield rng.choice(found), [title.lower() if title.isupper() else title]


def trivia(document: str, rng: random.Random) -> Iterator[Pair]:
    """Each question under the document's category."""
    head, *blocks = document.split("\n\n")
    category = head.removeprefix("Trivia questions: ")
    if category not in VAGUE:
        yield from ((block.partition("\n")[0], [category]) for block in blocks)


def answers(document: str, rng: random.Random) -> Iterator[Pair]:
    """A sentence of each answer, labelled by how its question begins."""
    questions = list(QUESTION.finditer(document))
    for question, following in itertools.zip_longest(questions, questions[1:]):
        answer = document[question.end() : following.start() if following else None]
        kind = next((kind for kind in ANSWERS if question.group().lower().startswith(kind)), None)
        if kind and (found := _passages(answer, rng)):
            yield rng.choice(found), [kind]


def statements(document: str, rng: random.Random) -> Iterator[Pair]:
    """What someone with a trait would say has the trait as its label; what they would not say has none."""
    if trait := TRAIT.search(document):
        for text, answer in STATEMENT.findall(document):
            yield text, [trait.group(1)] if answer == "Yes" else []


def definitions(document: str, rng: random.Random) -> Iterator[Pair]:
    """Definitions, labelled by their words."""
    yield from ((meaning, [word]) for word, meaning in ENTRY.findall(document))


def _passages(text: str, rng: random.Random) -> list[str]:
    return [passage for passage in passages(text[:SENTENCES_FROM], rng) if len(passage) >= SHORTEST]


def _gather(
    path: Path, pairs_of: Callable[[str, random.Random], Iterator[Pair]], wordings: Wordings, frames: tuple[str, ...]
) -> LabelSet:
    rng = random.Random(path.name)
    pairs = [pair for document in documents(path, held_out=False) for pair in pairs_of(document, rng)]
    return LabelSet.of(rng.sample(pairs, min(MOST, len(pairs))), wordings, frames)
