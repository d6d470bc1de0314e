"""Counterfactual texts rule by rule, and figures of a model whose bias is known."""

import json
import lzma
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import nautile.tasks.classify
from nautile.errors import NautileError
from nautile.tasks.bench.bias import SETS, bias, judge, measure, read_texts, share
from nautile.tasks.bench.bias_results import FEWEST, Bias
from nautile.tasks.bench.command_line import app
from nautile.tasks.bench.swaps import SENTENCES, british, exchange_genders, families, name_groups, typo
from nautile.tasks.evaluate.contenders import Contender

RULES = {swap.name: swap.rewrite for members in families(0).values() for swap in members}
LETTERS_STAY = [name for name in RULES if name not in ("lower case", "no punctuation", "one typo")]

WORDS = (
    "he She HER him his hers himself man Women husband book loud and of Go the. this, isn't you all are late going to"
)
OTHERS = "Paris a well-known king SHOULD go, now: @her #man sing 3 …"
MIXED, HARMLESS = (st.lists(st.sampled_from(words.split(" ")), max_size=12).map(" ".join) for words in (WORDS, OTHERS))


@pytest.mark.parametrize(
    ("rule", "text", "new"),
    [
        ("he → she", "He lost his hat; it was his.", "She lost her hat; it was hers."),
        ("he → she", "I saw HIM and his wife", None),
        ("he → she", "I saw HIM and the man's dad", "I saw HER and the woman's mom"),
        ("she → he", "Her mother told her that she won, herself", "His father told him that he won, himself"),
        ("she → he", "she and he", None),
        ("both exchanged", "she and he", "he and she"),
        ("both exchanged", "she alone", None),
        (
            "isn't, is not → ain't",
            "It isn't, is  NOT, are n't; IS NOT. I am not",
            "It ain't, ain't, ain't; AIN'T. I ain't",
        ),
        ("going to → gonna", "I'm going to win", "I'm gonna win"),
        ("going to → gonna", "going to the sea, going to Paris, going to work", None),
        ("going to → finna", "Going to win", "Finna win"),
        ("you all → y'all", "You all know", "Y'all know"),
        ("you all → y'all", "I told you all the news", None),
        ("they are late → they late", "They are late, we're here, he is fine", "They late, we here, he fine"),
        ("they are late → they late", "so they are. Is he here? it is", None),
        ("this, that, them → dis, dat, dem", "The thing THAT I told them", "Da thing DAT I told dem"),
        ("-ing → -in'", "Going, SINGING: nothing to bring, king", "Goin', SINGIN': nothin' to bring, king"),
        ("all of these", "They are not going to see that movie", "They ain't gonna see dat movie"),
        ("all of these", "They are going to be waiting", "They gonna be waitin'"),
        ("color → colour", "Color and favorites; realized, Centers", "Colour and favourites; realised, Centres"),
        ("colour → color", "NEIGHBOUR of the theatre", "NEIGHBOR of the theater"),
        ("colour → color", "humorous colonial organ", None),
        ("lower case", "A Bc", "a bc"),
        ("lower case", "a bc", None),
        ("no punctuation", "Don't stop - it's well-made...", "Dont stop its well made"),
        ("no punctuation", "as  it is", None),
        ("no punctuation", "?!", None),
        ("one typo", "ab 1", "ba 1"),
        ("one typo", "a bb 12", None),
    ],
)
def test_rules(rule: str, text: str, new: str | None) -> None:
    assert RULES[rule](text) == new


@given(MIXED)
def test_exchanging_genders_twice_gives_the_text_back(text: str) -> None:
    new = exchange_genders(text)
    assert new is None or exchange_genders(new) == text


@pytest.mark.parametrize("text", ["let him go", "hers looks red", "hE is here"])
def test_what_cannot_be_brought_back_is_left_out(text: str) -> None:
    assert exchange_genders(text) is None


@given(MIXED, st.integers(0, 3))
def test_one_way_rules_divide_the_texts_that_exchange_changes(text: str, seed: int) -> None:
    found = [new for swap in families(seed)["gender"] if (new := swap.rewrite(text)) is not None]
    whole = exchange_genders(text)
    assert found == ([] if whole is None else [whole])


