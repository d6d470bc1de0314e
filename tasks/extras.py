"""Packages that only some uses need: one clear message where they are missing."""

from importlib.util import find_spec

from nautile.errors import NautileError

PURPOSES = {"finetune": "fine-tuning", "int8": "precision int8", "train": "the MiniLM baseline"}


def require(extra: str, *modules: str, purpose: str | None = None) -> None:
    """Check that `modules` can be imported, without importing them.

    `purpose` is what needs them, in words; by default what the extra is for.

    Raises:
        NautileError: some cannot; it names the extra to install.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        wants = purpose or PURPOSES.get(extra, "this")
        raise NautileError(
            f'{wants} needs more packages: pip install "nautile[{extra}]" (missing: {", ".join(missing)})'
        )
