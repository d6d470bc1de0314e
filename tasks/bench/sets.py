"""What `nautile bench accuracy` measures: rows, who judges them, and who is measured beside it on the same rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nautile.errors import NautileError
from nautile.tasks.question import BASE

Headline = Literal["accuracy", "macro_f1"]
ZERO_SHOT, FINE_TUNED = "zero-shot", "fine-tuned"
BASELINES = ("tfidf", "minilm")  # trained on a set's `train`
NEWS = {  # AG News' topics, and the nearest ones of `topic`; its world news are those of states and wars
    "World": "politics and government",
    "Sports": "sport",
    "Business": "business and economy",
    "Science or Technology": "science and technology",
}


@dataclass(frozen=True)
class BenchSet:
    """One line of the table. Files are KIND/NAME/SPLIT in the folder of data, without their suffix.

    `judge` is a built-in task; ZERO_SHOT, which chooses among the data's own labels; or FINE_TUNED, on `train`.
    `peers` are untrained, by their names in `PEERS`; where there is `train`, the baselines are there as well.
    """

    name: str
    rows: str
    judge: str
    headline: Headline = "accuracy"
    train: str | None = None
    peers: tuple[str, ...] = ()
    rename: Mapping[str, str] = field(default_factory=dict)  # the data's name of a label, the model's name
    without: str | None = None  # rows of this label are left out
    restricted: bool = False  # to the labels that occur
    halved: bool = False  # half of the rows calibrate the head and are left out
    learned: bool = False  # nautile-mini learned to match the labels of this set's training rows

    def files(self, data: Path) -> list[Path]:
        """The rows to measure on, then those to train on, if any."""
        names = [self.rows, *([self.train] if self.train else [])]
        return [data / f"{name}.jsonl.xz" for name in names]


@dataclass(frozen=True)
class Settings:
    """The options of `nautile bench accuracy`; 0 rows are all rows, `visible` is about progress bars.

    A `model` other than nautile-mini is a checkpoint with a matching head, measured zero-shot.
    """

    data: Path
    only: tuple[str, ...] = ()
    rows: int = 0
    output: Path | None = None
    finetune: bool = False
    smollm2: bool = False
    smollm2_rows: int = 300
    seed: int = 0
    resamples: int = 1000
    threads: int | None = None
    visible: bool = False
    model: str = BASE


def _zero_shot(name: str, rows: str, without: str | None = None, learned: bool = False) -> BenchSet:
    peers = ("cosine", "smollm2")
    return BenchSet(f"{name}-zero-shot", rows, ZERO_SHOT, peers=peers, without=without, learned=learned)


SETS = (
    BenchSet(
        "sst2", "sentiment/sst2/dev", "sentiment", train="sentiment/sst2/train", peers=("vader",), restricted=True
    ),
    BenchSet("tweets", "sentiment/tweet_sentiment/dev", "sentiment", "macro_f1", peers=("vader",)),
    BenchSet("goemotions", "sentiment/goemotions/dev", "emotion", "macro_f1", halved=True),
    BenchSet(
        "clinc150",
        "intent/clinc150/dev",
        "intent",
        "macro_f1",
        train="intent/clinc150/train",
        rename={"oos": "out_of_scope"},
        halved=True,
    ),
    BenchSet("news", "topic/agnews/test", "topic", rename=NEWS, restricted=True, peers=("cosine",)),
    _zero_shot("banking77", "intent/banking77/test"),
    _zero_shot("clinc150", "intent/clinc150/dev", without="oos", learned=True),
    _zero_shot("agnews", "topic/agnews/test"),
    _zero_shot("sst2", "sentiment/sst2/dev", learned=True),
    _zero_shot("dbpedia14", "topic/dbpedia14/dev", learned=True),
    BenchSet("banking77-fine-tuned", "intent/banking77/test", FINE_TUNED, train="intent/banking77/train"),
)


def choose_sets(names: Sequence[str], finetune: bool, model: str = BASE) -> list[BenchSet]:
    """The sets of these names, all for none; what is fine-tuned only with `finetune`, a `model` only zero-shot.

    Raises:
        NautileError: an unknown name, one that needs `finetune`, one that a model other than nautile-mini cannot judge.
    """
    known = {entry.name: entry for entry in SETS}
    if unknown := [name for name in names if name not in known]:
        raise NautileError(f"--only {unknown[0]}: no such set; there are: {', '.join(known)}")
    asked = [known[name] for name in names]
    if not finetune and (tuned := [entry.name for entry in asked if entry.judge == FINE_TUNED]):
        raise NautileError(f"--only {tuned[0]}: a model is trained for it; add --finetune and --output FOLDER")
    if model != BASE and (others := [entry.name for entry in asked if entry.judge != ZERO_SHOT]):
        raise NautileError(f"--only {others[0]}: --model is measured zero-shot; leave one of the two out")
    if model != BASE and finetune:
        raise NautileError("--finetune starts from nautile-mini: leave --model or --finetune out")
    chosen = [entry for entry in SETS if not names or entry in asked]
    if model != BASE:
        return [entry for entry in chosen if entry.judge == ZERO_SHOT]
    return [entry for entry in chosen if finetune or entry.judge != FINE_TUNED]


def present_sets(sets: Sequence[BenchSet], data: Path) -> tuple[list[BenchSet], list[str]]:
    """The sets whose files are there, and notes on the others.

    Raises:
        NautileError: no set has its files.
    """
    absent = {entry.name: [path for path in entry.files(data) if not path.is_file()] for entry in sets}
    there = [entry for entry in sets if not absent[entry.name]]
    if not there:
        wanted = next(paths[0] for paths in absent.values())
        raise NautileError(f"{data}: none of the sets is there; give the folder that holds KIND/NAME/, as in {wanted}")
    return there, [f"{name} is left out: {paths[0]} is not there" for name, paths in absent.items() if paths]
