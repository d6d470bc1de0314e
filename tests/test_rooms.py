"""Who may import whom, as CONTRIBUTING says: read from the source, so that no import has to run."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = {"model": ROOT / "nautile" / "model", "engine": ROOT / "nautile" / "engine", "tasks": ROOT / "tasks"}
ABOVE = {"model": ("engine", "tasks"), "engine": ("tasks",), "tasks": ()}
DOORS = ("pretraining", "cli")
JAX = {"jax", "flax", "optax", "orbax", "grain", "tensorstore"}
SHARED = {"errors", "model.architecture", "model.vocabulary"}  # what pretraining takes from the library


def imported(path: Path) -> Iterator[str]:
    """The full names of the modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            yield str(node.module)


def modules(folder: Path) -> list[tuple[str, str]]:
    """(file, imported module) of all files below a folder."""
    found = [
        (str(path.relative_to(ROOT)), name) for path in sorted(folder.rglob("*.py")) for name in sorted(imported(path))
    ]
    assert len(found) > 20
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_nothing_from_above_and_no_jax(room: str) -> None:
    barred = tuple(f"nautile.{name}" for name in (*ABOVE[room], *DOORS))
    wrong = [
        (file, name)
        for file, name in modules(ROOMS[room])
        if name.split(".")[0] in JAX or any(name == one or name.startswith(f"{one}.") for one in barred)
    ]
    assert not wrong


def test_pretraining_shares_little_and_one_file_knows_both_frameworks() -> None:
    wrong = []
    for file, name in modules(ROOT / "pretraining"):
        own, _, inner = name.partition(".")
        if own in ("torch", "transformers") or (
            own == "nautile" and not inner.startswith("pretraining") and inner not in SHARED
        ):
            wrong.append((file, name))
    assert {file for file, _ in wrong} == {"pretraining/convert.py"}, wrong
