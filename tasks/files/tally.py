"""Counts of what became of the rows."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from nautile.tasks.wording import counted


@dataclass
class Tally:
    """Rows by label, rows without one by reason, and how many texts took more than one window."""

    rows: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    unlabelled: Counter[str] = field(default_factory=Counter)
    long_rows: int = 0
    further_windows: int = 0
    broken: int = 0
    """Rows that hold half of a surrogate pair."""
    nuls: int = 0
    """Rows that hold a NUL character."""
    turned: int = 0
    """Rows that another order of the labels would have answered otherwise."""

    def add(self, other: "Tally") -> None:
        """Count `other` in."""
        self.rows += other.rows
        self.labels.update(other.labels)
        self.unlabelled.update(other.unlabelled)
        self.long_rows += other.long_rows
        self.further_windows += other.further_windows
        self.broken += other.broken
        self.nuls += other.nuls
        self.turned += other.turned

    def as_dict(self) -> dict[str, object]:
        """The counts for a JSON file; `Tally.from_dict` takes them back."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, counts: dict) -> "Tally":
        """The counts that `as_dict` gave."""
        tally = cls(**counts)
        tally.labels, tally.unlabelled = Counter(tally.labels), Counter(tally.unlabelled)
        return tally

    def sentence(self) -> str:
        """The counts in one line."""
        if not self.rows:
            return "0 rows: the input has columns and nothing below them"
        judged = sum(self.labels.values())
        parts = [f"{counted(self.rows, 'row')}, {judged:,} judged{_listed(self.labels)}"]
        if self.unlabelled:
            parts.append(f"{self.rows - judged:,} without a label{_listed(self.unlabelled)}")
        if self.long_rows:
            windows = counted(self.further_windows, "further window")
            parts.append(f"{counted(self.long_rows, 'long text')} took {windows}")
        if self.broken:
            parts.append(f"{counted(self.broken, 'row')} with half a surrogate pair, which is U+FFFD outside JSON")
        if self.nuls:
            parts.append(f"{counted(self.nuls, 'row')} with a NUL character, which is U+FFFD in CSV and TSV")
        if self.turned:
            parts.append(order_remark(self.turned))
        return "; ".join(parts)


def order_remark(rows: int) -> str:
    """How often the order of a label list decides."""
    return f"{counted(rows, 'row')} answered otherwise in some order of the labels" if rows else ""


def tally_of(
    labels: Sequence[object],
    windows: Sequence[object],
    notes: Sequence[object],
    broken: int,
    agreement: Sequence[object] = (),
    nuls: int = 0,
) -> Tally:
    """Count one chunk's results."""
    counts = [count for count in windows if isinstance(count, int) and count > 1]
    return Tally(
        rows=len(labels),
        labels=Counter(str(label) for label in labels if label is not None),
        unlabelled=Counter(str(note) for label, note in zip(labels, notes, strict=True) if label is None),
        long_rows=len(counts),
        further_windows=sum(counts) - len(counts),
        broken=broken,
        nuls=nuls,
        turned=sum(isinstance(share, float) and share < 1 for share in agreement),
    )


def _listed(counts: Counter[str], most: int = 6) -> str:
    shown = [f"{times:,} {name}" for name, times in counts.most_common(most)]
    more = len(counts) - most
    return f" ({', '.join(shown + ([f'{more} more'] if more > 0 else []))})" if shown else ""
