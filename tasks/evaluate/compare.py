"""Two models on the same rows: an exact McNemar test, and intervals of the differences from paired resamples."""

import numpy as np

from nautile.tasks.evaluate import measures
from nautile.tasks.evaluate.bootstrap import bootstrap
from nautile.tasks.evaluate.measures import Measure
from nautile.tasks.evaluate.results import Comparison, Estimate, Figures
from nautile.tasks.evaluate.scores import Judged
from nautile.tasks.wording import counted

SIGNIFICANT = 0.05


def mcnemar(only_first: int, only_second: int) -> float:
    """The chance of a split at least as uneven, were the rows on which one alone is right a matter of a fair coin."""
    rows = only_first + only_second
    log_factorials = np.concatenate([[0.0], np.log(np.arange(1, rows + 1)).cumsum()])
    fewer = np.arange(min(only_first, only_second) + 1)
    logs = log_factorials[rows] - log_factorials[fewer] - log_factorials[rows - fewer] - rows * np.log(2)
    return float(min(1.0, 2 * np.exp(logs).sum()))


def compare(
    first: Judged, second: Judged, names: tuple[str, str], second_figures: Figures, resamples: int, seed: int
) -> Comparison:
    """Judgments of the same rows in the same order; a row is right when all its labels are."""
    assert len(first.truth) == len(second.truth), "judgments of different rows"
    only_first = int((first.right & ~second.right).sum())
    only_second = int((second.right & ~first.right).sum())
    p_value = mcnemar(only_first, only_second)
    found = bootstrap(
        {
            "accuracy": _difference(measures.mean_of(first.right), measures.mean_of(second.right)),
            "macro_f1": _difference(_macro_f1(first), _macro_f1(second)),
        },
        len(first.truth),
        resamples,
        seed,
    )
    accuracy, macro_f1 = found["accuracy"][0], found["macro_f1"][0]
    return Comparison(
        name=names[0],
        opponent=names[1],
        only_first_right=only_first,
        only_second_right=only_second,
        p_value=p_value,
        accuracy=accuracy,
        macro_f1=macro_f1,
        verdict=verdict(names, len(first.truth), p_value, accuracy, macro_f1),
        opponent_figures=second_figures,
    )


def verdict(names: tuple[str, str], rows: int, p_value: float, accuracy: Estimate, macro_f1: Estimate) -> str:
    """Who is better, in words, or that the rows cannot tell."""
    test = f"{_points(accuracy)}, exact McNemar p {_p(p_value)}"
    if p_value < SIGNIFICANT:
        better, worse = names if accuracy.value > 0 else names[::-1]
        said = f"{better} is more often right than {worse}: accuracy differs by {test}."
    else:
        these = f"{'This' if rows == 1 else 'These'} {counted(rows, 'row')}"
        said = f"{these} cannot tell whether {names[0]} or {names[1]} is more often right: {test}."
    if macro_f1.low is None or macro_f1.high is None:
        return said
    if macro_f1.low <= 0 <= macro_f1.high:
        return (
            f"{said} Nor can they tell in macro-F1: {_points(macro_f1)}."
            if p_value >= SIGNIFICANT
            else (f"{said} In macro-F1 they cannot tell: {_points(macro_f1)}.")
        )
    return f"{said} In macro-F1 {names[0] if macro_f1.value > 0 else names[1]} is better: {_points(macro_f1)}."


def _points(estimate: Estimate) -> str:
    said = f"{100 * estimate.value:+.1f} points"
    if estimate.low is None or estimate.high is None:
        return said
    return f"{said} (95 % interval {100 * estimate.low:+.1f} to {100 * estimate.high:+.1f})"


def _p(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else f"= {value:.4f}"


def _difference(first: Measure, second: Measure) -> Measure:
    return lambda weights_RN: first(weights_RN) - second(weights_RN)


def _macro_f1(judged: Judged) -> Measure:
    return measures.macro_f1(judged.given, judged.truth, len(judged.labels))
