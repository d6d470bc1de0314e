"""Who judges a set: nautile-mini, baselines trained on the spot, and peers that nothing is trained for."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast

from nautile.errors import NautileError
from nautile.model.places import fingerprint
from nautile.tasks.bench.peers import PEERS, check_peers
from nautile.tasks.bench.rows import Material
from nautile.tasks.bench.sets import BASELINES, FINE_TUNED, ZERO_SHOT, BenchSet, Settings
from nautile.tasks.evaluate.baselines import Baseline, check_baselines, train_baseline
from nautile.tasks.evaluate.contenders import Contender, find_contender
from nautile.tasks.files.chunks import CHUNK_ROWS
from nautile.tasks.question import BASE

SLOW_CHUNK = 10
METHOD = "head"  # of fine-tuning


class Entrant(NamedTuple):
    """A contender, on how many rows at most (0: all), and how many rows it judges before the bar moves."""

    contender: Contender
    most: int = 0
    chunk: int = CHUNK_ROWS


def check_entrants(sets: Sequence[BenchSet], settings: Settings) -> None:
    """Raise NautileError where a package is missing, or a folder for the model that is to be fine-tuned."""
    if settings.output is None and any(entry.judge == FINE_TUNED for entry in sets):
        raise NautileError("--finetune trains a model: give --output, the folder that is to hold it")
    check_baselines(BASELINES if any(entry.train for entry in sets) else ())
    check_peers([name for entry in sets for name in _peers(entry, settings)])


def find_entrants(entry: BenchSet, material: Material, settings: Settings) -> list[Entrant]:
    """The model first, then whom it is compared with."""
    labels, examples = material.rows.labels, material.examples
    ours = _ours(entry, labels, settings)
    found = [Entrant(ours)]
    if examples is not None:
        trained = [train_baseline(cast(Baseline, name), examples) for name in BASELINES]
        found += [Entrant(replace(one, out_of_scope=ours.out_of_scope)) for one in trained]
    for name in _peers(entry, settings):
        peer = PEERS[name]
        pace = (settings.smollm2_rows, SLOW_CHUNK) if peer.slow else (0, CHUNK_ROWS)
        found.append(Entrant(peer.make(labels), *pace))
    return found


def _ours(entry: BenchSet, labels: Sequence[str], settings: Settings) -> Contender:
    if entry.judge == ZERO_SHOT:
        return find_contender(settings.model, labels=labels)
    if entry.judge == FINE_TUNED:
        return replace(find_contender(_fine_tuned(entry, settings)), name=f"{BASE}, fine-tuned")
    return find_contender(entry.judge)


def _fine_tuned(entry: BenchSet, settings: Settings) -> Path:
    """The folder of a run on the set's training rows: the finished one that is there, or one made now.

    Raises:
        NautileError: the one that is there was made from other weights, by another method or with another seed.
    """
    from nautile.tasks.finetune.run import finetune
    from nautile.tasks.heads.folder import FINISHED
    from nautile.tasks.heads.head import read_about

    assert settings.output is not None, "check_entrants comes before"
    folder = settings.output / entry.name
    if (folder / FINISHED).is_file():
        about = read_about(folder)["about"]
        wanted = {"base_digest": fingerprint(BASE), "seed": settings.seed, "method": METHOD}
        if any(about.get(name) != value for name, value in wanted.items()):
            told = "was fine-tuned from other weights, by another method or with another seed"
            raise NautileError(f"{folder}: {told}; remove or rename it")
        return folder
    _, train = entry.files(settings.data)
    quiet = not settings.visible
    return finetune(train, output=str(folder), method=METHOD, refit=True, seed=settings.seed, quiet=quiet)


def _peers(entry: BenchSet, settings: Settings) -> list[str]:
    return [name for name in entry.peers if settings.smollm2 or not PEERS[name].slow]
