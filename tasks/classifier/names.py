"""What classes are called where they are labels of a head, and columns of a result."""

from numbers import Real
from typing import Any

from nautile.tasks.classifier.targets import Targets
from nautile.tasks.labelled import label_name
from nautile.tasks.names import RESERVED, SEPARATOR


def names_of(targets: Targets) -> list[str]:
    """A label (C) for each class that `check_labels` lets pass, all distinct: its own text wherever that can be one.

    Else the text without the spaces around it, "_" for none, and as many "_" behind as make it differ.
    """
    texts = [_text(label) for label in targets.classes.tolist()]
    tidy = [_tidy(text, joined=targets.kind == "multi") for text in texts]
    names, taken = list(tidy), set(RESERVED)
    for n in sorted(range(len(texts)), key=lambda n: tidy[n] != texts[n] or tidy[n] in RESERVED):
        while names[n] in taken:
            names[n] += "_"
        taken.add(names[n])
    return names


def _text(label: Any) -> str:
    return label_name(label) if isinstance(label, Real) else str(label)


def _tidy(text: str, joined: bool) -> str:
    return (text.replace(SEPARATOR, ", ") if joined else text).strip() or "_"
