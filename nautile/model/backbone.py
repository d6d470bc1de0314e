"""The backbone: embedding, blocks, and a last norm if there is one. Paper: section 2.1.

Reading texts starts soon with it alone: `model.py` makes it a model of transformers, which takes seconds to import.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nautile.errors import NautileError
from nautile.model.attention import rotary, visible_keys
from nautile.model.blocks import AttentionBlock, SCABlock
from nautile.model.config import NautileConfig
from nautile.model.layout import Layout, lay_out
from nautile.model.pairs import PairEmbedding, ids_before, last_ids
from nautile.model.places import part_at, read_config
from nautile.model.state import NautileState

WEIGHTS = "model.safetensors"
PLAIN = {"model_type": "nautile", "architectures": ["NautileModel"], "quantization_config": None}  # in config.json


class Hidden(NamedTuple):
    """Hidden states (B,L,D) of all tokens, the state after them, and the inputs of all layers and the last output."""

    last_hidden_state: Tensor
    cache: NautileState | None
    hidden_states: tuple[Tensor, ...] | None


class Backbone(nn.Module):
    """The layers alone; what they weigh, `read_backbone` or transformers fills in."""

    BLOCKS: ClassVar[dict[str, type[nn.Module]]] = {"sca": SCABlock, "attention": AttentionBlock}

    def __init__(self, config: NautileConfig) -> None:
        super().__init__()
        self.config = config
        self.build(config)

    def build(self, config: NautileConfig) -> None:
        """Make the layers."""
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.embed_pairs = PairEmbedding(config.pairs, config.d_model) if config.pairs else None
        self.blocks = nn.ModuleList(self.BLOCKS[kind](config, index) for index, kind in enumerate(config.layer_kinds))
        self.norm = nn.RMSNorm(config.d_model, eps=config.norm_eps) if config.final_norm else nn.Identity()

    @property
    def device(self) -> torch.device:
        """Where the layers are."""
        return self.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What the layers compute in."""
        return self.embed_tokens.weight.dtype

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cache: NautileState | None = None,
        inputs_embeds: Tensor | None = None,
        segment_ids: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> Hidden:
        """Hidden states of all tokens.

        Args:
            input_ids: (B,L) ids, or give `inputs_embeds` (B,L,D), which a model with pairs refuses.
            attention_mask: (B,L), or (B, past + L), 1 for real tokens; padding may stand anywhere.
            cache: the state of what came before; it is advanced in place.
            segment_ids: (B,L), 1, 2, 3 … for documents packed into a row, 0 for padding; without mask and state.
            use_cache: return the state; by default only where one was given (a forward pass keeps nothing).
            output_hidden_states: also return the inputs of all layers and the last output.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise NautileError("give either input_ids or inputs_embeds")
        if inputs_embeds is not None and self.embed_pairs is not None:
            raise NautileError("inputs_embeds: this model has vectors of token pairs as well, so give it input_ids")
        given = inputs_embeds if input_ids is None else input_ids
        assert given is not None
        B, L = given.shape[:2]
        if L == 0:
            raise NautileError("the input has no tokens: an empty text needs at least one padding token and a mask")
        state = NautileState(self.config) if cache is None and use_cache else cache
        if state is not None:
            self._check_state(state, B, segment_ids)
        past_B = None if state is None else state.lengths_B
        layout = lay_out(B, L, given.device, attention_mask, segment_ids, past_B)
        given = layout.compact(given)
        x_BLD = given if input_ids is None else self._embed(given, layout, state)
        x_BLD, hidden_states = self._run(x_BLD, layout, state, bool(output_hidden_states))
        if state is not None and self.embed_pairs is not None:
            state.last_B = last_ids(given, layout, state.last_B)
        kept = tuple(map(layout.restore, hidden_states)) if output_hidden_states else None
        return Hidden(layout.restore(x_BLD), state, kept)

    def _embed(self, ids_BL: Tensor, layout: Layout, state: NautileState | None) -> Tensor:
        x_BLD: Tensor = self.embed_tokens(ids_BL)
        if self.embed_pairs is None:
            return x_BLD
        last_B = None if state is None else state.last_B
        return x_BLD + self.embed_pairs(ids_before(ids_BL, layout, last_B), ids_BL)

    def _check_state(self, state: NautileState, batch: int, segment_ids: Tensor | None) -> None:
        if segment_ids is not None:
            raise NautileError("packed rows leave no state: segment_ids go without cache and use_cache")
        if state.batch_size not in (-1, batch):
            raise NautileError(f"the state holds {state.batch_size} rows, the input {batch}: use branch() or gather()")

    def _run(
        self, x_BLD: Tensor, layout: Layout, state: NautileState | None, keep: bool
    ) -> tuple[Tensor, list[Tensor]]:
        B, L = x_BLD.shape[:2]
        rotation = rotary(layout.positions_BL, self.config.attention_width, self.config.rope_base)
        attending = rotation, visible_keys(B, L, layout, state)
        kept = []
        for block in self.blocks:
            if keep:
                kept.append(x_BLD)
            x_BLD = block(x_BLD, layout, attending, cache=state)
        if state is not None:
            state.advance(B, L, layout, x_BLD.device)
        x_BLD = self.norm(x_BLD)
        return x_BLD, [*kept, x_BLD] if keep else kept


def read_backbone(folder: Path, dtype: torch.dtype = torch.float32) -> Backbone | None:
    """The backbone of a checkpoint folder, in evaluation mode.

    None where the folder holds anything else or more: `checkpoints.load` reads that, or says what is wrong with it.
    """
    weights, said = folder / WEIGHTS, folder / "config.json"
    if not weights.is_file() or not said.is_file() or part_at(folder) is not None:
        return None
    about = read_config(said)
    if {name: about.get(name) for name in PLAIN} != PLAIN:
        return None
    try:
        tensors = load_file(weights)
    except (SafetensorError, OSError):
        return None
    with torch.device("meta"), _Unset():
        model = Backbone(NautileConfig.from_pretrained(folder))
    if _forms(tensors) != _forms(model.state_dict()):
        return None
    given = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    model.load_state_dict(given, assign=True)
    return model.eval()


class _Unset(TorchFunctionMode):
    """Parameters are not given the values to start from, for which torch would import its compiler on "meta"."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def _forms(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype | None]]:
    """The shape of each, and its type where that is not to be changed."""
    return {name: (x.shape, None if x.is_floating_point() else x.dtype) for name, x in tensors.items()}
