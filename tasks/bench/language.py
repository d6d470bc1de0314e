"""The run of `nautile bench language`: bits a byte of held-out documents, and how the model goes on from prompts."""

import lzma
import math
from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch

from nautile import __version__
from nautile.engine.scoring import Likelihood, score
from nautile.model.checkpoints import Nautile
from nautile.model.config import vocabulary_of
from nautile.model.heads import NautileForCausalLM
from nautile.tasks.bench.language_results import ALL, Language, Sample, Source
from nautile.tasks.corpus import documents, sources
from nautile.tasks.evaluate.bootstrap import bootstrap
from nautile.tasks.evaluate.checks import check_folder, make_folder
from nautile.tasks.kinds import Array
from nautile.tasks.progress import Meter

CHARACTERS = 2_000  # a document's beginning
PROMPTS = (  # what is to be continued, or (True) answered
    ("The most important thing about", False),
    ("She opened the door and", False),
    ("The food was good, but", False),
    ("Is this review positive or negative? A dull film with a wonderful cast.", True),
    ("A farmer has 3 fields with 4 cows each. How many cows are there?", True),
)
TOKENS, TEMPERATURE, LIKELIEST = 40, 0.7, 50


def language(
    corpus: Path,
    model: str | Path = "nautile-mini",
    rows: int = 40,
    output: Path | None = None,
    seed: int = 0,
    resamples: int = 1000,
    visible: bool = False,
) -> Language:
    """Measure on at most `rows` held-out documents of each source (0: all), each cut to its first CHARACTERS.

    With `output` language.json and language.md are written there; `visible` shows a bar.

    Raises:
        NautileError: no corpus, no language model, a folder that cannot be written to.
    """
    if output is not None:
        check_folder(output)
    texts = {name: _read(path, rows) for name, path in sources(corpus).items()}
    speaker = Nautile.from_pretrained(model)
    if output is not None:
        make_folder(output)
    found = Language(
        version=__version__,
        model=str(model),
        seed=seed,
        resamples=resamples,
        sources=measure(speaker, texts, seed, resamples, visible),
        samples=[Sample(prompt=said, text=go_on(speaker, said, chat, seed)) for said, chat in PROMPTS],
    )
    if output is not None:
        found.save(output, "language.json", "language.md")
    return found


def _read(path: Path, rows: int) -> list[str]:
    return [text[:CHARACTERS] for text in islice(documents(path, held_out=True), rows or None)]


def measure(
    model: NautileForCausalLM, texts: dict[str, list[str]], seed: int, resamples: int, visible: bool = False
) -> list[Source]:
    """The figures of all sources together, then of each."""
    found: dict[str, list[Likelihood]] = {}
    with Meter(visible) as meter:
        meter.begin(sum(map(len, texts.values())))
        for name, mine in texts.items():
            found[name] = score(model, mine)
            meter.advance(len(mine), judged=True)
    whole = figures(ALL, list(chain(*texts.values())), list(chain(*found.values())), seed, resamples)
    return [whole, *(figures(name, texts[name], part, seed, resamples) for name, part in found.items() if part)]


def figures(name: str, texts: Sequence[str], found: Sequence[Likelihood], seed: int, resamples: int) -> Source:
    """Bits a byte over all bytes of a source, its documents resampled; beside it those of xz on the same texts."""
    nats_N, size_N = (np.array(column, float) for column in ([one.nats for one in found], [one.size for one in found]))

    def bits(weights_RN: Array) -> Array:
        share: Array = weights_RN @ nats_N / math.log(2) / (weights_RN @ size_N)
        return share[:, None]

    packed = len(lzma.compress("\n".join(texts).encode(), preset=9 | lzma.PRESET_EXTREME))
    return Source(
        source=name,
        documents=len(texts),
        size=int(size_N.sum()),
        bits=bootstrap({"bits": bits}, len(texts), resamples, seed)["bits"][0],
        xz=8 * packed / size_N.sum(),
    )


def go_on(model: NautileForCausalLM, prompt: str, chat: bool, seed: int) -> str:
    """What the model writes after a prompt, or answers in a chat; drawn at TEMPERATURE from the LIKELIEST tokens."""
    vocabulary = vocabulary_of(model.config)
    ids = vocabulary.render_chat(prompt) if chat else [vocabulary.eos_id, *vocabulary.encode(prompt)]
    torch.manual_seed(seed)
    written = model.generate(
        torch.tensor([ids]),
        max_new_tokens=TOKENS,
        do_sample=True,
        temperature=TEMPERATURE,
        top_k=LIKELIEST,
        eos_token_id=[vocabulary.eos_id, vocabulary.control["<|im_end|>"]],
        pad_token_id=vocabulary.pad_id,
    )
    return vocabulary.decode(written[0, len(ids) :].tolist(), skip_control=True).strip()
