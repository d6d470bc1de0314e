"""The language model: trained from a backbone, saved in a folder of its own beside it, loaded and measured."""

import json
import lzma
import random
from pathlib import Path

import pytest
import tiny
import torch
from typer.testing import CliRunner

from nautile.engine.scoring import score
from nautile.errors import NautileError
from nautile.model.checkpoints import Nautile, load, save
from nautile.model.heads import NautileForCausalLM
from nautile.model.model import NautileModel
from nautile.model.vocabulary import Vocabulary
from nautile.tasks.backbone.export import export, new_student
from nautile.tasks.backbone.language import NextToken, begin, pieces, turns
from nautile.tasks.backbone.run import Part, Run, adamw
from nautile.tasks.bench.command_line import app
from nautile.tasks.bench.language import language
from nautile.tasks.bench.language_results import ALL, Language
from nautile.tasks.corpus import HELD_OUT, documents, sources

TEXTS = [f"In the year {n} the old mill by the river was sold once more." for n in range(2 * HELD_OUT + 3)]
STEPS = 30


def write(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with lzma.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write(folder / "mills.jsonl.xz", [{"text": text} for text in TEXTS])
    write(folder / "blank.jsonl.xz", [{"text": " "}])
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the backbone that has just begun, and some steps of its language model."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    student = new_student()
    student.backbone.embed_tokens.weight.data.mul_(100)  # as long as fitted ones
    torch.save({"module": student.state_dict(), "average": {}}, folder / "checkpoint.pt")
    model = begin(folder)
    (folder / "language").mkdir()
    clock = iter(range(1000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nautile.tasks.backbone.run.time.monotonic", lambda: next(clock))  # each step takes a second
        training = Run(model, [adamw(model.named_parameters(), 1e-2)], folder / "language", minutes=STEPS / 60, seed=0)
        training.train({"next token": Part(NextToken(student.vocabulary, TEXTS, [], tokens=512))})
    return folder


@pytest.fixture(scope="module")
def checkpoint(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    export(run, folder)
    return folder


def test_documents_are_either_for_learning_or_for_measuring(corpus: Path) -> None:
    path = sources(corpus)["mills"]
    learned, measured = list(documents(path, held_out=False)), list(documents(path, held_out=True))
    assert measured == [TEXTS[0], TEXTS[HELD_OUT], TEXTS[2 * HELD_OUT]]
    assert sorted(learned + measured) == sorted(TEXTS)
    assert sorted(pieces(corpus)) == sorted(learned)


def test_a_folder_without_documents_is_told(tmp_path: Path) -> None:
    with pytest.raises(NautileError, match="give the folder of a corpus"):
        sources(tmp_path)


def test_turns_leave_out_what_must_not_ship(tmp_path: Path) -> None:
    tasks = [
        {"prompt": "Which topic?", "completion": "Sports", "source": "ag_news_recommend"},
        {"prompt": "Is it true?", "completion": " yes <|endoftext|>", "source": "wiki_qa"},
    ]
    write(tmp_path / "instruction" / "t0_templates" / "train.jsonl.xz", tasks)
    sums = [{"question": "1 and 1?", "answer": "It is 1+1 = <<1+1=2>>2.\n#### 2"}]
    write(tmp_path / "reasoning" / "gsm8k" / "train.jsonl.xz", sums)
    assert turns(tmp_path) == [("Is it true?", None, "yes"), ("1 and 1?", "It is 1+1 = 2.", "2")]


@pytest.mark.slow
def test_training_lowers_the_loss(run: Path) -> None:
    before = begin(run)
    state = torch.load(run / "language" / "checkpoint.pt", weights_only=True)["module"]
    objective = NextToken(Vocabulary("nautile", 32_000), TEXTS, [("2 and 2?", "It is 4.", "4")], tokens=512)
    with torch.no_grad():
        first = objective(before, random.Random(0))
        before.load_state_dict(state)
        assert objective(before, random.Random(0)) < first - 1


@pytest.mark.slow
def test_the_language_model_is_found_beside_its_backbone(run: Path, checkpoint: Path, tmp_path: Path) -> None:
    model = Nautile.from_pretrained(checkpoint)
    assert isinstance(model, NautileForCausalLM)
    backbone = load(checkpoint)
    assert isinstance(backbone, NautileModel)
    assert not torch.equal(model.model.embed_tokens.weight, backbone.embed_tokens.weight)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    average = torch.load(run / "language" / "checkpoint.pt", weights_only=True)["average"]
    for name, parameter in average.items():
        assert torch.equal(model.get_parameter(name), parameter.to(torch.bfloat16).float()), name
    model.save_pretrained(tmp_path)
    again = Nautile.from_pretrained(tmp_path)
    ids = tiny.tokens(1, 9)
    with torch.no_grad():
        assert torch.equal(again(ids).logits, model(ids).logits)


def test_a_backbone_alone_is_no_language_model(corpus: Path, tmp_path: Path) -> None:
    save(tiny.model(NautileModel, vocab_size=1_008), tmp_path)
    with pytest.raises(NautileError, match="holds a NautileModel, no language model"):
        Nautile.from_pretrained(tmp_path)
    with pytest.raises(NautileError, match="no language model"):
        language(corpus, tmp_path)


@pytest.mark.slow
def test_bits_a_byte_are_measured_by_source(corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    options = ["language", str(corpus), "--model", str(checkpoint), "-o", str(tmp_path), "--resamples", "20"]
    done = CliRunner().invoke(app, options)
    assert done.exit_code == 0, done.output
    found = Language.model_validate_json((tmp_path / "language.json").read_text())
    assert [source.source for source in found.sources] == [ALL, "mills"]
    whole, mills = found.sources
    assert whole.bits == mills.bits
    assert mills.documents == 3
    assert mills.size == sum(len(text) for text in (TEXTS[0], TEXTS[HELD_OUT], TEXTS[2 * HELD_OUT]))
    assert 0 < mills.bits.value < 5
    assert "mills" in done.output
    assert len(found.samples) == 5


def test_what_ships_speaks_english() -> None:
    model = Nautile.from_pretrained("nautile-mini")
    sentences = ["The children went to school in the morning.", "Morning the in school to went children the."]
    likely, unlikely = score(model, sentences)
    assert likely.bits_per_byte < unlikely.bits_per_byte < 8
    assert likely.bits_per_byte < 3
