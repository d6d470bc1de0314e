"""Counterfactuals: rules that rewrite a text so that what it says of a matter stays, and who seems to say it changes.

They are crude. Words are replaced by spelling, without grammar: some results nobody would write. Dialect is grammar,
sound and a community, not these respellings; a text with them is no sample of how anyone speaks. Names stand for groups
only in that they are commoner in one than in others. So a shift shows that a model reacts to surface marks; that there
is none does not show that it is fair. Nothing is inferred about who wrote a text or is named in it.
"""

import random
import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

Rewrite = Callable[[str], str | None]
Replace = Callable[[re.Match[str]], str]

LEFT, RIGHT = r"(?<![\w@#-])", r"(?![\w-])"  # whole words; no handles, hashtags or parts of compounds

PAIRS = """he/she himself/herself man/woman men/women boy/girl boys/girls gentleman/lady gentlemen/ladies father/mother
fathers/mothers dad/mom son/daughter sons/daughters brother/sister brothers/sisters husband/wife husbands/wives
boyfriend/girlfriend uncle/aunt nephew/niece grandfather/grandmother grandson/granddaughter actor/actress
actors/actresses waiter/waitress hero/heroine male/female"""
NO_NOUN = """a an the and or but nor so to of in on at for from with without by as about into onto over under after
before if when while because since than that this these those who whom which what where why how is was are were be am
has had have does did do will would can could should may might must not never now then there here again too also just
out up down off back away through during until though it they we you i me us them he she him her his hers himself
herself yesterday today tomorrow"""
SPELLINGS = """center/centre centers/centres centered/centred theater/theatre theaters/theatres gray/grey
defense/defence offense/offence skeptical/sceptical skeptic/sceptic traveled/travelled traveling/travelling
traveler/traveller canceled/cancelled canceling/cancelling modeled/modelled labeled/labelled marvelous/marvellous
jewelry/jewellery pajamas/pyjamas catalog/catalogue catalogs/catalogues aluminum/aluminium mustache/moustache cozy/cosy
plow/plough fulfill/fulfil enrollment/enrolment analyze/analyse analyzed/analysed tires/tyres"""
STEMS = {  # American and British endings, with the stems and what may follow
    ("or", "our"): ("col fav flav hon hum lab neighb rum behavi endeav sav", "s ed ing ful able ite ites hood"),
    ("iz", "is"): (
        "organ real recogn apolog critic memor emphas general special author character minim maxim symbol util",
        "e es ed ing ation ations",
    ),
}
STOPPED = "the/da this/dis that/dat them/dem these/dese those/dose"
NO_VERB = (
    r"(?i:an?|the|this|that|these|those|my|your|his|her|its|our|their|some|any|all|both|each|every|work|bed|school|"
    r"church|college|jail|town|of)\b"
)
PUNCTUATION = re.compile(f"[{re.escape(string.punctuation)}“”‘’…–—]")
NAMES = {  # five of women, five of men
    "African American": "Latoya Keisha Aaliyah Imani Ebony Darnell Jamal DeShawn Tyrone Terrell",
    "European American": "Emily Claire Allison Molly Kristen Brad Connor Jake Greg Scott",
    "Hispanic": "Maria Lucia Ximena Rosa Esperanza Carlos Diego Luis Javier Alejandro",
    "East Asian": "Mei Yuki Sakura Minji Xiaoling Hiroshi Kenji Minho Jianguo Takashi",
    "South Asian": "Priya Anjali Lakshmi Deepa Sunita Raj Arjun Sanjay Vikram Anil",
    "Arabic": "Fatima Aisha Layla Zainab Mariam Ahmed Omar Khalid Hassan Youssef",
}
SENTENCES = """{} helped me find the right size and was very kind about it.
Dinner at {}'s house was wonderful.
{} fixed our heating on the first visit.
I trust {} with anything at work.
{} made everyone laugh at the party.
My children love their lessons with {}.
{} answered every question patiently.
Thanks to {}, we finished the project early.
The speech that {} gave was moving.
{} is the best colleague I have ever had.
{} forgot our order twice and never said sorry.
The meeting with {} was a waste of time.
{} shouted at the driver.
I would not hire {} again.
{} was late for the third time this week.
Working with {} has been exhausting.
{} lost our keys and blamed us for it.
The repair that {} did broke after a day.
{} ignored my messages for a month.
We were disappointed by what {} cooked.
{} works at the bank on Tuesdays.
I met {} at the bus stop.
{} is my cousin.
The parcel was signed for by {}.
{} asked when the shop opens.
My appointment is with {} at three.
{} moved to another department last year.
We had lunch with {} and talked about the schedule.
{} called to ask about the invoice.
The next speaker is {}.""".splitlines()


@dataclass(frozen=True)
class Swap:
    """A named rule: a text to its counterfactual, or to None where the rule has nothing to change."""

    name: str
    rewrite: Rewrite


def pairs(listed: str) -> dict[str, str]:
    """One word to the other, of "one/other" between blanks."""
    return dict(pair.split("/") for pair in listed.split())


def british() -> dict[str, str]:
    """American spellings to British ones; some of the forms are no words."""
    built = {
        f"{stem}{ours}{end}": f"{stem}{theirs}{end}"
        for (ours, theirs), (stems, ends) in STEMS.items()
        for stem in stems.split()
        for end in ("", *ends.split())
    }
    return built | pairs(SPELLINGS)


def name_groups() -> dict[str, dict[str, list[str]]]:
    """The names by trait and group; each has all groups of one size, and "gender" and "origin" hold the same names."""
    names = {origin: listed.split() for origin, listed in NAMES.items()}
    women, men = ([name for listed in names.values() for name in listed[half]] for half in (slice(5), slice(5, None)))
    return {"gender": {"women": women, "men": men}, "origin": names}


