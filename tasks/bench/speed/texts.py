"""Made-up English texts, the same each time."""

import random

_COMMON = (
    "the of and to in is it you that was for on are with as his they be at one have this from by hot word but what "
    "some we can out other were all there when up use your how said an each she which do their time if will way about "
    "many then them write would like so these her long make thing see him two has look more day could go come did "
    "number sound no most people my over know water than call first who may down side been now find any new work part "
    "take get place made live where after back little only round man year came show every good me give our under name "
    "very through just form great think say help low line before turn cause much mean move right boy old too same tell"
)
WORDS = _COMMON.split(" ")


def texts(count: int, shortest: int, longest: int, seed: int = 0) -> list[str]:
    """`count` distinct texts of `shortest` to `longest` words, nearly every word one token."""
    draw = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        found[" ".join(draw.choices(WORDS, k=draw.randint(shortest, longest)))] = None
    return list(found)


def with_repeats(distinct: list[str], rows: int, seed: int = 0) -> list[str]:
    """`rows` texts in random order: all the distinct ones, and some of them again."""
    draw = random.Random(seed)
    found = [*distinct, *draw.choices(distinct, k=rows - len(distinct))]
    draw.shuffle(found)
    return found
