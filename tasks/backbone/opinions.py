"""A second teacher: a sentence encoder tuned to sentiment, and its judgment of texts that nobody labelled.

python -m nautile.tasks.backbone.opinions CORPUS DATA RUN --minutes 30      # resumes
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn
from torch.optim import AdamW

from nautile.engine.memory import keep_pages
from nautile.engine.processor import fast_autocast
from nautile.tasks.backbone.heads.sentiment_data import LABELS, read_training
from nautile.tasks.backbone.objectives import Sentiment
from nautile.tasks.backbone.run import Part, Run, group
from nautile.tasks.backbone.teacher import Encoder
from nautile.tasks.backbone.texts import gather, save_json
from nautile.tasks.backbone.vectors import Vectors

LONGEST = 96  # tokens
HEAD_SPEED = 10  # times the encoder's rate
SOURCES = {
    *("cc_reviews", "nltk_reviews", "imdb", "amazon5", "yelp5", "sst5", "customer_reviews", "goemotions"),
    *("tweet_emotion", "broad_twitter", "wnut17", "self_dialogue", "synthetic_persona_chat", "taskmaster"),
}


class Critic(Encoder):
    """A sentence encoder with a linear layer for sentiment; its token vectors stay as they are."""

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__(folder, LONGEST)
        self.sentiment = nn.Linear(self.width, len(LABELS))
        self.backbone.embeddings.requires_grad_(requires_grad=False)

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Probabilities (N, 3) of negative, neutral and positive."""
        with fast_autocast(self.backbone.device):
            vectors = self.read_all(texts)
        return self.sentiment(vectors.to(self.backbone.device)).softmax(-1).cpu().clone()


def main(
    corpus: Annotated[Path, typer.Argument(help="folder of NAME.jsonl.xz")],
    data: Annotated[Path, typer.Argument(help="folder of KIND/NAME/SPLIT.jsonl.xz")],
    run: Annotated[Path, typer.Argument(help="folder of the run: gets opinions.json and opinions.f16")],
    minutes: float = 30,
    count: Annotated[int, typer.Option(help="how many texts to judge, 0: all")] = 0,
    device: str = "cpu",
    encoder: Annotated[
        Path | None,
        typer.Option(help="folder of a sentence encoder that pools by the mean, in place of all-MiniLM-L6-v2"),
    ] = None,
    learning_rate: Annotated[float, typer.Option(help="the larger the encoder, the lower")] = 1e-4,
    seed: int = 0,
) -> None:
    """Tune the encoder to sentiment, then let it judge reviews, posts and talk."""
    keep_pages()
    torch.manual_seed(seed)
    folder = run / "critic"
    folder.mkdir(parents=True, exist_ok=True)
    critic = Critic(encoder).to(device)
    tuned = [p for p in critic.backbone.parameters() if p.requires_grad]
    optimizer = AdamW(
        [group(tuned, learning_rate, decay=0.01), group(critic.sentiment.parameters(), HEAD_SPEED * learning_rate)],
        fused=True,
    )
    training = Run(critic, [optimizer], folder, minutes, seed)
    training.train({"sentiment": Part(Sentiment(read_training(data / "sentiment"), count=32))})
    critic.load_state_dict({**critic.state_dict(), **training.average})
    if not (run / "opinions.json").exists():
        save_json(run / "opinions.json", gather(corpus, data, only=SOURCES))
    texts: list[str] = json.loads((run / "opinions.json").read_text())[: count or None]
    Vectors(run / "opinions.f16", len(LABELS)).fill(texts, critic.eval())


if __name__ == "__main__":
    typer.run(main)
