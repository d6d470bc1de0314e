"""Packages that only some uses need: one clear message where they are missing."""

from importlib.metadata import PackageNotFoundError, requires, version
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


def missing(extra: str, package: str = "nautile") -> list[str]:
    """What an extra needs ("": nautile itself) and is not there, or in a version that is too old or too new."""
    from packaging.requirements import Requirement

    found = []
    for wanted in map(Requirement, requires(package) or ()):
        if not (wanted.marker.evaluate({"extra": extra}) if wanted.marker else extra == ""):
            continue
        if wanted.name == package:
            found += [one for inner in sorted(wanted.extras) for one in missing(inner, package)]
            continue
        try:
            there = version(wanted.name)
        except PackageNotFoundError:
            found.append(wanted.name)
            continue
        if not wanted.specifier.contains(there, prereleases=True):
            found.append(f"{wanted.name}{wanted.specifier} ({there} is there)")
    return list(dict.fromkeys(found))
