"""Label sets from the corpus' structure: which texts, and which labels they get."""

import json
import lzma
import random
from pathlib import Path

from nautile.tasks.backbone.corpus_sets import answers, corpus_sets, definitions, statements, titled, trivia

RNG = random.Random(0)


def test_titles_are_labels_of_later_sentences() -> None:
    document = "SENATOR VISITS SCHOOL\n\nShort.\nThe senator came to see the new science building."
    [(text, labels)] = titled(document, RNG)
    assert text.endswith("The senator came to see the new science building.")
    assert labels == ["senator visits school"]
    assert not list(titled("Introduction\n\nA title that says nothing of what comes after it.", RNG))
    assert not list(titled("A title without an article", RNG))


def test_trivia_has_categories_but_for_vague_ones() -> None:
    body = "\n\nWho lives here?\nA. A cat\nAnswer: A cat\n\nWho is that?\nA. A dog\nAnswer: A dog"
    found = [("Who lives here?", ["animals"]), ("Who is that?", ["animals"])]
    assert list(trivia("Trivia questions: animals" + body, RNG)) == found
    assert not list(trivia("Trivia questions: general" + body, RNG))


def test_answers_are_labelled_by_their_questions() -> None:
    symptoms, genes = "Fever and a cough are seen in most patients.", "A change of one gene is behind the disease."
    document = f"What are the symptoms of X ?\n\n{symptoms}\nWhat are the genetic changes of X ?\n{genes}"
    assert list(answers(document, RNG)) == [(symptoms, ["what are the symptoms"]), (genes, ["what are the genetic"])]
    assert not list(answers("What about it?\n\nAn answer to a question that is of no known kind.", RNG))


def test_statements_have_a_trait_or_none() -> None:
    head = "The answers below come from someone with this trait: likes music.\n\n"
    asked = 'Is the following statement something you would say?\n"{}"\nAnswer: {}\n\n'
    document = head + asked.format("I sing", "Yes") + asked.format("I hate songs", "No")
    assert list(statements(document, RNG)) == [("I sing", ["likes music"]), ("I hate songs", [])]


def test_definitions_have_their_word() -> None:
    line = "zag (noun): an angular shape with sharp turns. Example: The zags ran down. Synonyms: zigzag."
    assert list(definitions(line, RNG)) == [("an angular shape with sharp turns", ["zag"])]


def test_sources_that_are_there_become_sets_without_what_is_measured_on(tmp_path: Path) -> None:
    texts = [f"Title {n}\n\nA sentence about the matter of number {n}." for n in range(51)]
    lines = "\n".join(json.dumps({"text": text}) for text in texts)
    (tmp_path / "wikipedia.jsonl.xz").write_bytes(lzma.compress(lines.encode()))
    [found] = corpus_sets(tmp_path)
    assert {label for [label] in found.labels} == {f"Title {n}" for n in range(1, 50)}
    assert all(text.endswith(f"number {label[6:]}.") for text, [label] in zip(found.texts, found.labels, strict=True))
    assert found.wordings["Title 7"] == ("Title 7",)
