"""Numbers and lists in sentences."""

from collections.abc import Sequence


def counted(count: int, noun: str) -> str:
    """Such as "1 row" or "1,234 rows"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def few(items: Sequence[str], most: int = 8) -> str:
    """The first of them, and how many more there are."""
    return ", ".join(items[:most]) + (f" and {len(items) - most:,} more" if len(items) > most else "")
