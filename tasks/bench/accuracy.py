"""The run of `nautile bench accuracy`: each set judged by nautile-mini and its peers, on the same rows."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from nautile import __version__
from nautile.model.places import fingerprint
from nautile.tasks.bench.entrants import Entrant, check_entrants, find_entrants
from nautile.tasks.bench.report import Findings, Line
from nautile.tasks.bench.rows import at, read_set, sample
from nautile.tasks.bench.sets import BenchSet, Settings, choose_sets, present_sets
from nautile.tasks.evaluate.checks import check_folder, make_folder
from nautile.tasks.evaluate.compare import compare
from nautile.tasks.evaluate.results import Comparison, Summary
from nautile.tasks.evaluate.rows import judged_rows, keep_known, restrict
from nautile.tasks.evaluate.scores import Judged, figures
from nautile.tasks.labelled import Labelled
from nautile.tasks.progress import Meter
from nautile.tasks.question import BASE

Places = NDArray[np.int64]


def accuracy(settings: Settings, tell: Callable[[str], None] = lambda line: None) -> Findings:
    """Measure the sets that are asked for and there, and write what was found into `settings.output`.

    `tell` gets a line for each set that is left out, and one before each that is measured.

    Raises:
        NautileError: an unknown set, no data, packages that are missing, a folder that cannot be written to.
    """
    sets, left_out = present_sets(choose_sets(settings.only, settings.finetune, settings.model), settings.data)
    check_entrants(sets, settings)
    if settings.output is not None:
        check_folder(settings.output)
        make_folder(settings.output)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    for note in left_out:
        tell(note)
    lines = []
    for entry in sets:
        tell(f"{entry.name}: {entry.files(settings.data)[0]}")
        lines.append(measure_set(entry, settings))
    findings = Findings(
        version=__version__,
        model=settings.model,
        weights=fingerprint(settings.model),
        seed=settings.seed,
        resamples=settings.resamples,
        left_out=left_out,
        lines=lines,
    )
    if settings.output is not None:
        findings.save(settings.output, "accuracy.json", "report.md")
    return findings


def measure_set(entry: BenchSet, settings: Settings) -> Line:
    """One set: figures of the model and of those beside it on the same rows, and what was done to these."""
    material = read_set(entry, settings)
    entrants = find_entrants(entry, material, settings)
    rows, unknown = keep_known(material.rows, [one.contender for one in entrants], ignore_unknown=True)
    places = [sample(len(rows.texts), one.most, settings.seed) for one in entrants]
    names = [one.contender.name for one in entrants]
    judged, notes = _judge(entrants, rows, places, settings.visible), [*material.notes, *unknown]
    if entry.restricted:
        judged, remarks = zip(*map(restrict, judged), strict=True)
        notes += [f"{name}: {remark}" for name, remark in zip(names, remarks, strict=True) if remark]
    if entry.learned:
        known = f"not truly zero-shot: {BASE} learned to match the labels of its training rows"
        notes.append(
            known if settings.model == BASE else "zero-shot if this model did not learn from its training rows"
        )
    ours = judged[0]
    summary = Summary(
        model=names[0],
        data=entry.rows,
        notes=notes,
        figures=figures(ours, settings.resamples, settings.seed),
        comparisons=[
            _compared((names[0], name), part(ours, where), other, settings)
            for name, where, other in zip(names[1:], places[1:], judged[1:], strict=True)
        ],
    )
    return Line(name=entry.name, headline=entry.headline, summary=summary)


def part(judged: Judged, places: Places) -> Judged:
    """The judgments of the rows at these places."""
    return replace(judged, probabilities=judged.probabilities[places], truth=judged.truth[places])


def _judge(entrants: Sequence[Entrant], rows: Labelled, places: Sequence[Places], visible: bool) -> Sequence[Judged]:
    judged = []
    with Meter(visible) as meter:
        meter.begin(sum(map(len, places)))
        for (contender, _, chunk), where in zip(entrants, places, strict=True):
            mine = at(rows, where)
            found = contender.measure_all(mine.texts, lambda done: meter.advance(done, judged=True), chunk)
            judged.append(judged_rows(contender, mine, found))
    return judged


def _compared(names: tuple[str, str], ours: Judged, other: Judged, settings: Settings) -> Comparison:
    theirs = figures(other, settings.resamples, settings.seed)
    return compare(ours, other, names, theirs, settings.resamples, settings.seed)
