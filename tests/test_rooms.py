"""Who may import whom, as CONTRIBUTING says: read from the source, so that no import has to run."""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = {"model": ROOT / "nautile" / "model", "engine": ROOT / "nautile" / "engine", "tasks": ROOT / "tasks"}
ABOVE = {"model": ("engine", "tasks"), "engine": ("tasks",), "tasks": ()}
DOORS = ("pretraining", "cli")
TASKS = ("heads", "zero_shot", "files", "evaluate", "finetune", "classifier", "backbone", "bench")  # lowest first
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
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules(folder: Path) -> list[tuple[str, str]]:
    """(file, imported module) of all files below a folder."""
    paths = sorted(folder.rglob("*.py"))
    found = [(str(path.relative_to(ROOT)), name) for path in paths for name in sorted(imported(path))]
    assert len(found) > 10
    return found


def within(name: str, packages: Iterable[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_nothing_from_above_and_no_jax(room: str) -> None:
    barred = [f"nautile.{name}" for name in (*ABOVE[room], *DOORS)]
    assert not [one for one in modules(ROOMS[room]) if within(one[1], barred) or within(one[1], JAX)]


@pytest.mark.parametrize("task", TASKS)
def test_a_task_imports_nothing_from_those_above_it(task: str) -> None:
    above = [f"nautile.tasks.{name}" for name in TASKS[TASKS.index(task) + 1 :]]
    assert not [one for one in modules(ROOT / "tasks" / task) if within(one[1], above)]


def test_pretraining_shares_little_and_one_file_knows_both_frameworks() -> None:
    shared = [f"nautile.{name}" for name in ("pretraining", *SHARED)]
    wrong = [
        file
        for file, name in modules(ROOT / "pretraining")
        if within(name, ("torch", "transformers")) or (within(name, ["nautile"]) and not within(name, shared))
    ]
    assert set(wrong) == {"pretraining/convert.py"}
