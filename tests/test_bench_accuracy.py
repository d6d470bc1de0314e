"""`nautile bench accuracy` on tiny sets, with judges and peers that need no model."""

import json
import lzma
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

import nautile.tasks.classify
import nautile.tasks.extras
import nautile.tasks.finetune.run
from nautile.cli import app
from nautile.errors import NautileError
from nautile.model.checkpoints import save
from nautile.model.heads import NautileForCausalLM
from nautile.model.places import fingerprint
from nautile.tasks.backbone.heads.halves import calibrates
from nautile.tasks.bench import entrants, peers
from nautile.tasks.bench.accuracy import accuracy
from nautile.tasks.bench.language_model import Choice, language_model
from nautile.tasks.bench.peers import PEERS, Peer, check_peers, cosine, vader
from nautile.tasks.bench.report import Findings
from nautile.tasks.bench.rows import read_set, sample, without
from nautile.tasks.bench.sets import SETS, Settings, choose_sets
from nautile.tasks.evaluate.contenders import Contender
from nautile.tasks.labelled import Labelled
from nautile.tasks.question import Question

TASKS = {"sentiment": ("negative", "neutral", "positive"), "intent": ("out_of_scope", "time", "timer")}


class Reader:
    """A judge that reads the label off the text's last word, and says the first of its labels where it cannot."""

    kind, calibration = "single", None

    def __init__(self, asked: Question) -> None:
        named = TASKS[asked.task or "sentiment"] if asked.labels is None else (name for name, _ in asked.labels)
        self.labels = tuple(named)

    def measure(self, texts: Sequence[str]) -> np.ndarray:
        ends = [text.split()[-1] for text in texts]
        best = [self.labels.index(end) if end in self.labels else 0 for end in ends]
        return np.eye(len(self.labels))[best] * 0.7 + 0.1


def constant(name: str, labels: Sequence[str]) -> Contender:
    """A contender that always says the first label."""
    found = np.eye(len(labels))[:1] * 0.5 + 0.1
    return Contender(name, tuple(labels), "single", lambda texts: np.repeat(found, len(texts), axis=0))


