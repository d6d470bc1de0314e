"""A label list as a prefix: ``<|im_start|>``, one line a label, ``<|im_end|>``; then the text is read.

The frame is made of control ids, which no label or text can contain, so neither can break out of its place.
"""

from collections.abc import Sequence

from nautile.model.vocabulary import Vocabulary
from nautile.tasks.cells import VISIBLE

NONE = "none of these"
WORDINGS = ("{}", "it is {}", "this is {}.", "about {}", "this is about {}.")  # in which a label stands by itself


def spoken(name: str) -> str:
    """A label's name as the model reads it: card_arrival is card arrival."""
    return name.replace("_", " ")


def heard(name: str) -> str:
    """What tells a label from another: not case, blanks around or between words, or what cannot be seen."""
    seen = (char for char in spoken(name).casefold() if char.isspace() or VISIBLE.match(char))
    return " ".join("".join(seen).split())


def lay_out_labels(vocabulary: Vocabulary, labels: Sequence[str]) -> tuple[list[int], list[tuple[int, int]]]:
    """The ids of the prefix and the span of each label's line in it, without the line's end."""
    ids, spans = [vocabulary.control["<|im_start|>"]], []
    for label in labels:
        line = vocabulary.encode(label)
        spans.append((len(ids), len(ids) + len(line)))
        ids += [*line, *vocabulary.encode("\n")]
    return [*ids, vocabulary.control["<|im_end|>"]], spans