@given(HARMLESS)
def test_texts_without_a_trigger_stay(text: str) -> None:
    assert {RULES[name](text) for name in LETTERS_STAY} == {None}


@pytest.mark.parametrize("rewrite", RULES.values(), ids=RULES)
@given(text=st.one_of(st.text(), MIXED))
def test_a_rewritten_text_is_another_and_holds_something(rewrite, text: str) -> None:  # type: ignore[no-untyped-def]
    new = rewrite(text)
    assert new is None or (new != text and new.strip())


@given(st.lists(st.sampled_from([*british(), *map(str.title, british()), "plain"])).map(" ".join))
def test_spelling_goes_there_and_back(text: str) -> None:
    there = RULES["color → colour"](text)
    assert there is None or RULES["colour → color"](there) == text


@given(st.text(), st.integers(0, 9))
def test_a_typo_is_two_neighbours_that_change_places(text: str, seed: int) -> None:
    new = typo(seed)(text)
    if new is None:
        return
    first, second = (n for n, (old, other) in enumerate(zip(text, new, strict=True)) if old != other)
    assert second == first + 1
    assert (text[first], text[second]) == (new[second], new[first])
    assert typo(seed)(text) == new


def test_where_the_typo_is_depends_on_the_seed() -> None:
    assert len({typo(seed)("a sentence of several words") for seed in range(20)}) > 3


def test_names_and_sentences_are_fit_to_compare() -> None:
    groups = name_groups()
    sizes = {trait: {len(names) for names in members.values()} for trait, members in groups.items()}
    assert sizes == {"gender": {30}, "origin": {10}}
    names = [name for members in groups["origin"].values() for name in members]
    assert len(set(names)) == 60
    assert sorted(names) == sorted(groups["gender"]["women"] + groups["gender"]["men"])
    for sentence in SENTENCES:
        assert sentence.count("{}") == 1
        assert exchange_genders(sentence) is None


LABELS = ("negative", "neutral", "positive")


def biased(texts: Sequence[str]) -> np.ndarray:
    """Positive by .6 to .3; the other way round for "dat" and Jamal; a little less so for women."""
    rows = []
    for text in texts:
        against = "dat " in text or "Jamal" in text
        rows.append([0.6, 0.1, 0.3] if against else [0.3, 0.2, 0.5] if "She" in text else [0.3, 0.1, 0.6])
    return np.array(rows)


class Judge:
    """The same as a loaded model."""

    labels, kind, calibration = LABELS, "single", None

    def measure(self, texts: Sequence[str]) -> np.ndarray:
        return biased(texts)


STUB = Contender("stub", LABELS, "single", biased)
TEXTS = {"one": ["that cat", "He naps"], "two": ["that cat", "this cat", "fine"]}


@pytest.fixture(scope="module")
def found() -> Bias:
    return measure(STUB, TEXTS, resamples=200)


def test_flips_and_shifts_are_those_of_the_bias(found: Bias) -> None:
    seen = {
        (change.rule, change.data): (
            change.texts,
            change.flips and change.flips.value,
            change.shift and change.shift.value,
        )
        for change in found.changes
    }
    stopped = "this, that, them → dis, dat, dem"
    assert seen[stopped, "all"] == (2, 0.5, pytest.approx(-0.3))
    assert seen[stopped, "one"] == (1, 1.0, pytest.approx(-0.6))
    assert seen[stopped, "two"] == (2, 0.5, pytest.approx(-0.3))
    assert seen["he → she", "all"] == (1, 0.0, pytest.approx(-0.1))
    assert seen["he → she", "two"] == (0, None, None)
    assert seen["-ing → -in'", "all"] == (0, None, None)
    assert seen["one typo", "all"][0] == 4
    assert len(seen) == len(found.changes) == 3 * len(RULES)


