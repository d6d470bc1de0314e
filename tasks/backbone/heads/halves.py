"""Which rows are kept for what, by a digest of their text: the same on every machine, and for copies of a text.

Dev splits calibrate a head with one half of their rows and measure it with the other, since what a training split keeps
back may be easier than what comes after it: probabilities and sets would promise too much.
"""

import hashlib

from nautile.tasks.backbone.texts import key


def calibrates(text: str) -> bool:
    """Whether a row of such a split is for calibration."""
    return _digest(text)[0] % 2 == 0


def kept_back(text: str, share: float) -> bool:
    """Whether a row of a training split is kept back from training, as about a share of all texts are."""
    return int.from_bytes(_digest(text)[1:9], "big") < share * 2**64


def _digest(text: str) -> bytes:
    return hashlib.sha256(key(text).encode()).digest()
