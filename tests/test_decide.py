"""From probabilities to labels, silence and sets; and questions that contradict themselves."""

from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nautile.errors import NautileError
from nautile.tasks.calibrate import Calibration, calibrate
from nautile.tasks.decide import decide
from nautile.tasks.question import Policy, labels_from, question

LABELS = ("low", "middle", "high")


@cache
def calibration(kind: str, rows: int = 400) -> Calibration:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(rows, 3)) * 2
    if kind == "multi":
        return calibrate(logits, rng.random((rows, 3)) < 1 / (1 + np.exp(-logits)), "multi", "a draw")
    share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = np.array([rng.choice(3, p=row) for row in share])
    return calibrate(logits, truth, "ordinal" if kind == "ordinal" else "single", "a draw")


def test_a_row_below_the_threshold_keeps_its_confidence_and_loses_its_label() -> None:
    shares = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
    found = decide(shares, LABELS, "single", None, Policy(threshold=0.6))
    assert found.label == [None, "high"]
    assert found.confidence == [0.5, 0.7]
    assert found.note == ["unsure: confidence below 0.600", ""]


def test_an_ordinal_row_gets_the_label_in_the_middle_of_its_mass() -> None:
    shares = np.array([[0.4, 0.25, 0.35], [0.1, 0.2, 0.7]])
    assert decide(shares, LABELS, "ordinal", None, Policy()).label == ["middle", "high"]
    assert decide(shares, LABELS, "single", None, Policy()).label == ["low", "high"]


def test_several_labels_a_row_by_their_own_thresholds_or_one_for_all() -> None:
    shares = np.array([[0.6, 0.55, 0.1], [0.1, 0.2, 0.3]])
    found = decide(shares, LABELS, "multi", None, Policy())
    assert found.label == ["low; middle", None]
    assert found.note == ["", "no label fits"]
    assert decide(shares, LABELS, "multi", None, Policy(threshold=0.25)).label == ["low; middle", "high"]
    fitted = calibration("multi").model_copy(update={"thresholds": [0.7, 0.5, 0.3]})
    assert decide(shares, LABELS, "multi", fitted, Policy()).label == ["middle", "high"]


@given(st.floats(0.05, 0.95), st.integers(0, 2**16))
def test_the_share_that_is_answered_is_about_the_share_asked_for(share: float, seed: int) -> None:
    fitted = calibration("single", 3000)
    logits = np.random.default_rng(seed).normal(size=(3000, 3)) * 2
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = decide(shares, LABELS, "single", fitted, Policy(answer_share=share))
    assert abs(np.mean([label is not None for label in found.label]) - share) < 0.06


def test_sets_hold_labels_joined_in_their_order() -> None:
    shares = np.array([[0.45, 0.1, 0.45], [0.98, 0.01, 0.01]])
    found = decide(shares, LABELS, "single", calibration("single"), Policy(set_coverage=0.95))
    assert found.sets == ["low; high", "low"]
    assert decide(shares, LABELS, "single", calibration("single"), Policy()).sets is None


@pytest.mark.parametrize(
    ("policy", "kind", "complaint"),
    [
        ({"answer_share": 0.8}, "single", "answer_share needs calibrated"),
        ({"set_coverage": 0.9}, "multi", "set_coverage needs calibrated"),
    ],
)
def test_a_policy_that_cannot_be_followed_is_refused(policy: dict[str, float], kind: str, complaint: str) -> None:
    with pytest.raises(NautileError, match=complaint):
        decide(np.ones((1, 3)) / 3, LABELS, kind, None, Policy(**policy))  # type: ignore[arg-type]


def test_answer_share_is_for_one_label_a_text() -> None:
    with pytest.raises(NautileError, match="one label a text"):
        decide(np.ones((1, 3)) / 3, LABELS, "multi", calibration("multi"), Policy(answer_share=0.5))


@pytest.mark.parametrize("value", [0, 1, -0.5, 1.5, float("nan"), "0.7"])
@pytest.mark.parametrize("name", ["threshold", "answer_share", "set_coverage"])
def test_shares_lie_between_zero_and_one(name: str, value: float) -> None:
    with pytest.raises(NautileError, match=f"{name} must be above 0 and below 1"):
        Policy(**{name: value})


@pytest.mark.parametrize("value", [np.float32(0.5), np.float64(0.5), Fraction(1, 2)])
def test_a_share_may_be_any_real_number(value: float) -> None:
    policy = Policy(threshold=value, set_coverage=value)
    assert policy == Policy(threshold=0.5, set_coverage=0.5)
    assert type(policy.threshold) is float


def test_two_ways_to_keep_silent_are_one_too_many() -> None:
    with pytest.raises(NautileError, match="not both"):
        Policy(threshold=0.5, answer_share=0.5)


def test_label_lists_come_from_the_command_line_or_a_file(tmp_path) -> None:  # type: ignore[no-untyped-def]
    assert labels_from("refund, praise") == ["refund", "praise"]
    (tmp_path / "a.txt").write_text("refund\n\npraise, indeed\n")
    assert labels_from(str(tmp_path / "a.txt")) == ["refund", "praise, indeed"]
    (tmp_path / "a.json").write_text('{"refund": "wants money back", "praise": null}')
    assert question(labels=labels_from(str(tmp_path / "a.json"))).labels == (
        ("refund", "wants money back"),
        ("praise", ""),
    )
    for content, complaint in (("{", "cannot be read"), ("3", "give a list"), ('["a", ["b"]]', "a list for each row")):
        (tmp_path / "a.json").write_text(content)
        with pytest.raises(NautileError, match=complaint):
            question(labels=labels_from(str(tmp_path / "a.json")))
    with pytest.raises(NautileError, match="cannot be read as a label list"):
        labels_from(str(tmp_path / "missing.json"))
    for other in ("labels.csv", "data/labels.YAML", '["a", "b"]', '{"a": "b"}'):
        with pytest.raises(NautileError, match=r"commas between them, or a file of them, \.txt or \.json"):
            labels_from(other)
    assert labels_from(".net, readme.md") == [".net", "readme.md"]


def test_half_a_surrogate_pair_in_a_label_is_replaced_and_empty_names_are_refused() -> None:
    assert question(labels=["a", "b\ud800"]).labels == (("a", ""), ("b\ufffd", ""))
    with pytest.raises(NautileError, match="task is an empty name"):
        question(task="")


def test_what_stands_alone_is_unsure_of_nothing_but_itself() -> None:
    labels, shares = ("refund", "shipping", "none of these"), np.array([[0.96, 0.06, 0.87], [0.1, 0.6, 0.9]])
    found = decide(shares, labels, "multi", None, Policy(), alone=2)
    assert found.label == ["refund", "none of these"]
    assert found.confidence == [pytest.approx(0.94), 0.9]