def write(path: Path, rows: Sequence[tuple[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    path.write_bytes(lzma.compress("\n".join(lines).encode()))


ASKS = [(f"ask {n} {label}", label) for n in range(6) for label in ("time", "timer")] + [("what now", "oos")] * 4


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """SST-2 and CLINC150: every text ends with its label, but for those of `oos`."""
    folder = tmp_path / "data"
    moods = [(f"film {n} {label}", label) for n in range(10) for label in ("negative", "positive")]
    write(folder / "sentiment/sst2/dev.jsonl.xz", moods)
    write(folder / "sentiment/sst2/train.jsonl.xz", moods[:4])
    write(folder / "intent/clinc150/dev.jsonl.xz", ASKS)
    write(folder / "intent/clinc150/train.jsonl.xz", ASKS)
    return folder


@pytest.fixture(autouse=True)
def _stubs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nautile.tasks.classify, "judge_for", Reader)
    monkeypatch.setattr(entrants, "train_baseline", lambda name, rows: constant(f"{name} + LR", rows.labels))
    monkeypatch.setattr(entrants, "check_baselines", lambda names: None)
    monkeypatch.setitem(PEERS, "vader", Peer(lambda labels: constant("VADER", TASKS["sentiment"]), ()))
    monkeypatch.setitem(PEERS, "cosine", Peer(lambda labels: constant("cosine", labels), ()))
    monkeypatch.setitem(PEERS, "smollm2", Peer(lambda labels: constant("SmolLM2", labels), (), slow=True))
    monkeypatch.setenv("COLUMNS", "200")


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["bench", "accuracy", *map(str, arguments)], standalone_mode=False)


def test_one_run_measures_everything_that_is_there(data: Path, tmp_path: Path) -> None:
    shown = run(data, "--resamples", 50, "-o", tmp_path / "out")
    assert shown.exit_code == 0, shown.output
    found = Findings.model_validate_json((tmp_path / "out/accuracy.json").read_text())
    lines = {line.name: line for line in found.lines}
    assert list(lines) == ["sst2", "clinc150", "clinc150-zero-shot", "sst2-zero-shot"]
    assert [c.opponent for c in lines["sst2"].summary.comparisons] == ["tfidf + LR", "minilm + LR", "VADER"]
    assert lines["sst2"].summary.figures.labels == ["negative", "positive"]
    assert lines["sst2"].ours.value == 1
    assert lines["sst2"].summary.comparisons[0].opponent_figures.accuracy.value == 0.5
    assert lines["sst2"].summary.comparisons[0].only_first_right == 10
    measured = [text for text, _ in ASKS if not calibrates(text)]
    assert 0 < lines["clinc150"].summary.figures.rows == len(measured) < len(ASKS)
    assert f"{len(ASKS) - len(measured)} rows that the head is calibrated on are left out" in found.report
    assert lines["clinc150-zero-shot"].summary.figures.rows == 12
    for part in ("sst2", "VADER", "macro-F1", "nautile-mini", "1.000 [1.000, 1.000]"):
        assert part in shown.stdout
    assert "nautile-mini sentiment is more often right than VADER" in shown.stdout


def test_the_report_is_a_table_with_a_row_a_set_and_its_verdicts(data: Path, tmp_path: Path) -> None:
    found = accuracy(Settings(data, ("sst2", "clinc150-zero-shot"), output=tmp_path / "out", resamples=20))
    lines = (tmp_path / "out/report.md").read_text().splitlines()
    head = lines.index("| set | rows | figure | nautile-mini | tfidf + LR | minilm + LR | VADER | cosine | verdict |")
    assert lines[head + 2].startswith("| sst2 | 20 | accuracy | 1.000 [1.000, 1.000] | .500 [")
    assert found.lines[0].verdicts[0] in lines[head + 2]
    assert lines[head + 3].startswith("| clinc150-zero-shot | 12 | accuracy | 1.000 [1.000, 1.000] |  |  |  | .500 [")
    assert "- clinc150-zero-shot: 4 rows labelled 'oos' are left out" in lines
    assert "- clinc150-zero-shot: not truly zero-shot: nautile-mini learned to match the labels of" in "\n".join(lines)
    assert "- sst2: 4 training rows; 4 of the texts measured on are among them" in lines
    assert any(line.startswith("- sst2: nautile-mini sentiment: compared are only the 2 labels") for line in lines)


def test_another_checkpoint_is_measured_zero_shot(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sibling"
    save(tiny.model(NautileForCausalLM, vocab_size=300), folder)
    found = accuracy(Settings(data, resamples=0, model=str(folder)))
    assert [line.name for line in found.lines] == ["clinc150-zero-shot", "sst2-zero-shot"]
    assert (found.model, found.weights) == (str(folder), fingerprint(str(folder)))
    assert not any("not truly zero-shot" in note for note in found.notes)
    assert "sst2-zero-shot: zero-shot if this model did not learn from its training rows" in found.notes
    with pytest.raises(NautileError, match="--finetune starts from nautile-mini"):
        accuracy(Settings(data, output=tmp_path, finetune=True, model=str(folder)))
    with pytest.raises(NautileError, match="--only sst2: --model is measured zero-shot"):
        accuracy(Settings(data, ("sst2",), model=str(folder)))


def test_a_slow_peer_is_compared_on_its_own_rows(data: Path) -> None:
    quick = accuracy(Settings(data, ("sst2-zero-shot",), resamples=0))
    assert [c.opponent for c in quick.lines[0].summary.comparisons] == ["cosine"]
    [line] = accuracy(Settings(data, ("sst2-zero-shot",), smollm2=True, smollm2_rows=7, resamples=0)).lines
    slow = line.summary.comparisons[1]
    kept = sample(20, 7, seed=0)
    assert (slow.opponent_figures.rows, slow.only_first_right) == (7, int((kept % 2).sum()))
    assert line.cell("SmolLM2").endswith(" on 7 rows, against 1.000")
    assert line.summary.figures.rows == line.summary.comparisons[0].opponent_figures.rows == 20


def test_sets_that_are_not_there_are_said(data: Path, tmp_path: Path) -> None:
    (data / "sentiment/sst2/train.jsonl.xz").unlink()
    shown = run(data, "--resamples", 0)
    assert "sst2 is left out" in shown.stderr
    assert "sst2/train.jsonl.xz is not there" in shown.stdout
    assert "sst2-zero-shot: " in shown.stderr
    with pytest.raises(NautileError, match=r"none of the sets is there; .* as in .*sst2/dev\.jsonl\.xz$"):
        accuracy(Settings(tmp_path / "elsewhere"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "sst3"], "--only sst3: no such set; there are: sst2, tweets, "),
        (["--only", "banking77-fine-tuned"], "add --finetune and --output"),
    ],
)
def test_sets_that_cannot_be_asked_for(arguments: list[str], message: str, data: Path) -> None:
    with pytest.raises(NautileError, match=message):
        raise run(data, *arguments).exception


