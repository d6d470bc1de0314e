"""Items that a thread makes while others are worked with."""

import threading
from collections.abc import Iterator

import pytest

from nautile.engine.ahead import ahead


def test_the_next_item_is_made_while_one_is_worked_with() -> None:
    made = [threading.Event() for _ in range(3)]

    def items() -> Iterator[int]:
        for number, event in enumerate(made):
            event.set()
            yield number

    found = []
    for number in ahead(items()):
        assert made[min(number + 1, 2)].wait(10)
        found.append(number)
    assert found == [0, 1, 2]
    assert list(ahead([])) == []


def test_what_making_an_item_raises_is_raised_in_its_turn() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("the second")

    found = ahead(items())
    assert next(found) == 1
    with pytest.raises(ValueError, match="the second"):
        next(found)
