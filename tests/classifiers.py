"""Texts for the tests of `Classifier`."""

import numpy as np

WORDS = {
    "fruit": "apple banana cherry melon plum",
    "metal": "iron copper zinc lead tin",
    "river": "Rhine Nile Amazon Elbe",
}


def sentences(per_class: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Texts of words of one class each, all distinct."""
    rng = np.random.default_rng(seed)
    found: dict[str, str] = {}
    for label, words in WORDS.items():
        while sum(known == label for known in found.values()) < per_class:
            found[" ".join(rng.choice(words.split(), 8))] = label
    return list(found), list(found.values())