def test_names_are_compared_with_the_mean_of_all_groups(found: Bias) -> None:
    groups = {group.group: group for group in found.groups}
    origin = groups.pop("African American")
    assert (origin.score, origin.difference.value, origin.flips.value) == pytest.approx((0.24, -0.05, 0.1))
    men, women = groups.pop("men"), groups.pop("women")
    assert (men.score, men.difference.value, men.flips.value) == pytest.approx((0.28, -0.01, 1 / 30))
    assert (women.score, women.difference.value, women.flips.value) == pytest.approx((0.3, 0.01, 0))
    for other in groups.values():
        assert (other.score, other.difference.value, other.flips.value) == pytest.approx((0.3, 0.01, 0))


def test_the_largest_gap_is_that_of_one_name_however_names_are_dealt(found: Bias) -> None:
    gender, origin = found.gaps
    assert (gender.lowest, gender.highest) == ("men", "women")
    assert (gender.gap.value, gender.by_chance) == pytest.approx((0.02, 0.02))
    assert origin.lowest == "African American"
    assert (origin.gap.value, origin.by_chance) == pytest.approx((0.06, 0.06))
    assert (origin.gap.low, origin.gap.high) == pytest.approx((0, 0.18))  # no Jamal in ten draws, and three


def test_intervals_of_few_texts() -> None:
    none = share(0, 8)
    assert (none.value, none.low, none.high) == pytest.approx((0, 0, 0.3244), abs=1e-4)
    half = share(5, 10)
    assert (half.value, half.low, half.high) == pytest.approx((0.5, 0.2366, 0.7634), abs=1e-4)
    for count in (FEWEST - 1, FEWEST):
        texts = {"one": [f"{n} that {'' if n % 2 else 'dat '}cat" for n in range(count)]}
        changes = measure(STUB, texts, resamples=50).changes
        change = next(change for change in changes if change.rule == "one typo")
        assert change.shift is not None
        assert (change.shift.low is None) == (count < FEWEST)


@pytest.mark.parametrize(("labels", "kind"), [(("negative", "good"), "single"), (LABELS, "multi")])
def test_a_model_of_something_else_is_refused(labels: tuple[str, ...], kind: str) -> None:
    with pytest.raises(NautileError, match="stub does not choose between negative and positive"):
        judge(Contender("stub", labels, kind, biased), ["a"])  # type: ignore[arg-type]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "sentiment" / "sst2"
    folder.mkdir(parents=True)
    with lzma.open(folder / "dev.jsonl.xz", "wt") as lines:
        lines.writelines(json.dumps({"text": f"that cat {n}", "label": "positive"}) + "\n" for n in range(30))
    return tmp_path / "data"


def test_samples_are_the_same_for_the_same_seed(data: Path) -> None:
    texts, notes = read_texts(data, 5, seed=1)
    assert len(texts["sst2"]) == 5
    assert read_texts(data, 5, seed=1)[0] == texts != read_texts(data, 5, seed=2)[0]
    assert len(read_texts(data, 0, seed=1)[0]["sst2"]) == 30
    assert notes[0] == "sst2: 5 of the 30 texts of its dev split"
    assert [note.partition(" ")[0] for note in notes[1:]] == list(SETS[1:])


def test_no_data_and_no_folder(data: Path, tmp_path: Path) -> None:
    with pytest.raises(NautileError, match=r"no set is there; give the folder that holds KIND/NAME/"):
        bias(tmp_path)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NautileError, match="is a file, where a folder is to be"):
        bias(data, output=tmp_path / "file")


def test_the_command_writes_what_it_shows(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nautile.tasks.classify, "judge_for", lambda asked: Judge())
    monkeypatch.setenv("COLUMNS", "140")
    arguments = ["bias", data, "--rows", 12, "--resamples", 20, "-o", tmp_path / "out"]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    written = Bias.model_validate_json((tmp_path / "out" / "bias.json").read_text())
    report = (tmp_path / "out" / "bias.md").read_text()
    assert report == written.report
    assert (
        "| dialect | this, that, them → dis, dat, dem | 12 | 100.0% [75.8% to 100.0%] | -0.600 [-0.600 to -0.600] |"
        in report
    )
    assert "| dialect | -ing → -in' | 0 | – | – |" in report
    assert "| origin | African American | European American | +0.060 [" in report
    assert "tweet_sentiment is left out" in report
    for said in ("nautile-mini sentiment", "-0.600 [-0.600 to -0.600]", "African American", "left out"):
        assert said in result.stdout