def test_rows_of_a_label_can_be_left_out() -> None:
    rows = Labelled(["a", "b", "c"], np.array([0, 1, 2]), ("left", "oos", "right"), "single", [])
    kept, note = without(rows, "oos")
    assert (kept.texts, kept.labels, kept.truth.tolist()) == (["a", "c"], ("left", "right"), [0, 1])
    assert note == "1 rows labelled 'oos' are left out"
    assert without(kept, "oos")[0].texts == kept.texts


@given(st.integers(1, 200), st.integers(0, 250), st.integers(0, 5))
def test_samples_are_the_same_each_time_and_nested(rows: int, most: int, seed: int) -> None:
    found = sample(rows, most, seed).tolist()
    assert found == sample(rows, most, seed).tolist() == sorted(set(found))
    assert len(found) == (min(rows, most) if most else rows)
    assert set(found) <= set(sample(rows, most + 1 if most else 0, seed).tolist())


def test_sampled_rows_keep_all_labels(data: Path) -> None:
    [entry] = choose_sets(["clinc150-zero-shot"], finetune=False)
    first, again = (read_set(entry, Settings(data, rows=1, seed=4)) for _ in range(2))
    assert first.rows.texts == again.rows.texts
    assert (len(first.rows.texts), first.rows.labels) == (1, ("time", "timer"))
    assert "a random sample of 1 rows of 12, seed 4" in first.notes


def test_what_is_fine_tuned_is_made_once(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split in ("train", "test"):
        write(data / f"intent/banking77/{split}.jsonl.xz", [("a time", "time"), ("a timer", "timer")] * 3)
    asked = []

    def finetune(rows: Path, output: str, **options: Any) -> Path:
        asked.append((rows, options["method"], options["refit"], options["seed"]))
        Path(output).mkdir()
        about = {"base_digest": entrants.fingerprint("nautile-mini"), "seed": options["seed"], "method": "head"}
        head = {"labels": TASKS["intent"], "kind": "single", "out_of_scope": None, "unit": False}
        head |= {"calibration": None, "about": about}
        (Path(output) / "head.json").write_text(json.dumps(head))
        return Path(output)

    monkeypatch.setattr(nautile.tasks.finetune.run, "finetune", finetune)
    monkeypatch.setitem(TASKS, "sentiment", ("time", "timer"))  # the stub's labels where no task is named
    settings = Settings(data, ("banking77-fine-tuned",), output=tmp_path / "out", finetune=True, resamples=0)
    [line] = accuracy(settings).lines
    assert (line.summary.model, line.ours.value) == ("nautile-mini, fine-tuned", 1)
    assert accuracy(settings).lines == [line]
    assert asked == [(data / "intent/banking77/train.jsonl.xz", "head", True, 0)]
    with pytest.raises(NautileError, match="with another seed"):
        accuracy(Settings(data, settings.only, output=settings.output, finetune=True, seed=1))
    with pytest.raises(NautileError, match="give --output"):
        accuracy(Settings(data, finetune=True))


def test_vader_follows_its_authors(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = pytest.importorskip("vaderSentiment.vaderSentiment")
    scores = {"a": 0.05, "b": 0.0499, "c": -0.05, "d": -0.0499, "e": 1.0, "f": -1.0, "g": 0.0}
    contender = vader(())
    assert contender.labels[int(contender.measure(["I love this great film"]).argmax())] == "positive"
    monkeypatch.setattr(
        rules.SentimentIntensityAnalyzer, "polarity_scores", lambda self, text: {"compound": scores[text]}
    )
    found = contender.measure(list(scores))
    given = [contender.labels[place] for place in found.argmax(axis=1)]
    assert given == ["positive", "neutral", "negative", "neutral", "positive", "negative", "neutral"]
    two = [contender.labels[place] for place in found[:, :2].argmax(axis=1)]
    assert two == ["positive", "positive", "negative", "negative", "positive", "negative", "negative"]


def test_cosine_compares_text_and_label(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"card arrival": [1.0, 0.0], "top up": [0.0, 1.0], "where is my card": [0.8, 0.6]}
    monkeypatch.setattr(peers, "minilm_vectors", lambda: lambda texts: np.array([table[text] for text in texts]))
    found = cosine(["card_arrival", "top_up"]).measure(["where is my card"])
    assert found == pytest.approx(np.array([[1 / (1 + np.exp(-4)), 1 / (1 + np.exp(4))]]))


class Letters:
    """A tokenizer of letters; its chat template puts marks around the message."""

    def apply_chat_template(self, said: list[dict[str, str]], **options: Any) -> str:
        return f"<{said[0]['content']}>"

    def __call__(self, text: str, **options: Any) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) for letter in text]}


