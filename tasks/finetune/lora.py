"""Low-rank adapters through peft: which layers they reach, and which weights they do not."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import nn

from nautile.errors import NautileError
from nautile.model.heads import NautileForSequenceClassification
from nautile.tasks.finetune.options import Options

LOW = 0.3


class Reach(NamedTuple):
    """How much trains: weights in all, those that train, and what the adapters reach.

    `adapted` counts the weights of the adapted layers, `inner` those of the backbone without its embedding;
    `untouched` names the inner parameters that stay as they are.
    """

    weights: int
    training: int
    adapted: int
    inner: int
    untouched: tuple[str, ...]

    @property
    def training_share(self) -> float:
        """Of all weights."""
        return self.training / self.weights

    @property
    def adapted_share(self) -> float:
        """Of the backbone's weights outside the embedding."""
        return self.adapted / self.inner

    def lines(self) -> list[str]:
        """What a user should know, a warning first where the adapters reach little."""
        said = [
            f"{self.training:,} of {self.weights:,} weights train ({self.training_share:.1%}); "
            f"adapted layers hold {self.adapted_share:.0%} of the weights outside the embedding"
        ]
        if self.untouched:
            said.append(f"not adapted: {', '.join(self.untouched)}")
        if self.adapted_share < LOW:
            said.insert(0, f"warning: the targets reach only {self.adapted_share:.1%} of the inner weights; name more")
        return said


def adapt(model: NautileForSequenceClassification, options: Options) -> tuple[Any, Reach]:
    """The model with LoRA on the layers that `options.targets` name, `score` trained whole; and its reach.

    Raises:
        NautileError: a target that names no linear layer of the backbone.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    weights, score = (sum(parameter.numel() for parameter in part.parameters()) for part in (model, model.score))
    inner = _inner(model)
    layers = matched(model.model, options.targets)
    reached = {f"{layer}.weight" for layer in layers}
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=options.rank,
        lora_alpha=options.alpha,  # type: ignore[arg-type]
        lora_dropout=options.dropout,
        target_modules=options.targets,
        modules_to_save=["score"],
    )
    adapted = get_peft_model(model, config)
    adapted.peft_config["default"].base_model_name_or_path = options.base
    training = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    rest = tuple(dict.fromkeys(_short(name) for name in inner if name not in reached))
    weights += training - score  # the adapters'; what trains of `score` is a copy
    return adapted, Reach(weights, training, sum(inner[name] for name in reached), sum(inner.values()), rest)


def whole(model: NautileForSequenceClassification) -> Reach:
    """The reach of full fine-tuning."""
    weights = sum(parameter.numel() for parameter in model.parameters())
    inner = sum(_inner(model).values())
    return Reach(weights, weights, inner, inner, ())


def matched(backbone: nn.Module, targets: Sequence[str]) -> list[str]:
    """The linear layers whose dotted name ends in one of the targets, in the model's order."""
    linear = [name for name, module in backbone.named_modules() if isinstance(module, nn.Linear)]
    found: set[str] = set()
    for target in targets:
        hits = {name for name in linear if name == target or name.endswith(f".{target}")}
        if not hits:
            there = ", ".join(dict.fromkeys(name.rsplit(".", 1)[-1] for name in linear))
            raise NautileError(f"target {target!r} names no linear layer of this model; there are: {there}")
        found |= hits
    return [name for name in linear if name in found]


def _inner(model: NautileForSequenceClassification) -> dict[str, int]:
    """How many weights each parameter of the backbone holds, its embedding left out."""
    named = model.model.named_parameters()
    return {name: parameter.numel() for name, parameter in named if not name.startswith("embed_")}


def _short(name: str) -> str:
    """A parameter's name without the number of its layer: blocks.3.sca.readout is sca.readout."""
    parts = name.split(".")
    return ".".join(parts[2:] if parts[0] == "blocks" else parts)
