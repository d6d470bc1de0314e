"""Numbers in sentences."""


def counted(count: int, noun: str) -> str:
    """Such as "1 row" or "1,234 rows"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"
