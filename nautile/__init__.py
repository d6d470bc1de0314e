"""Nautile: structured judgments from large volumes of text on modest hardware.

Importing this package is cheap: torch and transformers are imported when a name that needs them is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nautile.errors import NautileError
from nautile.quiet import quiet

if TYPE_CHECKING:
    from nautile.model.checkpoints import Nautile, load, register
    from nautile.tasks.analyze import analyze
    from nautile.tasks.classifier import Classifier
    from nautile.tasks.classify import classify
    from nautile.tasks.evaluate.run import evaluate
    from nautile.tasks.finetune.run import finetune

__version__ = "0.1.0"
__all__ = [
    "Classifier",
    "Nautile",
    "NautileError",
    "__version__",
    "analyze",
    "classify",
    "evaluate",
    "finetune",
    "load",
    "register",
]

_HOMES = {
    "Classifier": "nautile.tasks.classifier",
    "Nautile": "nautile.model.checkpoints",
    "analyze": "nautile.tasks.analyze",
    "classify": "nautile.tasks.classify",
    "evaluate": "nautile.tasks.evaluate.run",
    "finetune": "nautile.tasks.finetune.run",
    "load": "nautile.model.checkpoints",
    "register": "nautile.model.checkpoints",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nautile' has no attribute {name!r}")
    with quiet():
        value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
