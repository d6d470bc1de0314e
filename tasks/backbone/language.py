"""The language model: a copy of the backbone, trained to predict the next token.

python -m nautile.tasks.backbone.language CORPUS DATA RUN --minutes 30      # RUN: trained by .train; resumes
"""

import itertools
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn

from nautile.engine.batching import pad_right
from nautile.engine.processor import prepare_training
from nautile.engine.scoring import BATCH_TOKENS
from nautile.model.config import vocabulary_of
from nautile.model.heads import IGNORED, NautileForCausalLM
from nautile.model.vocabulary import Vocabulary
from nautile.tasks.backbone.export import language_model, load_student
from nautile.tasks.backbone.objectives import alike
from nautile.tasks.backbone.ranks import join, leave, once
from nautile.tasks.backbone.run import Part, Run, adamw
from nautile.tasks.corpus import documents, rows, rows_to_learn, sources

PIECE = 1_000  # characters
PER_SOURCE = 4_000_000  # characters
LONGEST = 256  # tokens
CHATS = 0.15  # of the steps
FIRST_LOGITS = 1 / 32  # the last norm's scale: token vectors are long
WORKING = re.compile(r"<<[^>]*>>")
Turn = tuple[str, str | None, str]
"""A query, reasoning if there is any, and an answer."""


def pieces(corpus: Path, seed: int = 0) -> list[str]:
    """Documents cut into pieces, about as much of every source, in random order."""
    found: list[str] = []
    for name, path in sources(corpus).items():
        texts = list(documents(path, held_out=False))
        random.Random(f"{seed}/{name}").shuffle(texts)
        cut = (text[start : start + PIECE] for text in texts for start in range(0, len(text), PIECE))
        found += itertools.islice(cut, PER_SOURCE // PIECE)
    random.Random(seed).shuffle(found)
    return found


def turns(data: Path) -> list[Turn]:
    """Tasks and their answers for the chat template, without texts that must not go into weights that ship."""
    found: list[Turn] = []
    for path in data.glob("*/t0_templates/train.jsonl.xz"):
        answers = ((row, row["completion"].replace("<|endoftext|>", "").strip()) for row in rows_to_learn(path))
        found += ((row["prompt"], None, answer) for row, answer in answers)
    for path in data.glob("*/gsm8k/train.jsonl.xz"):
        for row in rows(path):
            reasoning, _, answer = WORKING.sub("", row["answer"]).rpartition("\n#### ")
            found.append((row["question"], reasoning, answer))
    return [turn for turn in found if len(turn[0]) < PIECE]


@dataclass
class NextToken:
    """Predict each token of passages and, now and then, of chats from those before it."""

    vocabulary: Vocabulary
    texts: Sequence[str]
    chats: Sequence[Turn]
    tokens: int

    def __call__(self, model: NautileForCausalLM, rng: random.Random) -> Tensor:
        """Cross entropy in nats a token."""
        count = max(1, self.tokens // LONGEST)
        if self.chats and rng.random() < CHATS:
            ids = [self.vocabulary.render_chat(*turn) for turn in rng.sample(self.chats, min(count, len(self.chats)))]
        else:
            ids = self.vocabulary.encode_batch([self.texts[n] for n in alike(self.texts, count, rng)])
        cut = [[self.vocabulary.eos_id, *row, self.vocabulary.eos_id][:LONGEST] for row in ids]
        ids_BL, mask_BL = (part.to(model.device) for part in pad_right(cut))
        loss: Tensor = model(ids_BL, mask_BL, labels=ids_BL.masked_fill(mask_BL == 0, IGNORED)).loss
        return loss


def begin(run: Path) -> NautileForCausalLM:
    """A copy of the run's backbone under a language-modelling head."""
    backbone = load_student(run).backbone
    model = language_model(backbone.config)
    model.model.load_state_dict(
        {name: tensor for name, tensor in backbone.state_dict().items() if not name.startswith("embed_pairs.")}
    )
    with torch.no_grad():
        assert isinstance(model.model.norm, nn.RMSNorm)
        model.model.norm.weight.fill_(FIRST_LOGITS)
    return model


def main(
    corpus: Annotated[Path, typer.Argument(help="folder of NAME.jsonl.xz")],
    data: Annotated[Path, typer.Argument(help="folder of KIND/NAME/SPLIT.jsonl.xz")],
    folder: Annotated[Path, typer.Argument(help="the backbone's run: gets language/")],
    minutes: float = 30,
    learning_rate: float = 2e-3,
    scale: Annotated[int, typer.Option(help="times as many tokens a step: 1 for a CPU")] = 1,
    device: str = "cpu",
    seed: int = 0,
) -> None:
    """Train; the same command resumes."""
    prepare_training()
    join(device)
    torch.manual_seed(seed)
    model = begin(folder).to(device)
    once(lambda: (folder / "language").mkdir(exist_ok=True))
    vocabulary = vocabulary_of(model.config)
    objective = NextToken(vocabulary, pieces(corpus, seed), turns(data), BATCH_TOKENS * scale)
    run = Run(model, [adamw(model.named_parameters(), learning_rate)], folder / "language", minutes, seed)
    run.train({"next token": Part(objective)})
    leave()


if __name__ == "__main__":
    typer.run(main)
