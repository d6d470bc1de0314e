"""Variants of labelled texts: made of their words, distinct, no longer than asked for."""

import random

from hypothesis import given
from hypothesis import strategies as st

from nautile.tasks.backbone.variants import JOINTS, piece, variant, variants

WORDS = st.lists(st.text("abc", min_size=1, max_size=5), min_size=1, max_size=12)


@given(WORDS, st.integers(0, 999))
def test_a_piece_is_a_run_of_words_shorter_than_the_text(words: list[str], seed: int) -> None:
    found = piece(words, random.Random(seed))
    assert 1 <= len(found) <= max(1, len(words) - 1)
    assert any(words[at : at + len(found)] == found for at in range(len(words)))


@given(WORDS, WORDS, st.integers(0, 999))
def test_a_variant_holds_words_of_its_texts_and_a_joint(words: list[str], others: list[str], seed: int) -> None:
    assert set(variant(words, others, random.Random(seed)).split()) <= {*words, *others, *JOINTS}


@given(st.lists(st.text("ab ", max_size=30), max_size=5), st.integers(0, 30), st.integers(1, 20))
def test_variants_are_distinct_and_short(texts: list[str], count: int, longest: int) -> None:
    found = variants(texts, count, longest, random.Random(0))
    assert len(found) == len(set(found)) <= count
    assert all(0 < len(text) <= longest for text in found)


def test_all_kinds_are_made_and_a_seed_repeats_them() -> None:
    texts = ["one two three four five six", "seven eight nine ten eleven twelve"]
    found = variants(texts, 60, 100, random.Random(0))
    assert len(found) == 60
    assert found == variants(texts, 60, 100, random.Random(0))
    whole = [text.split() for text in texts]
    joined = [text for text in found if {*whole[0]} & {*text.split()} and {*whole[1]} & {*text.split()}]
    assert joined
    assert any(" but " in text for text in joined)
    pieces = [text for text in found if text in texts[0]]
    assert pieces
    assert any({*text.split()} < {*whole[0]} and text not in texts[0] for text in found)  # words left out in the middle