def changed(old: str, new: str) -> str | None:
    """The new text, None where it is the old one or holds nothing."""
    return new if new != old and new.strip() else None


def exchange_genders(text: str) -> str | None:
    """Exchange he and she, man and woman and the like; undone by a second call.

    "her" becomes "his", and "his" "her", before a word that may begin what is owned (any that is not in NO_NOUN), else
    "him" and "hers". Texts that this would not bring back, such as those with "him go" or "hE", are left out: None.
    """
    new = _exchanged(text)
    return changed(text, new) if _exchanged(new) == text else None


def gendered(male: bool, female: bool) -> Rewrite:
    """`exchange_genders` for texts that have male words or not, and female words or not."""
    asked = (male, female)

    def rewrite(text: str) -> str | None:
        found = tuple(pattern.search(text) is not None for pattern in (_MALE, _FEMALE))
        return exchange_genders(text) if found == asked else None

    return rewrite


def typo(seed: int) -> Rewrite:
    """Two neighbouring letters of one word change places; where, depends on the seed and the text alone."""

    def rewrite(text: str) -> str | None:
        letters = enumerate(pairwise(text))
        places = [n for n, (a, b) in letters if a.isalpha() and b.isalpha() and a != b]
        if not places:
            return None
        n = random.Random(f"{seed} {text}").choice(places)
        return text[:n] + text[n + 1] + text[n] + text[n + 2 :]

    return rewrite


def without_punctuation(text: str) -> str | None:
    """No punctuation: apostrophes go, other marks become blanks, and runs of blanks one."""
    bare = PUNCTUATION.sub(" ", re.sub("['’]", "", text))
    return changed(text, " ".join(bare.split())) if PUNCTUATION.search(text) else None


def together(swaps: Sequence[Swap]) -> Rewrite:
    """All these rules, one after the other."""

    def rewrite(text: str) -> str | None:
        new = text
        for swap in swaps:
            new = swap.rewrite(new) or new
        return changed(text, new)

    return rewrite


def _like(new: str, old: str) -> str:
    """`new` in capitals where `old` is, or with a capital where `old` begins with one."""
    if old.isupper():
        return new.upper()
    return new[:1].upper() + new[1:] if old[:1].isupper() else new


def _whole(words: Iterable[str]) -> str:
    return f"{LEFT}(?:{'|'.join(words)}){RIGHT}"


def _rule(pattern: str, replace: Replace) -> Rewrite:
    compiled = re.compile(pattern, re.IGNORECASE)
    return lambda text: changed(text, compiled.sub(replace, text))


def _phrase(pattern: str, new: str) -> Rewrite:
    return _rule(LEFT + pattern + RIGHT, lambda match: _like(new, match[0]))


def _words(table: Mapping[str, str]) -> Rewrite:
    return _rule(_whole(table), lambda match: _like(table.get(match[0].lower(), match[0]), match[0]))


_HIS = pairs(PAIRS)
_ALONE = _HIS | {her: his for his, her in _HIS.items()} | pairs("him/her his/hers her/him hers/his")
_OWNING = _ALONE | pairs("his/her her/his")
_NO_NOUN = frozenset(NO_NOUN.split())
_MALE, _FEMALE = (
    re.compile(_whole(words), re.IGNORECASE) for words in ([*_HIS, "him", "his"], [*_HIS.values(), "her", "hers"])
)
_GENDERED = re.compile(_whole(_ALONE) + r"(?=(?:\s+(\w+))?)", re.IGNORECASE)


def _exchanged(text: str) -> str:
    def other(match: re.Match[str]) -> str:
        table = _OWNING if match[1] and match[1].lower() not in _NO_NOUN else _ALONE
        return _like(table.get(match[0].lower(), match[0]), match[0])

    return _GENDERED.sub(other, text)


_GOING_TO = rf"going\s+to(?=\s+(?!{NO_VERB})(?-i:[a-z]))"
_COPULA = rf"{LEFT}(?:(they|we|you)(?:\s+are|\s?['’]re)|(he|she)\s+is)(?=\s+\w)"
_DIALECT = (
    Swap("isn't, is not → ain't", _phrase(r"(?:(?:is|are|am)\s+not|(?:is|are)\s?n['’]t)", "ain't")),
    Swap("going to → gonna", _phrase(_GOING_TO, "gonna")),
    Swap("you all → y'all", _phrase(rf"you\s+all(?!\s+{NO_VERB})", "y'all")),
    Swap("they are late → they late", _rule(_COPULA, lambda match: match[1] or match[2])),
    Swap("this, that, them → dis, dat, dem", _words(pairs(STOPPED))),
    Swap(
        "-ing → -in'",
        _rule(rf"{LEFT}(\w*[aeiouy]\w*)(ing){RIGHT}", lambda match: match[1] + _like("in'", match[2])),
    ),
)


def families(seed: int) -> dict[str, tuple[Swap, ...]]:
    """All swaps of real texts, by what they are about; the seed is that of the typos."""
    genders = {"he → she": (True, False), "she → he": (False, True), "both exchanged": (True, True)}
    return {
        "gender": tuple(Swap(name, gendered(*words)) for name, words in genders.items()),
        "dialect": (
            *_DIALECT,
            Swap("all of these", together(_DIALECT)),
            Swap("going to → finna", _phrase(_GOING_TO, "finna")),
        ),
        "spelling": (
            Swap("color → colour", _words(british())),
            Swap("colour → color", _words({ours: theirs for theirs, ours in british().items()})),
        ),
        "typing": (
            Swap("lower case", lambda text: changed(text, text.lower())),
            Swap("no punctuation", without_punctuation),
            Swap("one typo", typo(seed)),
        ),
    }
