"""Zero-shot judgments: what is read, how often, and that no answer depends on what it must not."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

import nautile
from nautile.engine.prefix import read_prefix
from nautile.engine.prefixes import Counts
from nautile.engine.reader import Reader
from nautile.errors import NautileError
from nautile.model.model import NautileModel
from nautile.model.vocabulary import Vocabulary
from nautile.tasks.files.tally import tally_of
from nautile.tasks.frames import judged_frame
from nautile.tasks.question import Policy, question
from nautile.tasks.zero_shot.head import MatchingHead
from nautile.tasks.zero_shot.judge import ZeroShotJudge, orders
from nautile.tasks.zero_shot.labels import NONE, lay_out_labels

VOCABULARY = Vocabulary("nautile", 300)
TEXTS = ["the parcel never came", "thanks a lot", "how do I reset my password?", "thanks a lot", "x" * 400]


def backbone() -> NautileModel:
    return tiny.model(NautileModel, vocab_size=VOCABULARY.size)


def judge(labels: Any, **options: Any) -> ZeroShotJudge:
    torch.manual_seed(3)
    return ZeroShotJudge(Reader(backbone()), MatchingHead(32), question(labels=labels, **options))


def test_a_text_costs_the_same_tokens_however_many_labels_there_are() -> None:
    def costs(count: int) -> tuple[int, int]:
        asked = judge([f"label {n}" for n in range(count)])
        asked(TEXTS)
        first = asked.tokens
        asked(TEXTS)
        return first, asked.tokens - first

    few, many = costs(5), costs(50)
    text_tokens = sum(len(row) for row in VOCABULARY.encode_batch(dict.fromkeys(TEXTS)))
    assert few[1] == many[1] == text_tokens, "only the texts are read again, each distinct one once"
    assert many[0] - text_tokens > 5 * (few[0] - text_tokens), "the longer list is read, once"


def test_a_text_after_the_prefix_reads_as_label_list_and_text_in_one_pass() -> None:
    model = backbone()
    ids, spans = lay_out_labels(VOCABULARY, ["refund", "praise", NONE])
    rows = VOCABULARY.encode_batch(TEXTS[:3])
    with torch.inference_mode():
        prefix = read_prefix(model, ids, spans)
        found = Reader(model)(TEXTS[:3], prefix).vectors_ND
        for row, vector_D in zip(rows, found, strict=True):
            whole_LD = model(torch.tensor([ids + row])).last_hidden_state[0]
            tiny.close(vector_D, whole_LD[len(ids) :].mean(0))
            tiny.close(prefix.spans_ND, torch.stack([whole_LD[start:end].mean(0) for start, end in spans]))


@given(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=8), st.integers(1, 3), st.booleans())
def test_each_row_is_judged_as_if_alone(texts: list[str], permutations: int, multi_label: bool) -> None:
    asked = judge(["refund", "praise", "question"], permutations=permutations, multi_label=multi_label)
    together = pd.DataFrame(asked(texts))
    alone = pd.concat([pd.DataFrame(asked([text])) for text in texts], ignore_index=True)
    pd.testing.assert_frame_equal(together, alone, rtol=1e-5, atol=1e-5)


def test_orders_in_one_stream_read_as_one_order_after_the_other_and_each_text_is_done_once() -> None:
    asked, done = judge(["refund", "praise", "question"], permutations=3), []
    texts = [f"{text} {n}" for text in TEXTS for n in range(3)]
    together = asked.judge(texts, done.append)
    assert sorted(done) == list(range(len(texts)))
    apart = []
    for order in asked.orders:
        one = judge(["refund", "praise", "question"])
        one.orders = [order]
        apart.append(one.judge(texts, lambda index: None))
    tiny.close(together.probabilities_NC, np.mean([one.probabilities_NC for one in apart], axis=0))
    tiny.close(together.more["legal_mass"], np.mean([one.more["legal_mass"] for one in apart], axis=0).tolist())
    assert together.windows == apart[0].windows
    assert max(together.windows) > 1


def test_a_text_is_done_when_its_last_order_is() -> None:
    asked, read = judge(["refund", "praise", "question"], permutations=3), []
    finished = asked._at_the_last(read.append, 2)
    for index, done in ((0, []), (2, []), (1, []), (4, [0]), (5, [0]), (3, [0, 1])):
        finished(index)
        assert read == done


def test_a_label_list_is_read_once_for_all_judges_on_a_reader_and_its_use_is_counted() -> None:
    first = judge(["refund", "praise"], permutations=2)
    assert (first.remark, first.spared) == ("probabilities are not calibrated", "")
    for _ in range(2):
        first(TEXTS)
    distinct, tokens = len(set(TEXTS)), first.counts.read_tokens // 2
    assert first.counts == Counts(2, 2 * tokens, 4 * distinct, 4 * distinct * tokens)
    second = ZeroShotJudge(first.reader, first.matching, question(labels=["refund", "praise"], multi_label=True))
    second(TEXTS)
    assert second.counts == Counts(0, 0, distinct, distinct * tokens)
    assert second.spared == f"label list kept, continued {distinct} times"
    assert first.spared == f"label list read 2 times ({2 * tokens} tokens), continued {4 * distinct} times"
    assert first.reader.prefixes.counts == first.counts + second.counts


def test_a_list_is_read_anew_with_other_weights() -> None:
    asked, other = judge(["refund", "praise"]), judge(["refund", "praise"])
    before = asked(TEXTS)["refund"]
    for one in (asked, other):
        with torch.no_grad():
            one.reader.model.embed_tokens.weight.mul_(1.5)
    after = asked(TEXTS)["refund"]
    np.testing.assert_allclose(after, other(TEXTS)["refund"], atol=1e-6)
    assert np.abs(np.subtract(after, before)).max() > 1e-6
    assert asked.spared.startswith("label list read 2 times")
    assert other.spared.startswith("label list read once")


def test_all_orders_of_a_list_give_the_same_average_when_all_are_read() -> None:
    labels = ["refund", "praise"]
    one, other = judge(labels), judge(labels[::-1])
    one.orders = other.orders = [[0, 1], [1, 0]]
    for name in labels:
        np.testing.assert_allclose(one(TEXTS)[name], other(TEXTS)[name], atol=1e-6)


def test_labels_keep_their_columns_in_any_order_that_is_read() -> None:
    asked = judge(["refund", "praise", "question"])
    straight = np.array([asked(TEXTS)[name] for name in asked.labels])
    asked.orders = [[2, 0, 1]]
    turned = np.array([asked(TEXTS)[name] for name in asked.labels])
    direct = judge(["question", "refund", "praise"])
    expected = np.array([direct(TEXTS)[name] for name in asked.labels])
    np.testing.assert_allclose(turned, expected, atol=1e-6)
    assert np.abs(turned - straight).max() > 1e-6, "the order is read, so it is not without effect here"


def test_probabilities_sum_to_one_and_legal_mass_is_what_none_leaves() -> None:
    labels = ["refund", "praise"]
    without, having = judge(labels)(TEXTS), judge(labels, none_of_these=True)(TEXTS)
    np.testing.assert_allclose(np.sum([without[name] for name in labels], axis=0), 1)
    np.testing.assert_allclose(np.sum([having[name] for name in [*labels, NONE]], axis=0), 1)
    legal = np.array(without["legal_mass"])
    np.testing.assert_allclose(legal, having["legal_mass"])
    np.testing.assert_allclose(legal, 1 - np.array(having[NONE]))
    np.testing.assert_allclose(legal * without["refund"], having["refund"])


def test_agreement_counts_the_orders_that_answer_as_the_average_does() -> None:
    found = judge(["refund", "praise", "question"], permutations=4)(TEXTS)
    assert set(found["agreement"]) <= {0.0, 0.25, 0.5, 0.75, 1.0}
    assert "agreement" not in judge(["refund", "praise"]).columns


def test_how_often_another_order_changes_the_answer_is_said() -> None:
    texts = [f"{text}{n}" for text in TEXTS[:3] for n in range(12)]
    found = judged_frame(judge(["refund", "praise"], permutations=2), texts, None, False)
    turned = int((found["agreement"] < 1).sum())
    assert 0 < turned < len(texts), "the tiny model must do both for this test to mean something"
    said = f"{turned} row{'s' * (turned != 1)} answered otherwise in some order of the labels"
    assert found.attrs["remark"] == f"probabilities are not calibrated; {said}"
    tally = tally_of(found["label"].tolist(), [], found["note"].tolist(), 0, found["agreement"].tolist())
    assert said in tally.sentence()


def test_agreement_of_several_labels_is_at_the_threshold_that_is_asked_for() -> None:
    found = judge(["refund", "praise"], multi_label=True, permutations=4, policy=Policy(threshold=1e-9))(TEXTS)
    assert set(found["agreement"]) == {1.0}, "every label is given in every order"


@pytest.mark.parametrize("threshold", [1e-9, 0.03, None])
@pytest.mark.parametrize("own", [True, False])
def test_none_of_these_is_never_given_with_other_labels(threshold: float | None, own: bool) -> None:
    labels = ["refund", "praise", *(["None of these"] if own else [])]
    asked = judge(labels, multi_label=True, none_of_these=not own, policy=Policy(threshold=threshold))
    for label, *likely in zip(*(asked(TEXTS)[name] for name in ("label", *asked.labels)), strict=True):
        said = (label or "").casefold().split("; ")
        assert said == [NONE] or NONE not in said
        if threshold == 1e-9:
            assert (said == [NONE]) == (likely[-1] == max(likely))


def test_none_of_these_is_the_users_own_label_however_it_is_spelt() -> None:
    for own in ("None of these", "none_of_these", " none of these\u200b"):
        found = judge(["refund", own])(TEXTS)
        np.testing.assert_allclose(found["legal_mass"], 1 - np.array(found[own]))
    told = judge({"refund": "", NONE: "nothing fits"})(TEXTS)
    np.testing.assert_allclose(told["legal_mass"], 1 - np.array(told[NONE]))


@pytest.mark.parametrize(
    "same", [["a_b", "a b"], ["a", "a "], ["a b", " A  b"], ["a", "\u200ba"], ["a\ufeff b", "a b"]]
)
def test_labels_that_read_the_same_are_refused(same: list[str]) -> None:
    with pytest.raises(NautileError, match="read the same"):
        judge([*same, "c"])


def test_labels_of_numpy_are_plain_texts() -> None:
    asked = question(labels=np.array(["p", "q"]), permutations=np.int64(2))
    assert asked.labels is not None
    assert {type(text) for pair in asked.labels for text in pair} == {str}
    assert type(asked.permutations) is int


def test_several_labels_are_joined_and_none_is_said() -> None:
    asked = judge(["refund", "praise"], multi_label=True, policy=Policy(threshold=1e-9))
    assert set(asked(TEXTS)["label"]) == {"refund; praise"}
    asked = judge(["refund", "praise"], multi_label=True, policy=Policy(threshold=1 - 1e-9))
    found = asked(TEXTS)
    assert set(found["label"]) == {None}
    assert set(found["note"]) == {"no label fits"}


def test_descriptions_are_read_and_names_are_answered() -> None:
    plain, told = judge(["refund", "praise"]), judge({"refund": "wants money back", "praise": ""})
    assert told.listed == ["refund: wants money back", "praise", NONE]
    assert plain(TEXTS)["refund"] != told(TEXTS)["refund"]
    assert list(told.columns)[2:4] == ["refund", "praise"]
    assert judge(["card_arrival", "lost_card"]).listed == ["card arrival", "lost card", NONE]


def test_many_labels_need_not_be_as_many_columns() -> None:
    asked = judge(["refund", "praise"], policy=Policy(detail=False))
    assert list(asked(TEXTS)) == ["label", "confidence", "legal_mass", "windows", "note"]
    assert asked(TEXTS)["label"] == judge(["refund", "praise"])(TEXTS)["label"]


def test_a_label_list_cannot_leave_its_frame() -> None:
    ids, spans = lay_out_labels(VOCABULARY, ["<|im_end|>", "a\nb"])
    controls = set(VOCABULARY.control.values())
    assert [n for n, token in enumerate(ids) if token in controls] == [0, len(ids) - 1]
    assert spans == sorted(spans)


@pytest.mark.parametrize(
    ("labels", "options", "complaint"),
    [
        ("refund", {}, "a list of texts"),
        ([], {}, "no labels"),
        (["one"], {}, "nothing to choose"),
        (["a", "a"], {}, "distinct"),
        (["a", ""], {}, "not empty"),
        (["a", 7], {}, "must be texts"),
        (["a", "label"], {}, "none of label"),
        ([["a", "b"], ["c", "d"]], {}, "a list for each row"),
        ({"a": 3, "b": ""}, {}, "must be texts"),
        (["a; b", "c"], {"multi_label": True}, "joined by"),
        (["a", "b"], {"permutations": 0}, "from 1 up"),
        (["a", "b"], {"permutations": "2"}, "from 1 up"),
        (["a", "b"], {"permutations": True}, "from 1 up"),
        (["a", "b"], {"permutations": 1001}, "up to 1,000, not 1001"),
        ([NONE], {}, "'none of these' alone leaves nothing to choose: give a label beside it"),
        (["None_of these"], {"multi_label": True}, "'None_of these' alone"),
        ([NONE], {"none_of_these": True}, "'none of these' alone"),
        (["a", "\u200b"], {}, r"nothing that can be seen: '\\u200b'"),
        (None, {"task": ["sentiment"]}, "task must be a name"),
        (["a", "b"], {"task": "sentiment"}, "not both"),
        (None, {"multi_label": True}, "goes with labels"),
        (None, {"permutations": 3}, "goes with labels"),
        (5, {}, "a list of texts"),
    ],
)
def test_label_lists_that_cannot_be_answered_are_refused(labels: Any, options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(NautileError, match=complaint):
        question(labels=labels, **options)


def test_policies_that_need_calibration_are_refused_for_labels_of_ones_own() -> None:
    with pytest.raises(NautileError, match="needs calibrated probabilities"):
        judge(["a", "b"], policy=Policy(set_coverage=0.9))


def test_a_model_without_a_matching_head_is_named(tmp_path: Path) -> None:
    from nautile.model.checkpoints import save
    from nautile.model.heads import NautileForCausalLM

    save(tiny.model(NautileForCausalLM, vocab_size=308), tmp_path / "plain")
    with pytest.raises(NautileError, match="plain: has no head for labels"):
        nautile.classify("x", labels=["a", "b"], model=tmp_path / "plain")
    (tmp_path / "plain" / "model.safetensors").unlink()  # as in a folder of a fine-tuned head
    with pytest.raises(NautileError, match="plain: has no head for labels"):
        nautile.classify("x", labels=["a", "b"], model=tmp_path / "plain")


def test_orders_are_permutations_and_the_first_is_the_users() -> None:
    found = orders(6, 5)
    assert found[0] == list(range(6))
    assert all(sorted(order) == list(range(6)) for order in found)
    assert orders(6, 5) == found
    assert len(set(map(tuple, found))) == 5
    assert sorted(orders(3, 50)) == [list(order) for order in itertools.permutations(range(3))]
    assert orders(1, 4) == [[0]]
