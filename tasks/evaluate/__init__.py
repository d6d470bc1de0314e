"""How good a model is on labelled rows: figures with intervals, comparisons on the same rows, pictures, a report."""

MOST_RESAMPLES = 100_000
