"""Dev splits that calibrate a head with one half of their rows and measure it with the other.

What a training split keeps back may be easier than what comes after it: probabilities and sets would promise too much.
"""

import hashlib

from nautile.tasks.backbone.texts import key


def calibrates(text: str) -> bool:
    """Whether a row of such a split is for calibration; a digest says it, the same for copies of a text."""
    return hashlib.sha256(key(text).encode()).digest()[0] % 2 == 0
