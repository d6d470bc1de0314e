"""A general news taxonomy that may ship, and passages labelled by what their encyclopedia article is about.

Eleven topics after the top level of IPTC's Media Topics (CC BY 4.0), those with enough texts at hand:

| topic | Media Topics |
|---|---|
| arts and entertainment | arts, culture, entertainment and media |
| business and economy | economy, business and finance; labour |
| conflict and security | conflict, war and peace |
| crime and law | crime, law and justice |
| education | education |
| environment and weather | environment; weather; disaster, accident and emergency incident |
| health | health |
| politics and government | politics and government |
| religion | religion |
| science and technology | science and technology |
| sport | sport |

An article's first sentence says what it is about ("… is a Scottish footballer"): a word of one topic and of no other
gives the topic to a later part of it, which is what is learned, if the teacher too finds that topic among its likeliest
three. What is defined by computers, networks or space is science and technology, companies as well.
"""

import random
import re
from pathlib import Path

from nautile.tasks.backbone.teacher import Teacher
from nautile.tasks.backbone.texts import SENTENCE
from nautile.tasks.corpus import rows

WORDS = {
    "arts and entertainment": """film films movie album song single novel novelist painter painting singer songwriter
        actor actress band musician composer poet sculptor sitcom opera musical comedian guitarist rapper dancer
        playwright filmmaker artist theatre museum""",
    "business and economy": """company bank businessman businesswoman entrepreneur economist retailer manufacturer
        corporation brewery airline supermarket investor conglomerate brand stockbroker currency insurer industrialist
        trade union""",
    "conflict and security": """battle war army regiment battalion brigade soldier warship destroyer frigate squadron
        siege massacre insurgency militia guerrilla missile militant corvette submarine campaign""",
    "crime and law": """lawyer attorney judge court lawsuit murderer gangster criminal jurist prison police detective
        barrister outlaw trial statute solicitor conviction robbery""",
    "education": """school university college academy seminary kindergarten curriculum polytechnic student teachers
        students educator faculty""",
    "environment and weather": """hurricane earthquake storm cyclone flood tornado wildfire eruption drought pollution
        conservation conservationist environmentalist wetland glacier climate rainforest tsunami typhoon""",
    "health": """disease hospital drug syndrome surgeon physician nurse medication infection cancer vaccine disorder
        therapy psychiatrist symptom clinic pharmacist dentist medical""",
    "politics and government": """politician senator election minister governor mayor party parliament diplomat
        ambassador congressman legislature referendum constituency legislator premier senate""",
    "religion": """bishop church saint theologian priest mosque diocese monastery temple cathedral rabbi missionary
        archbishop parish cardinal deity scripture monk clergyman religious""",
    "science and technology": """physicist chemist mathematician astronomer biologist software spacecraft satellite
        theorem enzyme protein molecule asteroid computer algorithm engineer chemical galaxy mineral microprocessor
        programming operating""",
    "sport": """footballer cricketer cyclist swimmer boxer wrestler golfer basketball baseball hockey rugby tennis
        soccer athlete sprinter gymnast goalkeeper quarterback linebacker racing stadium championship olympic fencer
        rower skier""",
}
TECHNOLOGY = re.compile(
    r"\b(?:software|internet|web|website|computers?|computing|electronics|semiconductor|telecommunications?|smartphone"
    r"|mobile (?:phone|app|operating|device|network)|wireless|search engine|browser|social network(?:ing)?|protocol"
    r"|online (?:service|community|platform|retailer|database)|technology company|programming|database"
    r"|video game console|robot|artificial intelligence|microchip|file format|cryptograph\w+|malware"
    r"|space (?:probe|mission|agency|telescope|station))\b"
)  # in a definition, also beside "company": news about such companies is news about technology
TOPICS = tuple(WORDS)
OF_WORD = {word: topic for topic, words in WORDS.items() for word in words.split()}
DEFINITION = re.compile(r"\b(?:is|was|are|were|became) (?:an?|the|one of the)\b([^.;]{0,140})")
MOST = 3000  # passages a topic
SOURCES = {"medquad": "health", "us_court_opinions": "crime and law", "arxiv_abstracts": "science and technology"}


def topic_of(article: str) -> str | None:
    """The one topic that the article's definition names, else None."""
    body = article.partition("\n")[2]
    if (found := DEFINITION.search(body[:400])) is None:
        return None
    defined = found.group(1).lower()
    topics = {OF_WORD[word] for word in re.findall(r"[a-z]+", defined) if word in OF_WORD}
    if TECHNOLOGY.search(defined):
        topics = (topics - {"business and economy"}) | {"science and technology"}
    return topics.pop() if len(topics) == 1 else None


def topic_passages(corpus: Path, teacher: Teacher, seed: int = 0) -> list[tuple[str, str]]:
    """(text, topic): parts of encyclopedia articles after their definition, and of sources of one topic."""
    rng = random.Random(seed)
    found: dict[str, list[str]] = {topic: [] for topic in TOPICS}
    for row in rows(corpus / "wikipedia.jsonl.xz"):
        article = str(row["text"])
        if topic := topic_of(article):
            found[topic] += _part(article.partition("\n")[2][250:4000], rng)
    for source, topic in SOURCES.items():
        texts = [str(row["text"]) for row in rows(corpus / f"{source}.jsonl.xz")]
        found[topic] += [part for text in rng.sample(texts, min(1200, len(texts))) for part in _part(text[:2000], rng)]
    return _agreed({topic: rng.sample(texts, min(MOST, len(texts))) for topic, texts in found.items()}, teacher)


def _part(text: str, rng: random.Random) -> list[str]:
    """One run of whole sentences of 120 to 400 characters, if there is one: one an article, so that rows are apart."""
    runs = [""]
    for sentence in SENTENCE.split(text)[1:-1]:
        runs[-1] = f"{runs[-1]} {sentence.strip()}".strip()
        if len(runs[-1]) >= 120:
            runs.append("")
    fit = [run for run in runs if 120 <= len(run) <= 400]
    return rng.sample(fit, min(1, len(fit)))


def _agreed(found: dict[str, list[str]], teacher: Teacher) -> list[tuple[str, str]]:
    """The passages whose topic the teacher finds among the likeliest three."""
    described = teacher([f"news about {topic}" for topic in TOPICS])
    pairs = [(text, topic) for topic, texts in found.items() for text in dict.fromkeys(texts)]
    likely = (teacher([text for text, _ in pairs]) @ described.T).topk(3).indices.tolist()
    return [pair for pair, best in zip(pairs, likely, strict=True) if TOPICS.index(pair[1]) in best]