@pytest.fixture
def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    size = {"vocab_size": 128, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    config = LlamaConfig(**size, num_attention_heads=4, num_key_value_heads=2, initializer_range=0.3)
    return LlamaForCausalLM(config).eval()


@torch.no_grad()
def naive(model: LlamaForCausalLM, prompt: list[int], label: list[int]) -> float:
    """The mean log-probability of the label's ids after the prompt, the whole read at once."""
    logs = model(torch.tensor([prompt + label])).logits[0].log_softmax(dim=1)
    return float(np.mean([float(logs[len(prompt) + n - 1, token]) for n, token in enumerate(label)]))


@pytest.mark.parametrize("labels", [[[5], [9]], [[5, 6, 7], [9], [11, 12]]])
def test_label_scores_are_mean_log_probabilities(labels: list[list[int]], llama: LlamaForCausalLM) -> None:
    start, text = [3, 1, 4, 1], [5, 9, 2]
    choice = Choice(llama, start, labels)
    first = choice.scores(text)
    choice.scores([7, 7])
    expected = torch.tensor([naive(llama, start + text, label) for label in labels])
    torch.testing.assert_close(first, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(choice.scores(text), first)


def test_a_language_model_picks_the_label_that_the_text_makes_likelier(llama: LlamaForCausalLM) -> None:
    labels, texts = ["card_arrival", "top_up", "refund"], ["where is it?", "pay in"]
    found = language_model("tiny", llama, Letters(), labels).measure(texts)
    start = "<Choose the label that fits the text best, and answer with that label alone.\n"

    def likelihoods(text: str) -> np.ndarray:
        prompt = [ord(c) for c in f"{start}Labels: card arrival, top up, refund\nText: {text}>"]
        return np.array([naive(llama, prompt, [ord(c) for c in label.replace("_", " ")]) for label in labels])

    for row, text in zip(found, texts, strict=True):
        scores = likelihoods(text) - likelihoods("N/A")
        assert row.argmax() == scores.argmax()
        assert np.log(row) - np.log(row[0]) == pytest.approx(scores - scores[0], abs=1e-4)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PEERS, "vader", Peer(vader, ("vaderSentiment",)))
    monkeypatch.setattr(nautile.tasks.extras, "find_spec", lambda name: None)
    with pytest.raises(
        NautileError, match=r'the peer vader needs more packages: .*\[train\]" \(missing: vaderSentiment\)'
    ):
        check_peers(["vader"])


def test_the_table_of_sets_is_consistent() -> None:
    names = [entry.name for entry in SETS]
    assert len(set(names)) == len(names)
    assert {peer for entry in SETS for peer in entry.peers} == set(PEERS)
    assert [entry.name for entry in choose_sets([], finetune=False)] == names[:-1]


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys; from nautile.tasks.bench.command_line import app\n"
        "app(['accuracy', '--help'], standalone_mode=False)\n"
        "print([m for m in ('torch', 'sklearn', 'numpy', 'pandas', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "nautile bench accuracy data/ --only sst2 --only tweets" in done.stdout
